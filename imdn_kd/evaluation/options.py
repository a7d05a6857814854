"""Option files of `imdn-kd benchmark`: the test options of BasicSR, checked against a schema."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.errors import InputError
from imdn_kd.evaluation.image_sets import DataSource
from imdn_kd.evaluation.metrics import Protocol

Schema = TypeVar("Schema", bound="Options")

_UNKNOWN = "unknown_option"


class Options(BaseModel):
    """A section of an option file: unknown keys are errors, and values are of the type stated."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, content: object) -> object:
        for key in content if isinstance(content, Mapping) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(cls.model_fields)}"
                # Braces would be taken for places to fill in.
                message = f"no option is called {str(key)!r}; {hint}".replace("{", "(").replace("}", ")")
                raise PydanticCustomError(_UNKNOWN, message, {"key": key})
        return content


class IoBackend(Options):
    """`io_backend`: images are read from files."""

    type: Literal["disk"] = "disk"


class DatasetOptions(Options):
    """`datasets.test_1` and so on.

    Attributes:
        name: for tables; the data set of that name in the folder of all data sets, unless `dataroot_gt` is given.
        type: that of BasicSR.
        dataroot_gt: folder of the originals, or of a data set with `HR/` in it.
        dataroot_lq: folder of the LR images; without it they are looked for beside the originals, or made.
        filename_tmpl: name of the LR image of original `{}`, less the suffix.
        io_backend: `disk`.
    """

    name: str
    type: Literal["PairedImageDataset"] = "PairedImageDataset"
    dataroot_gt: str | None = None
    dataroot_lq: str | None = None
    filename_tmpl: str | None = None
    io_backend: IoBackend = IoBackend()

    def source(self) -> DataSource:
        """The data set that is meant."""
        return DataSource(self.dataroot_gt or self.name, self.dataroot_lq, self.name, self.filename_tmpl)


class PathOptions(Options):
    """`path`.

    Attributes:
        pretrain_network_g: model file or name of a student; without it the best student of the scale.
        strict_load_g: weights always have to fit.
    """

    pretrain_network_g: str | None = None
    strict_load_g: Literal[True] = True


class MetricOptions(Options):
    """`val.metrics.psnr` and `val.metrics.ssim`.

    Attributes:
        type: the function of BasicSR.
        crop_border: pixels cut from each border.
        test_y_channel: measure Y, not RGB.
        better: which direction is better.
    """

    type: Literal["calculate_psnr", "calculate_ssim"]
    crop_border: int = Field(ge=0)
    test_y_channel: bool = False
    better: Literal["higher"] = "higher"


class ValOptions(Options):
    """`val`.

    Attributes:
        save_img: keep the results in `experiments/NAME/visualization`.
        metrics: how images are measured; without it, by the protocol of published tables. PSNR and SSIM are always
            reported both.
    """

    save_img: bool = False
    metrics: dict[str, MetricOptions] = {}

    @model_validator(mode="after")
    def _agree(self) -> ValOptions:
        if len({(metric.crop_border, metric.test_y_channel) for metric in self.metrics.values()}) > 1:
            raise PydanticCustomError(
                "metrics_differ", "metrics differ in crop_border or test_y_channel; give all of them the same"
            )
        return self


class BenchmarkOptions(Options):
    """A whole option file.

    Attributes:
        name: of the run.
        scale: the factor.
        datasets: the data sets by any key, as `test_1`.
        network_g: the network that the model file is expected to hold, as `{"type": "imdn", "upscale": 4}`; an error if
            it holds another.
        path: where the model is.
        val: what to do with results.
        model_type: that of BasicSR.
        num_gpu: 0 for the CPU; otherwise one GPU if there is one.
        manual_seed: accepted for BasicSR's sake; nothing is random here.
    """

    name: str
    scale: int = Field(ge=2)
    datasets: dict[str, DatasetOptions] = Field(min_length=1)
    network_g: dict[str, Any] | None = None
    path: PathOptions = PathOptions()
    val: ValOptions = ValOptions()
    model_type: Literal["SRModel"] = "SRModel"
    num_gpu: int | Literal["auto"] = "auto"
    manual_seed: int | None = None

    @model_validator(mode="after")
    def _has_weights(self) -> BenchmarkOptions:
        if self.network_g and not self.path.pretrain_network_g:
            raise PydanticCustomError(
                "no_weights", "network_g has no weights; give path.pretrain_network_g, or leave network_g out"
            )
        return self

    def protocol(self) -> Protocol:
        """How images are measured."""
        if not self.val.metrics:
            return Protocol()
        metric = next(iter(self.val.metrics.values()))
        border = None if metric.crop_border == self.scale else metric.crop_border
        return Protocol(space="y" if metric.test_y_channel else "rgb", shave=border)


def read_options(path: Path | str, schema: type[Schema]) -> Schema:
    """Read a YAML file (safe subset: no code is run) and check it.

    Raises:
        InputError: no such file, not YAML, a key given twice, an unknown key, or a value of the wrong kind, with the
            line and the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot read it ({reason}); give the path of an option file (.yml)") from error
    try:
        tree = yaml.compose(text, yaml.SafeLoader)
        _refuse_twins(tree, path)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(f"{path}{where}: is not plain YAML ({problem}); correct it") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply; correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no options; write `key: value` lines")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        keys = list(first["loc"])
        section = ".".join(map(str, keys))
        if first["type"] == _UNKNOWN:
            keys.append(first["ctx"]["key"])
        message = f"{section}: {first['msg']}" if section else first["msg"]
        raise InputError(f"{path}, line {_line(tree, keys)}: {' '.join(message.split())}") from error


def _refuse_twins(node: yaml.Node | None, path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise InputError(f"{path}, line {key.start_mark.line + 1}: {key.value!r} is given twice; keep one")
            seen.add(str(key.value))
            _refuse_twins(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twins(item, path)


def _line(node: yaml.Node | None, keys: list[Any]) -> int:
    """Line of the innermost of `keys` that the file has, from 1."""
    line = 1
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next((pair for pair in node.value if pair[0].value == str(key)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
