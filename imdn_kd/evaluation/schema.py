"""Option files of `imdn-kd benchmark`: the test options of BasicSR, checked against a schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options, UserPath
from imdn_kd.data.degradation.schema import Step
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.evaluation.protocol import Protocol, usual_protocol


class IoBackend(Options):
    """`io_backend`: images are read from files."""

    type: Literal["disk"] = "disk"


class DatasetOptions(Options):
    """`datasets.test_1` and so on.

    Attributes:
        name: shown in tables; the data set of that name in the folder of all data sets, unless `dataroot_gt` is given.
        type: as in BasicSR.
        dataroot_gt: folder of the HR images, or of a data set with `HR/` in it.
        dataroot_lq: folder of the LR images; without it they are looked for beside the HR images, or made.
        degradation: steps that make the LR images instead, as for `imdn-kd prepare`: `[{type: noise, sigma: 25}]`;
            their random numbers are the same each time.
        filename_tmpl: name of the LR image of HR image `{}`, less the suffix.
        io_backend: `disk`.
        color: as in BasicSR: `y` in option files of networks that work on Y; the network itself says how many channels
            it takes. At scale 1, `y` turns the images grey first, as tables of grey denoising and of JPEG artefacts do.
    """

    name: str
    type: Literal["PairedImageDataset", "SingleImageDataset"] = "PairedImageDataset"
    dataroot_gt: UserPath | None = None
    dataroot_lq: UserPath | None = None
    degradation: list[Step] | None = Field(None, min_length=1)
    filename_tmpl: str | None = None
    io_backend: IoBackend = IoBackend()
    color: Literal["y", "n"] | None = None

    @field_validator("type")
    @classmethod
    def _has_hr_images(cls, name: str) -> str:
        if name == "SingleImageDataset":
            raise PydanticCustomError(
                "no_hr", "SingleImageDataset has no HR images to measure against; upscale them with imdn-kd upscale"
            )
        return name

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        # Saved images lie in a folder of this name.
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise PydanticCustomError("name", "is to be a plain name, without slashes")
        return name

    @model_validator(mode="after")
    def _made_or_given(self) -> DatasetOptions:
        if self.degradation and (self.dataroot_lq or self.filename_tmpl):
            raise PydanticCustomError(
                "given", "degradation makes the LR images; leave out dataroot_lq and filename_tmpl, or degradation"
            )
        return self

    def source(self, scale: int) -> DataSource:
        """The data set, as `find_set` takes it."""
        return DataSource(
            self.dataroot_gt or self.name,
            self.dataroot_lq,
            self.name,
            self.filename_tmpl,
            tuple(self.degradation or ()),
            grey=scale == 1 and self.color == "y",
        )


class PathOptions(Options):
    """`path`.

    Attributes:
        pretrain_network_g: any model file, or name of a student (default: the best student of the scale).
        param_key_g: which weights of a checkpoint, any key in it (default: the EMA weights if there are any).
        strict_load_g: weights always have to fit.
        pretrain_model_g: older name of `pretrain_network_g`.
    """

    harmless: ClassVar[Mapping[str, str]] = {"strict_load": "no effect; weights always have to fit"}

    pretrain_network_g: UserPath | None = None
    param_key_g: str | None = None
    strict_load_g: bool = True
    pretrain_model_g: UserPath | None = None

    @property
    def model(self) -> str | None:
        """The model to measure, if one is named."""
        return self.pretrain_network_g or self.pretrain_model_g


class MetricOptions(Options):
    """`val.metrics.psnr` and `val.metrics.ssim`.

    Attributes:
        type: the function of BasicSR. NIQE, LPIPS and FID are not measured.
        crop_border: pixels cut from each border.
        test_y_channel: measure Y, not RGB.
        better: which direction is better; accepted for compatibility with BasicSR.
    """

    type: Literal["calculate_psnr", "calculate_ssim", "calculate_niqe", "calculate_lpips", "calculate_fid"]
    crop_border: Integer = Field(ge=0)
    test_y_channel: bool = False
    better: Literal["higher", "lower"] = "higher"


class ValOptions(Options):
    """`val`.

    Attributes:
        save_img: save the results in `experiments/NAME/visualization`.
        metrics: the protocol (default: that of published tables, `usual_protocol`). PSNR and SSIM are always
            reported both.
    """

    save_img: bool = False
    metrics: dict[str, MetricOptions] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agree(self) -> ValOptions:
        if len({(metric.crop_border, metric.test_y_channel) for metric in self._measured()}) > 1:
            raise PydanticCustomError(
                "metrics_differ", "metrics differ in crop_border or test_y_channel; give all of them the same"
            )
        return self

    def protocol(self, scale: int) -> Protocol | None:
        """The protocol for a scale; None for the usual one."""
        for metric in self._measured():
            border = None if metric.crop_border == Protocol().border(scale) else metric.crop_border
            return Protocol(space="y" if metric.test_y_channel else "rgb", shave=border)
        return None

    def ignored(self) -> list[str]:
        """Names of the metrics that are not measured."""
        return [name for name, metric in self.metrics.items() if metric not in self._measured()]

    def _measured(self) -> list[MetricOptions]:
        return [metric for metric in self.metrics.values() if metric.type in ("calculate_psnr", "calculate_ssim")]


class BenchmarkValOptions(ValOptions):
    """`val`."""

    harmless: ClassVar[Mapping[str, str]] = {
        "suffix": "no effect; saved images are named IMAGE_MODEL.png",
        "pbar": "no effect",
        "use_pbar": "no effect",
    }


class BenchmarkOptions(Options):
    """Options of a benchmark (a whole option file).

    Attributes:
        name: name of the run.
        scale: upscaling factor; 1 for models that restore images.
        datasets: the data sets by any key, as `test_1`.
        network_g: the network of the model file, as `{"type": "EDSR", "num_feat": 64}`: needed for checkpoints of
            BasicSR; an error where the file says that it is another.
        path: the model.
        val: metrics, and whether to save results.
        model_type: as in BasicSR; of a GAN, the generator is measured.
        num_gpu: 0 for the CPU; otherwise one GPU if there is one.
        imports: your own files (as seen from this file) or modules that register networks.
        manual_seed: accepted for compatibility with BasicSR; nothing is random here.
        crop_border: older place of `val.metrics`; by default `scale` pixels.
        save_img: older place of `val.save_img`.
    """

    harmless: ClassVar[Mapping[str, str]] = {"suffix": BenchmarkValOptions.harmless["suffix"]}

    name: str
    scale: Integer = Field(ge=1)
    datasets: dict[str, DatasetOptions] = Field(min_length=1)
    network_g: dict[str, Any] | None = None
    path: PathOptions = PathOptions()
    val: BenchmarkValOptions = BenchmarkValOptions()
    model_type: Literal["SRModel", "SwinIRModel", "SRGANModel", "ESRGANModel", "RealESRGANModel", "RealESRNetModel"] = (
        "SRModel"
    )
    num_gpu: Integer | Literal["auto"] = "auto"
    imports: list[str] | None = None
    manual_seed: Integer | None = None
    crop_border: Integer | None = Field(None, ge=0)
    save_img: bool = False

    @model_validator(mode="after")
    def _has_weights(self) -> BenchmarkOptions:
        if self.network_g and not self.path.model:
            raise PydanticCustomError(
                "no_weights", "network_g has no weights; give path.pretrain_network_g, or leave network_g out"
            )
        return self

    def protocol(self) -> Protocol | None:
        """The protocol of the file; None for the usual one."""
        protocol = self.val.protocol(self.scale)
        if self.crop_border in (None, Protocol().border(self.scale)):
            return protocol
        return replace(protocol or usual_protocol(self.scale), shave=self.crop_border)

    def notes(self) -> Iterator[str]:
        """A line for everything that has another meaning here than in BasicSR, or none."""
        yield from self.ignored_keys()
        if self.model_type != "SRModel":
            yield f"model_type: {self.model_type} is measured as SRModel: network_g alone, on whole images"
        if not self.path.strict_load_g:
            yield "path.strict_load_g: no effect; weights always have to fit"
        if self.num_gpu not in (0, 1, "auto"):
            yield f"num_gpu: {self.num_gpu} GPUs are asked for; one is used"
        for name in self.val.ignored():
            yield f"val.metrics.{name} is not measured; there are PSNR and SSIM"
