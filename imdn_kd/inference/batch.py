"""Upscaling many image files, several at the same time, without stopping at a bad one."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import torch

from imdn_kd.errors import InputError
from imdn_kd.image.frame_writer import further_pictures, holds_all, write_frames
from imdn_kd.image.frames import Frame, read_frames
from imdn_kd.image.io import Picture, check_writable, write_image
from imdn_kd.image.probe import stated_size
from imdn_kd.inference.file_jobs import FileJob
from imdn_kd.inference.memory import is_out_of_memory
from imdn_kd.inference.side_by_side import Room, threads_of
from imdn_kd.inference.sizes import Size, size_warning
from imdn_kd.utils.files import check_folder
from imdn_kd.utils.text import one_line

log = logging.getLogger("imdn_kd")

Status = Literal["done", "skipped", "failed"]
Progress = Callable[[float], None]

_EXISTS = ("output.exists", "image.exists")

_AHEAD = 4
"""Files begun and not told of, for each worker: those that come after a large one need not wait for it."""

_MOST_PIXELS = 2**27
"""Of the results that are worked on at the same time, unless one alone has more."""


@dataclass(frozen=True)
class FileResult:
    """What became of a picture, or a video.

    Attributes:
        job: what was to be done.
        status: `done`, `skipped` (the target exists) or `failed`.
        reason: why it failed, one line; otherwise empty.
        code: that of the error, as in `InputError`; empty where it did not fail.
        given: height and width of the image in px, 0 if there is no result.
        size: height and width of the result in px, 0 if there is none.
        seconds: reading, enlarging and writing.
        left_out: what of the source the target does not hold, in words.
        frames: of a video; 0 for a picture.
    """

    job: FileJob
    status: Status
    reason: str = ""
    given: Size = (0, 0)
    size: Size = (0, 0)
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()
    frames: int = 0
    code: str = ""

    @property
    def pixels(self) -> int:
        """Of the result; those of all frames of a video."""
        return math.prod(self.size) * (self.frames or 1)


def run_jobs(
    jobs: Sequence[FileJob],
    enlarge: Callable[[Picture, Progress], Picture],
    result_size: Callable[[Size], Size],
    *,
    workers: int = 1,
    skip_existing: bool = False,
    overwrite: bool = False,
    quality: int = 95,
    prepare: Callable[[Size, Size], object] = lambda _, __: None,
    on_begin: Callable[[FileJob], None] = lambda _: None,
    on_progress: Progress = lambda _: None,
) -> Iterator[FileResult]:
    """Do the jobs and yield what became of each, in order; whatever goes wrong with one of them ends only that one.

    With several workers, files are read, enlarged and written side by side, to the same bytes. Stopped by Ctrl-C, the
    results of files that are finished come out before the KeyboardInterrupt.

    Args:
        jobs: from `plan_jobs`.
        enlarge: makes the result, and says how much of it is done, in (0, 1]; called by several threads.
        result_size: height and width of the result for those of a picture, px, for checks before the work.
        workers: how many files are worked on at the same time; fewer, if their results are large.
        skip_existing: leave out images whose output exists, even if it appears during the work.
        overwrite: replace outputs that exist.
        quality: of JPEG and WebP, 1 to 100.
        prepare: does what need not count as time of a file, such as choosing an engine; called with the height and
            width of a picture and of its result, px, before the picture is read.
        on_begin: called when a file is begun.
        on_progress: called with how much is done of the files whose results have not come out, in files.
    """
    run = _Run(
        jobs,
        enlarge,
        result_size,
        skip_existing,
        overwrite and not skip_existing,
        quality,
        prepare,
        on_begin,
        on_progress,
    )
    workers = min(workers, len(jobs))
    numbers = range(len(jobs))
    for result in map(run.do, numbers) if workers < 2 else _side_by_side(run, numbers, workers):
        run.forget(result.job)
        yield result


def _side_by_side(run: _Run, numbers: range, workers: int) -> Iterator[FileResult]:
    pool, waiting = ThreadPoolExecutor(workers, "upscale"), deque[Future[FileResult]]()
    try:
        for number in numbers:
            waiting.append(pool.submit(run.do, number))
            while len(waiting) == _AHEAD * workers or (waiting and number == numbers[-1]):
                result = waiting[0].result()  # which stays in the queue while it is waited for
                waiting.popleft()
                yield result
    except KeyboardInterrupt:
        run.stopped.set()
        pool.shutdown(cancel_futures=True)
        yield from (done.result() for done in waiting if not done.cancelled() and not done.exception())
        raise
    finally:
        run.stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(run.threads)


class _Run:
    """One call of `run_jobs`, whose arguments these are; its methods may be called by several threads."""

    def __init__(
        self,
        jobs: Sequence[FileJob],
        enlarge: Callable[[Picture, Progress], Picture],
        result_size: Callable[[Size], Size],
        skip_existing: bool,
        overwrite: bool,
        quality: int,
        prepare: Callable[[Size, Size], object],
        on_begin: Callable[[FileJob], None],
        on_progress: Progress,
    ) -> None:
        self.jobs, self.threads, self.stopped = jobs, torch.get_num_threads(), threading.Event()
        self._enlarge, self._result_size, self._on_progress = enlarge, result_size, on_progress
        self._skip_existing, self._overwrite, self._quality = skip_existing, overwrite, quality
        self._prepare, self._on_begin = prepare, on_begin
        self._pixels, self._lock = Room(), threading.Lock()
        self._parts: dict[FileJob, float] = {}

    def do(self, number: int) -> FileResult:
        """Do one job."""
        job, start = self.jobs[number], time.perf_counter()
        try:
            if job.problem:
                raise job.problem
            _check_target(job, overwrite=self._overwrite)
            with self._pixels.take(self._size_of(job) / _MOST_PIXELS), threads_of(self.threads, self._pixels.users):
                self._check_stopped()
                self._on_begin(job)
                if size := stated_size(job.source):
                    self._prepare(size, self._result_size(size))
                start = time.perf_counter()
                given, size, left_out = self._enlarge_file(job)
        except Exception as error:
            if self._skip_existing and isinstance(error, InputError) and error.code in _EXISTS:
                return FileResult(job, "skipped")
            reason, code = _reason(job, error)
            return FileResult(job, "failed", reason, seconds=time.perf_counter() - start, code=code)
        return FileResult(job, "done", "", given, size, time.perf_counter() - start, left_out)

    def forget(self, job: FileJob) -> None:
        """Leave a job, whose result has come out, out of the progress."""
        with self._lock:
            self._parts.pop(job, None)

    def _size_of(self, job: FileJob) -> float:
        """Pixels of the result, or of the image where it is larger; no number is too high where nothing is known."""
        size = stated_size(job.source)
        return math.prod(max(size, self._result_size(size), key=math.prod)) if size else math.inf

    def _enlarge_file(self, job: FileJob) -> tuple[Size, Size, tuple[str, ...]]:
        """Enlarge the pictures of a file that its target holds; return sizes of the first, then what is lost."""
        frames = read_frames(job.source)
        whole = holds_all(job.target, frames)
        sizes: list[tuple[Size, Size]] = []

        def on_progress(part: float) -> None:
            self._check_stopped()
            with self._lock:
                self._parts[job] = part
                done = sum(self._parts.values())
            self._on_progress(done)

        def enlarged(frame: Frame) -> Frame:
            self._check_stopped()
            given = frame.picture.height, frame.picture.width
            height, width = self._result_size(given)
            check_writable(job.target, width, height)
            warning = size_warning(given, (height, width))
            if warning and not sizes:
                log.warning("%s: %s", job.source, warning)
            sizes.append((given, (height, width)))
            large = self._enlarge(frame.picture, on_progress)
            self._check_stopped()
            return replace(frame, picture=large)

        pictures = map(enlarged, frames.pictures)
        overwrite, quality = self._overwrite, self._quality
        if whole and frames.count > 1:
            frames = replace(frames, pictures=pictures)
            left_out = write_frames(job.target, frames, overwrite=overwrite, quality=quality)
        else:
            left_out = write_image(job.target, next(pictures).picture, overwrite=overwrite, quality=quality)
            left_out += further_pictures(frames)
        return *sizes[0], left_out

    def _check_stopped(self) -> None:
        if self.stopped.is_set():
            raise KeyboardInterrupt


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


def _reason(job: FileJob, error: Exception) -> tuple[str, str]:
    """Why a job failed, in one line that names the file, and the code of it."""
    if isinstance(error, InputError):
        text, code = str(error), error.code
    elif is_out_of_memory(error):
        text = "not enough memory; ask for a smaller size, or cut the image into pieces"
        code = "inference.out-of-memory"
    elif isinstance(error, OSError) and error.strerror:
        text, code = error.strerror, "file.cannot-write"
    else:
        log.error("%s: unexpected error", job.source, exc_info=error)
        text, code = f"unexpected {type(error).__name__}: {error}", "unexpected"
    named = str(job.source) in text or str(job.target) in text
    return one_line(text if named else f"{job.source}: {text}"), code
