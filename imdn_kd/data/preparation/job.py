"""One run of `imdn-kd prepare`: opens the source of the options, and writes the data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from imdn_kd.data.preparation.leak_check import BenchmarkIndex
from imdn_kd.data.preparation.pipeline import PrepareReport, build_dataset
from imdn_kd.data.preparation.samples import PrepareSpec
from imdn_kd.data.preparation.schema import Format, PrepareOptions
from imdn_kd.data.preparation.sources.catalogue import NAMED_SETS, SAMPLE, Archive
from imdn_kd.data.preparation.sources.download import Progress, download
from imdn_kd.data.preparation.sources.sources import (
    Source,
    folder_source,
    lmdb_source,
    named_source,
    sample_source,
    store_source,
)
from imdn_kd.data.store import Store
from imdn_kd.errors import InputError
from imdn_kd.utils.text import one_line

USUAL_SCALES = (Fraction(2), Fraction(3), Fraction(4))


def check_inputs(options: PrepareOptions) -> None:
    """Check that all inputs exist, which is cheap, before anything is downloaded or written.

    Raises:
        InputError: `data.not-found`.
    """
    for place in [*filter(None, [options.path]), *options.places, *options.lr.values()]:
        if not Path(place).exists():
            label = one_line(place)
            raise InputError(f"{label}: no such folder or archive; check the name", code="data.not-found")


def open_source(options: PrepareOptions, *, root: Path, on_download: Callable[[str], Progress] | None = None) -> Source:
    """Open the source of the options, and download what is missing, unless `places` say where it is.

    Args:
        options: of the run.
        root: folder of all data sets, where downloads go.
        on_download: returns, for the name of a file, what is called with the progress of its download.

    Raises:
        InputError: `prepare.not-in-places`; as the functions of `imdn_kd.data.preparation.sources.sources`.
    """
    scales = _scales(options)
    given, made = (scales, ()) if options.steps() is None else ((), scales)
    path = Path(options.path or "")
    lr = {scale: Path(place) for scale, place in options.given_places().items()}

    def fetch(archive: Archive) -> None:
        if options.places:
            places = one_line(", ".join([*options.places, str(root)]))
            raise InputError(
                f"{places}: no {archive.name} there, packed or unpacked; put it there, or leave out --from, "
                "which downloads it",
                code="prepare.not-in-places",
            )
        progress = on_download(archive.name) if on_download else None
        target = root / archive.name
        download(archive.url, target, checksum=archive.checksum, size=archive.size, on_progress=progress)

    if options.source == "folder":
        return folder_source(path, given, made, lr)
    if options.source == "lmdb":
        return lmdb_source(path, given, lr)
    if options.source == "store":
        return store_source(path, given)
    if options.source in SAMPLE:
        return sample_source(options.source)
    return named_source(NAMED_SETS[options.source], [*map(Path, options.places), root], given, made, fetch)


def write_dataset(
    options: PrepareOptions,
    source: Source,
    *,
    root: Path,
    workers: int | None = None,
    overwrite: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> PrepareReport:
    """Write the data set of the options; see `build_dataset`."""
    form = options.format or _default_format(options)
    source = dataclasses.replace(source, name=options.name or source.name)
    target = Path(options.output) if options.output else default_output(source.name, form, root)
    _refuse_overlap(options, target)
    exclude = BenchmarkIndex([Path(folder) for folder in options.exclude_like]) if options.exclude_like else None
    spec = PrepareSpec(_scales(options), options.steps(), options.manual_seed, exclude, form)
    report = build_dataset(source, target, spec, overwrite=overwrite, workers=workers, on_image=on_image)
    return dataclasses.replace(report, notes=tuple(source.notes))


def default_output(name: str, form: Format, root: Path) -> Path:
    """Default path of a prepared data set."""
    return root / {"store": f"{name}.store", "folder": name, "lmdb": f"{name}_lmdb"}[form]


def _scales(options: PrepareOptions) -> tuple[Fraction, ...]:
    asked = options.scales()
    if asked:
        return asked
    if options.source == "store" and options.steps() is None:
        return tuple(Store(options.path or "").lq_scales())
    if options.steps() is None and options.source not in NAMED_SETS:
        raise InputError(
            "--degradation given needs the scales of the LR images; add --scale, or --lr SCALE=PATH",
            code="prepare.scale-missing",
        )
    return USUAL_SCALES


def _default_format(options: PrepareOptions) -> Format:
    """Benchmarks are read from folders; all others are packed for training."""
    trained_on = options.source not in NAMED_SETS or options.source == "div2k"
    return "store" if trained_on and options.source != "sample_valid" else "folder"


def _refuse_overlap(options: PrepareOptions, target: Path) -> None:
    """Refuse an output that contains an input, or that lies among the HR images."""
    home = target.resolve()
    read = [*filter(None, [options.path]), *options.lr.values(), *options.exclude_like]
    for place in (Path(each).resolve() for each in read):
        if home == place or home in place.parents:
            raise InputError(f"{target}: contains an input; choose another --output", code="prepare.output-overlaps")
    if options.source == "folder" and Path(options.path or "").resolve() in home.parents:
        raise InputError(f"{target}: lies among the HR images; choose another --output", code="prepare.output-overlaps")
