"""`export_model`: write a model for another runtime, once it is known to give the same results there."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.archs.quantize import ranges_of
from imdn_kd.errors import InputError
from imdn_kd.inference.export.formats import Format, find_format
from imdn_kd.inference.export.metadata import describe, read_info
from imdn_kd.inference.export.parity import Parity, measure_parity
from imdn_kd.inference.export.photographs import Photograph, sample_photographs
from imdn_kd.inference.export.samples import sample
from imdn_kd.inference.export.value_dependence import check_values_are_free
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.utils.files import atomic_path, check_folder
from imdn_kd.utils.text import one_line

TOLERANCE = 1e-4
"""How far results may be from those of PyTorch, of the range of the image."""


LEAST_PSNR = 45.0
"""The same for networks in 8 bits, dB."""

INT8_FORMATS = ("onnx", "openvino")
"""Formats that have words for 8 bits."""


@dataclass(frozen=True)
class Export:
    """What was written: the files, their bytes in all, what they say, and how their runtime compares with PyTorch."""

    format: str
    runtime: str
    files: tuple[Path, ...]
    bytes: int
    metadata: dict[str, str]
    parity: Parity


def export_model(
    model: ModelFile,
    format_name: str,
    path: Path | str,
    *,
    name: str,
    photographs: Sequence[Photograph] = (),
    reference: SRNetwork | None = None,
    least_psnr: float = LEAST_PSNR,
    overwrite: bool = False,
    on_step: Callable[[], object] = lambda: None,
) -> Export:
    """Write `model` as files for another runtime, which take images of any number and size.

    Args:
        model: what to export.
        format_name: one of `formats.NAMES`.
        path: the file, with the suffix of the format; formats of several files put the others beside it. They appear
            once the results are those of PyTorch, all of them or none.
        name: of the model, which the file says.
        photographs: on which results are compared; by default some that come with scikit-image.
        reference: in PyTorch, with which results are compared; by default the network of `model`.
        least_psnr: dB to the results of `reference` that those of a network in 8 bits need.
        overwrite: replace files that are there.
        on_step: called `parity.SIZES + 2` times while it works.

    Raises:
        InputError: as `find_format`; `export.suffix`; `file.exists`; `file.cannot-write`; `export.value-dependent`, as
            `check_values_are_free`; `engine.cannot-export`, an operation of the network is in the way;
            `export.cannot-run`, the runtime fails; `export.parity`, the results differ from those of PyTorch by more
            than `TOLERANCE`.
    """
    form, path = find_format(format_name), Path(path)
    targets = _targets(form, format_name, path, overwrite=overwrite)
    in_8_bits = bool(ranges_of(model.network.state_dict()))
    if in_8_bits and format_name not in INT8_FORMATS:
        raise InputError(f"{format_name} has no 8 bits; export to {' or '.join(INT8_FORMATS)}", code="export.no-int8")
    network = copy.deepcopy(model.network).eval().cpu().float().requires_grad_(False)
    metadata = describe(replace(model, network=network), name)
    with TemporaryDirectory(prefix="imdn_kd_") as folder:
        made = [Path(folder, f"model{suffix}") for suffix in form.SUFFIXES]
        check_values_are_free(network, sample(network.info))
        form.write(network, metadata, made[0])
        on_step()
        try:
            run = form.load(made[0], torch.get_num_threads())
            info, value_range = read_info(metadata)
            images = photographs or sample_photographs()
            parity = measure_parity(reference or network, run, info, value_range, images, on_step)
        except Exception as error:  # each runtime has its own kinds
            raise InputError(
                f"{name}: {form.RUNTIME} cannot run what was exported ({one_line(str(error))}); choose another format",
                code="export.cannot-run",
            ) from error
        if in_8_bits:
            _check_psnr(parity, least_psnr, name)
        else:
            _check(parity, form, name)
        size = sum(file.stat().st_size for file in made)
        _publish(made, targets, overwrite=overwrite)
    return Export(format_name, form.RUNTIME, tuple(targets), size, metadata, parity)


def _targets(form: Format, format_name: str, path: Path, *, overwrite: bool) -> list[Path]:
    """The files to write; refuses before the work what could not be written after it."""
    if path.suffix.lower() != form.SUFFIXES[0]:
        raise InputError(
            f"{path}: a file in the format {format_name} ends in {form.SUFFIXES[0]}; name it so", code="export.suffix"
        )
    targets = [path, *(path.with_suffix(suffix) for suffix in form.SUFFIXES[1:])]
    for target in targets:
        if target.is_dir():
            raise InputError(f"{target}: is a folder; name a file", code="file.exists")
        if target.exists() and not overwrite:
            raise InputError(
                f"{target}: exists already; choose another name or allow overwriting (--overwrite)", code="file.exists"
            )
        check_folder(target)
    return targets


def _check(parity: Parity, form: Format, name: str) -> None:
    if parity.difference <= TOLERANCE:
        return
    worst = max(parity.sizes, key=lambda each: math.inf if math.isnan(each.difference) else each.difference)
    height, width = worst.size
    told = "another size, or values that are no numbers" if math.isnan(worst.difference) else f"{worst.difference:.2g}"
    raise InputError(
        f"{name}: {form.RUNTIME} gives another result than PyTorch for {width}x{height} px ({told}, of the range; "
        f"allowed: {TOLERANCE:g}), so nothing is written; choose another format, or a network that does the same for "
        "images of all sizes",
        code="export.parity",
    )


def _check_psnr(parity: Parity, least: float, name: str) -> None:
    if not parity.psnr >= least:
        raise InputError(
            f"{name}: in 8 bits the result has {parity.psnr:.1f} dB to what it is compared with, less than {least:g}, "
            "so nothing is written; give more images like those to be upscaled, train it in 8 bits (train.quantize), "
            "or allow less (--min-psnr)",
            code="export.int8-loss",
        )


def _publish(made: Sequence[Path], targets: Sequence[Path], *, overwrite: bool) -> None:
    """Put the files where they belong, the first one last: without it, the others are not a model."""
    new = [target for target in targets if not target.exists()]
    try:
        with ExitStack() as stack:
            for file, target in zip(made, targets, strict=True):
                shutil.copyfile(file, stack.enter_context(atomic_path(target, overwrite=overwrite)))
            if overwrite and len(targets) > 1:
                targets[0].unlink(missing_ok=True)
    except BaseException:
        for target in new:
            target.unlink(missing_ok=True)
        raise
