"""Option files of training, read so that a mistake of one kind does not hide those of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imdn_kd.config.options import import_named_in, merged_options, read_options
from imdn_kd.distill.schema import GROUND_TRUTH_OPTIONS
from imdn_kd.errors import InputError, join_errors
from imdn_kd.registry import ARCHS, DATASETS, LOSS_TERMS, LOSSES, Registry
from imdn_kd.training.schema import TrainOptions

OTHER_MODEL = "options.other-model"
"""Code of the error about a `model_type` of BasicSR that is not trained here."""


def read_train_options(path: Path | str, overrides: Sequence[str] = ()) -> TrainOptions:
    """Read an option file; see `read_options`.

    Raises:
        InputError: as `read_options`; with a line as well for each network, loss or data set of an unknown name, which
            a correct file is asked for when these are opened.
    """
    try:
        return read_options(path, TrainOptions, overrides)
    except InputError as error:
        # Files of models that are not trained here have names of BasicSR's own.
        found = [error] if error.code == OTHER_MODEL else [error, *_unknown_names(path, overrides)]
    raise join_errors(found)


def _unknown_names(path: Path | str, overrides: Sequence[str]) -> Iterator[InputError]:
    try:
        content = merged_options(path, overrides)
        import_named_in(path)
    except InputError as error:
        yield error
        return
    for place, section, registry in _named(content):
        name = _section(section).get("type")
        try:
            if isinstance(name, str):
                registry.get(name)
        except InputError as error:
            yield InputError(*(f"{place}: {line}" for line in error.lines), code=error.code)


def _named(content: Mapping[Any, Any]) -> Iterator[tuple[str, Any, Registry[Any]]]:
    """Options that say what is built by a name: place, section, and where the name is looked up."""
    yield "network_g", content.get("network_g"), ARCHS
    teachers = content.get("network_t")
    if isinstance(teachers, list):
        yield from ((f"network_t.{number}", each, ARCHS) for number, each in enumerate(teachers))
    else:
        yield "network_t", teachers, ARCHS
    yield "datasets.train", _section(content.get("datasets")).get("train"), DATASETS
    for option in GROUND_TRUTH_OPTIONS.values():
        yield f"train.{option}", _section(content.get("train")).get(option), LOSSES
    for name, term in _section(_section(content.get("distill")).get("objectives")).items():
        is_term = _section(term).get("type") in list(LOSS_TERMS)
        yield f"distill.objectives.{name}", term, LOSS_TERMS if is_term else LOSSES


def _section(value: Any) -> Mapping[Any, Any]:  # noqa: ANN401 - whatever YAML holds
    return value if isinstance(value, Mapping) else {}
