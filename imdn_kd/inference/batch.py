"""Upscaling many image files: which file goes where, and one after the other without stopping at a bad one."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from imdn_kd.errors import InputError, join_errors
from imdn_kd.image.frame_writer import further_pictures, holds_all, write_frames
from imdn_kd.image.frames import Frame, read_frames
from imdn_kd.image.io import READABLE, WRITABLE, Picture, check_writable, find_images, is_image_name, write_image
from imdn_kd.inference.memory import is_out_of_memory
from imdn_kd.inference.sizes import Size, size_warning
from imdn_kd.utils.files import check_folder
from imdn_kd.utils.text import one_line

log = logging.getLogger("imdn_kd")

Status = Literal["done", "skipped", "failed"]

_EXISTS = ("output.exists", "image.exists")


@dataclass(frozen=True)
class FileJob:
    """One image file to read and the one to write.

    Attributes:
        source: the image, or a folder or pattern that gave none.
        target: the file to write, or the folder where the images of `source` would lie.
        problem: why there is nothing to read; None for an image.
    """

    source: Path
    target: Path
    problem: InputError | None = None


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
        left_out: what of the source the target does not hold, in words.
    """

    job: FileJob
    status: Status
    reason: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()


def plan_jobs(
    inputs: Sequence[str], output: Path | str, *, recursive: bool = False, suffix: str | None = None
) -> list[FileJob]:
    """Pair the images named by `inputs` with their outputs.

    An input that cannot be found or listed, or that holds no image, becomes a job with a problem, if others hold some.

    Args:
        inputs: files, folders and glob patterns.
        output: a folder, made if it is missing; or a file for a single image. A name that ends with a slash is a
            folder; one with a suffix is a file, unless there is a folder of that name or several images.
        recursive: go into the folders inside folders, linked ones too; their structure is kept below `output`.
        suffix: of the outputs (`.png`); by default that of the input if it can be written, else `.png`.

    Raises:
        InputError: no image found, an output that is an input, two inputs with one output, one file for several
            images, or an unknown suffix.
    """
    if suffix is not None and suffix not in WRITABLE:
        raise InputError(
            f"images cannot be written as {suffix!r}; choose one of {', '.join(sorted(WRITABLE))}",
            code="image.unwritable-format",
        )
    by_source: dict[Path, FileJob] = {}
    for text in inputs:
        for job in _find(text, Path(output), recursive=recursive):
            by_source.setdefault(job.source, job)
    found = list(by_source.values())
    images = [job for job in found if job.problem is None]
    if not images:
        raise join_errors([job.problem for job in found if job.problem] or [_no_images("nothing")])
    if _is_file(output, found, named=len(inputs) == 1 and not Path(inputs[0]).is_dir()):
        target = Path(output)
        if target.suffix.lower() not in WRITABLE or (suffix and suffix != target.suffix.lower()):
            kinds = suffix or ", ".join(sorted(WRITABLE))
            raise InputError(
                f"{target}: would not be written as {kinds}; change its suffix, or write {target}/ for a folder",
                code="image.unwritable-format",
            )
        jobs = [FileJob(images[0].source, target)]
    else:
        jobs = [job if job.problem else FileJob(job.source, _with_suffix(job.target, suffix)) for job in found]
    inputs_used = {os.path.realpath(job.source) for job in images}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.problem:
            continue
        if os.path.realpath(job.target) in inputs_used:
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
    result_size: Callable[[Picture], Size],
    *,
    skip_existing: bool = False,
    overwrite: bool = False,
    quality: int = 95,
) -> Iterator[FileResult]:
    """Do the jobs in order and yield what became of each; whatever goes wrong with one of them ends only that one.

    Args:
        jobs: from `plan_jobs`.
        enlarge: makes the result.
        result_size: height and width of the result, px, for checks before the work.
        skip_existing: leave out images whose output exists, even if it appears during the work.
        overwrite: replace outputs that exist.
        quality: of JPEG and WebP, 1 to 100.
    """
    for job in jobs:
        start = time.perf_counter()
        try:
            if job.problem:
                raise job.problem
            replaced = overwrite and not skip_existing
            _check_target(job, overwrite=replaced)
            size, left_out = _enlarge_file(job, enlarge, result_size, overwrite=replaced, quality=quality)
        except Exception as error:
            if skip_existing and isinstance(error, InputError) and error.code in _EXISTS:
                result = FileResult(job, "skipped")
            else:
                result = FileResult(job, "failed", _reason(job, error), seconds=time.perf_counter() - start)
        else:
            seconds = time.perf_counter() - start
            result = FileResult(job, "done", "", size[1], size[0], seconds, left_out)
        yield result


