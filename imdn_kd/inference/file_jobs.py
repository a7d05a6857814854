"""Which image files to upscale, and to which files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imdn_kd.errors import InputError, join_errors
from imdn_kd.image.io import READABLE, WRITABLE, find_images, is_image_name
from imdn_kd.utils.text import one_line


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
