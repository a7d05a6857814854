"""Upscaling many image files: which file goes where, and one after the other without stopping at a bad one."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imdn_kd.errors import InputError
from imdn_kd.image.io import WRITABLE, Picture, find_images, is_image_name, read_image, write_image
from imdn_kd.utils.files import check_folder

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class FileJob:
    """One image file to read and the one to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class FileResult:
    """Result of a job.

    Attributes:
        job: what was to be done.
        status: `done`, `skipped` (the target exists) or `failed`.
        reason: why it failed, one line; otherwise empty.
        width: of the result in px, 0 if there is none.
        height: of the result in px, 0 if there is none.
        seconds: reading, enlarging and writing.
        left_out: what of the metadata the target does not hold, in words.
    """

    job: FileJob
    status: Status
    reason: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()


def plan_jobs(
    inputs: Sequence[str], output: Path, *, recursive: bool = False, suffix: str | None = None
) -> list[FileJob]:
    """Pair the images named by `inputs` with their outputs.

    Args:
        inputs: files, folders and glob patterns.
        output: a folder, made if it is missing; or, for a single file, a file if the name has the suffix of an image.
        recursive: go into the folders inside folders; their structure is kept below `output`.
        suffix: of the outputs (`.png`); by default that of the input if it can be written, else `.png`.

    Raises:
        InputError: an input that does not exist, no image found, an output that is an input, two inputs with
            one output, or an unknown suffix.
    """
    if suffix is not None and suffix not in WRITABLE:
        raise InputError(
            f"images cannot be written as {suffix!r}; choose one of {', '.join(sorted(WRITABLE))}",
            code="image.unwritable-format",
        )
    # Results of an earlier run may lie below one of the inputs.
    done = [] if output.is_file() else [output.resolve()]
    sources = [
        pair
        for pair in _find_sources(inputs, recursive=recursive)
        if not (recursive and any(folder in pair[0].resolve().parents for folder in done))
    ]
    if not sources:
        raise InputError(
            f"no image found in {', '.join(inputs)}; give image files or folders that hold some", code="input.no-images"
        )
    if len(sources) == 1 and is_image_name(output) and not output.is_dir():
        if output.suffix.lower() not in WRITABLE or (suffix and suffix != output.suffix.lower()):
            kinds = suffix or ", ".join(sorted(WRITABLE))
            raise InputError(
                f"{output}: would not be written as {kinds}; change its suffix", code="image.unwritable-format"
            )
        jobs = [FileJob(sources[0][0], output)]
    else:
        if output.exists() and not output.is_dir():
            raise InputError(
                f"{output}: is a file, and not an image; give a folder, or the name of an image",
                code="output.not-a-folder",
            )
        jobs = [FileJob(source, output / _with_suffix(relative, suffix)) for source, relative in sources]
    inputs_used = {source.resolve() for source, _ in sources}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target.resolve() in inputs_used:
            raise InputError(
                f"{job.target}: the output would replace an input; choose another output folder", code="output.is-input"
            )
        other = taken.setdefault(job.target, job.source)
        if other != job.source:
            raise InputError(
                f"{job.source} and {other} would both become {job.target}; enlarge them in two runs",
                code="output.collision",
            )
    return jobs


def run_jobs(
    jobs: Iterable[FileJob],
    enlarge: Callable[[Picture], Picture],
    *,
    skip_existing: bool = False,
    overwrite: bool = False,
    quality: int = 95,
) -> Iterator[FileResult]:
    """Do the jobs in order and yield what became of each. Only an InputError counts as failed; others are bugs."""
    for job in jobs:
        start = time.perf_counter()
        if skip_existing and job.target.exists():
            yield FileResult(job, "skipped")
            continue
        try:
            _check_target(job, overwrite=overwrite)
            picture = enlarge(read_image(job.source))
            left_out = write_image(job.target, picture, overwrite=overwrite, quality=quality)
        except InputError as error:
            yield FileResult(job, "failed", reason=str(error), seconds=time.perf_counter() - start)
            continue
        seconds = time.perf_counter() - start
        yield FileResult(job, "done", "", picture.width, picture.height, seconds, left_out)


def as_report(results: Sequence[FileResult]) -> list[dict[str, object]]:
    """The results as JSON can hold them."""
    return [
        {
            "input": str(result.job.source),
            "output": str(result.job.target),
            "status": result.status,
            "reason": result.reason,
            "width": result.width,
            "height": result.height,
            "seconds": round(result.seconds, 3),
            "left_out": list(result.left_out),
        }
        for result in results
    ]


def _find_sources(inputs: Sequence[str], *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Pairs of an image file and its path below the output folder, each file once."""
    seen: set[Path] = set()
    for text in inputs:
        for path in _expand(text):
            found = find_images(path, recursive) if path.is_dir() else [path]
            for source in found:
                if source not in seen:
                    seen.add(source)
                    yield source, source.relative_to(path) if path.is_dir() else Path(source.name)


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.exists() or not glob.has_magic(text):
        if not path.exists():
            raise InputError(f"{text}: no such file or folder", code="input.not-found")
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - absolute patterns too
    return [match for match in matches if match.is_dir() or is_image_name(match)]


def _with_suffix(path: Path, suffix: str | None) -> Path:
    if suffix is None:
        suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
    return path.with_suffix(suffix)


def _check_target(job: FileJob, *, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if job.target.exists() and not overwrite:
        raise InputError(
            f"{job.target}: exists already; use --overwrite, --skip-existing or another output folder",
            code="output.exists",
        )
    check_folder(job.target)