def _enlarge_file(
    job: FileJob,
    enlarge: Callable[[Picture], Picture],
    result_size: Callable[[Picture], Size],
    *,
    overwrite: bool,
    quality: int,
) -> tuple[Size, tuple[str, ...]]:
    """Enlarge the pictures of a file that its target holds; return height and width of the first, and what is lost."""
    frames = read_frames(job.source)
    whole = holds_all(job.target, frames)
    sizes: list[Size] = []

    def enlarged(frame: Frame) -> Frame:
        picture = frame.picture
        height, width = result_size(picture)
        check_writable(job.target, width, height)
        warning = size_warning((picture.height, picture.width), (height, width))
        if warning and not sizes:
            log.warning("%s: %s", job.source, warning)
        sizes.append((height, width))
        return replace(frame, picture=enlarge(picture))

    pictures = map(enlarged, frames.pictures)
    if whole and frames.count > 1:
        left_out = write_frames(job.target, replace(frames, pictures=pictures), overwrite=overwrite, quality=quality)
    else:
        left_out = write_image(job.target, next(pictures).picture, overwrite=overwrite, quality=quality)
        left_out += further_pictures(frames)
    return sizes[0], left_out


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


def _find(text: str, output: Path, *, recursive: bool) -> Iterator[FileJob]:
    """The images of one input, with their targets if `output` is a folder, and what cannot be looked at."""
    try:
        paths = _expand(text)
    except OSError as error:
        problem = InputError(
            one_line(f"{text}: cannot be looked at ({error.strerror}); choose another name, or change its permissions"),
            code="input.no-access",
        )
        yield FileJob(Path(text), output, problem)
        return
    except InputError as problem:
        yield FileJob(Path(text), output, problem)
        return
    for path in paths:
        if path.is_dir():
            yield from _find_in_folder(path, output, recursive=recursive)
        else:
            yield FileJob(path, output / path.name)


def _find_in_folder(folder: Path, output: Path, *, recursive: bool) -> list[FileJob]:
    problems: list[FileJob] = []

    def keep(inner: Path, error: InputError) -> None:
        problems.append(FileJob(inner, output / inner.relative_to(folder), error))

    images = find_images(folder, recursive, keep)
    results = Path(os.path.realpath(output))
    if folder.resolve() in results.parents:  # results of an earlier run
        images = [image for image in images if results not in Path(os.path.realpath(image)).parents]
    if not images and not problems:
        return [FileJob(folder, output, _no_images(folder))]
    return [FileJob(image, output / image.relative_to(folder)) for image in images] + problems


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.exists() or not glob.has_magic(text):
        if not path.exists():
            raise InputError(one_line(f"{text}: no such file or folder"), code="input.not-found")
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - absolute patterns too
    matches = [match for match in matches if match.is_dir() or is_image_name(match)]
    if not matches:
        raise _no_images(text)
    return matches


def _no_images(where: Path | str) -> InputError:
    return InputError(
        one_line(f"no image found in {where}; give image files or folders that hold some"), code="input.no-images"
    )


def _is_file(output: Path | str, found: Sequence[FileJob], *, named: bool) -> bool:
    """Whether `output` names a file.

    Args:
        output: as it was given.
        found: what is to be enlarged.
        named: whether the only input is a file.

    Raises:
        InputError: it is one, and cannot be one.
    """
    path = Path(output)
    if path.is_dir() or str(output).endswith(("/", os.sep)):
        return False
    if path.suffix and len(found) == 1 and (named or path.suffix.lower() in READABLE):
        return True
    if path.exists() or path.suffix.lower() in READABLE:
        raise InputError(
            f"{output}: one file cannot hold {len(found)} images; give a folder"
            if path.suffix.lower() in READABLE
            else f"{output}: is a file, and not an image; give a folder, or the name of an image",
            code="output.not-a-folder",
        )
    return False


def _with_suffix(path: Path, suffix: str | None) -> Path:
    if suffix is None:
        suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
    return path.with_suffix(suffix)


def _check_target(job: FileJob, *, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if os.path.lexists(job.target) and not overwrite:
        raise InputError(
            f"{job.target}: exists already; use --overwrite, --skip-existing or another output folder",
            code="output.exists",
        )
    if job.target.is_dir():
        raise InputError(f"{job.target}: is a folder; choose another output folder", code="image.is-folder")
    check_folder(job.target)


def _reason(job: FileJob, error: Exception) -> str:
    """Why a job failed, in one line that names the file."""
    if isinstance(error, InputError):
        text = str(error)
    elif is_out_of_memory(error):
        text = "not enough memory; ask for a smaller size, or cut the image into pieces"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        log.error("%s: unexpected error", job.source, exc_info=error)
        text = f"unexpected {type(error).__name__}: {error}"
    named = str(job.source) in text or str(job.target) in text
    return one_line(text if named else f"{job.source}: {text}")
