"""`imdn-kd prepare`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say
from imdn_kd.errors import InputError

if TYPE_CHECKING:
    from imdn_kd.data.preparation.pipeline import PrepareReport
    from imdn_kd.data.preparation.schema import PrepareOptions

_NAMED = 5  # images named in a line of the report


def prepare(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT...",
            help="div2k, div2k_valid, set5, set14, b100, urban100, sample, sample_valid; or folder PATH (also an "
            "archive), lmdb PATH, store PATH.",
            show_default=False,
        ),
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="PATH", help="Folder with the files of the data set; nothing is downloaded then."
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option("--scale", "-s", help="Downscaling factor; can be given several times.", show_default="2 3 4"),
    ] = None,
    degradation: Annotated[
        str | None,
        typer.Option(
            help="bicubic (MATLAB's), or given (LR images that come with the HR images).", show_default="bicubic"
        ),
    ] = None,
    lr: Annotated[
        list[str] | None,
        typer.Option(metavar="SCALE=PATH", help="Folder, archive or LMDB of the given LR images of a scale."),
    ] = None,
    exclude_like: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="Leave out images that look like one of this benchmark.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="store, folder or lmdb.", show_default="store; benchmarks: folder")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="The result.", show_default="NAME.store")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of all data sets.")] = Path("datasets"),
    options: Annotated[
        Path | None,
        typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml); other options override it."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads.", show_default="all cores")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make what is at the output anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Prepare training data: decode images, compute their LR images, pack both.

    After an interruption, the same command resumes.

    imdn-kd prepare div2k --from downloads --exclude-like datasets/Set14
    """
    from imdn_kd.cli.progress import DownloadProgress, FileProgress
    from imdn_kd.data.base import exact_scale
    from imdn_kd.data.preparation.job import check_inputs, open_source, write_dataset

    for each in scale or []:
        exact_scale(each)  # told by the name of the option, not by that of an option file
    flags = {
        "places": places,
        "scale": scale,
        "degradation": degradation,
        "lr": _by_scale(lr or []),
        "exclude_like": exclude_like,
        "format": form,
        "output": output,
    }
    requests = _requests(list(what or []), {key: value for key, value in flags.items() if value}, options)
    if output and len(requests) > 1:
        raise InputError(
            "--output takes one data set, and several are given; use --root", code="prepare.several-outputs"
        )
    for request in requests:
        check_inputs(request)
    reports = []
    for request in requests:
        with DownloadProgress(quiet=quiet) as download:
            source = open_source(request, root=root, on_download=download.file)
        try:
            with FileProgress(quiet=quiet) as progress:
                report = write_dataset(
                    request, source, root=root, workers=workers, overwrite=overwrite, on_image=progress.at
                )
            reports.append(report)
        except KeyboardInterrupt:
            complain("stopped; the same command resumes")
            raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([{**dataclasses.asdict(each), "path": str(each.path)} for each in reports], indent=2))
    elif not quiet:
        for report in reports:
            _show(report)
    bad = [reason for report in reports for reason in report.bad.values()]
    for line in [*(report.warning for report in reports if report.warning), *bad]:
        complain(line)
    if bad:
        raise typer.Exit(1)


def _requests(what: list[str], flags: Mapping[str, Any], file: Path | None) -> list[PrepareOptions]:
    """Options of each data set that is given, on the command line or by an option file."""
    from imdn_kd.config.options import check_options, read_options
    from imdn_kd.data.preparation.schema import PATH_SOURCES, PrepareOptions

    if file is not None:
        if what:
            raise InputError(
                f"{what[0]!r} and an option file both name what to prepare; give one of them", code="prepare.source"
            )
        content = read_options(file, PrepareOptions).model_dump(exclude_unset=True)
        return [check_options({**content, **flags}, PrepareOptions, "imdn-kd prepare")]
    if not what:
        raise InputError(
            "prepare what? give the name of a data set, as in: imdn-kd prepare sample", code="prepare.source"
        )
    requests = []
    words = iter(what)
    for word in words:
        content = {"source": word, **flags}
        if word in PATH_SOURCES:
            path = next(words, None)
            if path is None:
                raise InputError(
                    f"{word} of what? give its path, as in: imdn-kd prepare {word} PATH", code="prepare.source"
                )
            content["path"] = path
        requests.append(check_options(content, PrepareOptions, "imdn-kd prepare"))
    return requests


def _by_scale(places: Sequence[str]) -> dict[float, str]:
    result = {}
    for place in places:
        scale, _, path = place.partition("=")
        try:
            result[float(scale)] = path
        except ValueError:
            path = ""
        if not path:
            raise InputError(
                f"--lr is {place!r}; write SCALE=PATH, as in 4=DIV2K_train_LR_bicubic/X4", code="prepare.lr"
            )
    return result


def _show(report: PrepareReport) -> None:
    total = sum(report.bytes.values())
    planes = ", ".join(f"{plane} {_amount(size)}" for plane, size in report.bytes.items())
    say(f"{report.path}: {report.images} images, {_amount(total)} of pixels ({planes})")
    if not report.fresh:
        print("  exists already, with the same images and options")
    for note in report.notes:
        print(f"  {note}")
    for names, kind in ((names, f"converted: {kind}") for kind, names in report.converted.items()):
        say(f"  {len(names)} {kind}: {_some(names)}")
    if report.excluded:
        print(f"  {len(report.excluded)} excluded, similar to an image of a benchmark:")
        for reason in report.excluded.values():
            say(f"    {reason}")
    if report.bad:
        say(f"  {len(report.bad)} left out, unusable: {_some(list(report.bad))}")
    if report.ignored:
        print(f"  {report.ignored} files ignored, no images")


def _some(names: Sequence[str]) -> str:
    more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
    return ", ".join(names[:_NAMED]) + more


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
