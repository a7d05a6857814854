"""The work of one request: a picture file in, a picture file out, as `imdn-kd upscale` makes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from imdn_kd.errors import InputError
from imdn_kd.image.frames import picture_sizes
from imdn_kd.image.io import Picture
from imdn_kd.inference.batch import FileResult, Progress, run_jobs
from imdn_kd.inference.file_jobs import FileJob, plan_jobs
from imdn_kd.inference.sizes import Size, target_size
from imdn_kd.inference.upscaler import NetworkRun, Upscaler
from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import Models
from imdn_kd.serve.peak import PeakResident
from imdn_kd.serve.queue import STOPPED, stopped


@dataclass(frozen=True)
class UpscaleRequest:
    """What a visitor asks for; at most one of scale, size and fit (none: the scale of the model).

    Attributes:
        model: a name of `Models`; None for the default one.
        scale: any number from 1 up.
        size: (height, width) of the result, px.
        fit: (height, width) of the box that the result fits, px.
        format: suffix of the result without its dot; None for that of the picture.
    """

    model: str | None = None
    scale: float | None = None
    size: Size | None = None
    fit: Size | None = None
    format: str | None = None


@dataclass(frozen=True)
class UpscaleResult:
    """The file that a request led to, and what it took.

    Attributes:
        path: the file.
        given: height and width of the picture, px; of several, the first.
        size: those of the result.
        networks: what it went through.
        seconds: reading, enlarging and writing.
        memory: the most that the process took meanwhile, bytes.
        left_out: what of the picture the result does not hold, in words.
    """

    path: Path
    given: Size
    size: Size
    networks: list[NetworkRun]
    seconds: float
    memory: int
    left_out: tuple[str, ...]


class Task:
    """A request that was looked at and can be done.

    Args:
        source: the file.
        folder: where the result is written, as NAME_x2.png or NAME_640x480.png; no client is told its name.
        asked: what to make of it.
        models: what there is.
        limits: what is refused.

    Raises:
        InputError: of a file that is no picture, too large, or a request that cannot be fulfilled.
    """

    def __init__(self, source: Path, folder: Path, asked: UpscaleRequest, models: Models, limits: Limits) -> None:
        self._source, self._folder = source, folder
        name = asked.model or models.default
        self._upscaler: Upscaler = models.upscaler(name)
        unsaid = (asked.scale, asked.size, asked.fit) == (None, None, None)
        self._asked = replace(asked, scale=models.scales[name]) if unsaid else asked
        limits.check_bytes(source.name, source.stat().st_size)
        try:
            sizes = picture_sizes(source)
        except InputError as error:
            raise InputError(self._public(str(error)), code=error.code) from error
        limits.check_picture(source.name, sizes)
        results = [self._result_size(size) for size in sizes]
        most = max(self._upscaler.most_pixels(*pair) for pair in zip(sizes, results, strict=True))
        limits.check_result(source.name, results, most)
        self._count = len(sizes)
        suffix = None if asked.format is None else f".{asked.format.lower().lstrip('.')}"
        (job,) = plan_jobs([str(source)], folder, suffix=suffix)
        self._job = FileJob(source, job.target.with_name(f"{source.stem}_{self._label()}{job.target.suffix}"))

    def do(
        self,
        stop: threading.Event,
        on_progress: Progress = lambda _: None,
        on_first: Callable[[Picture, Picture], None] = lambda _, __: None,
    ) -> UpscaleResult:
        """Do it.

        Args:
            stop: ends the work soon after it is set.
            on_progress: called with the finished part, in (0, 1].
            on_first: called with the first picture and its result.

        Raises:
            InputError: `serve.stopped`, or why it cannot be done.
        """
        begun = 0

        def enlarge(picture: Picture, on_part: Progress) -> Picture:
            nonlocal begun
            number, begun = begun, begun + 1

            def tell(part: float) -> None:
                if stop.is_set():
                    raise stopped()
                on_progress((number + part) / self._count)

            height, width = self._result_size((picture.height, picture.width))
            tell(0)
            large = self._upscaler(picture, size=(width, height), on_progress=tell)
            if number == 0:
                on_first(picture, large)
            return large

        with PeakResident() as peak:
            (done,) = run_jobs([self._job], enlarge, self._result_size, prepare=self._upscaler.networks)
        if done.status != "done":
            raise self._error(done)
        networks = self._upscaler.networks(done.given, done.size)
        return UpscaleResult(done.job.target, done.given, done.size, networks, done.seconds, peak.bytes, done.left_out)

    def _result_size(self, given: Size) -> Size:
        return target_size(given, scale=self._asked.scale, size=self._asked.size, fit=self._asked.fit)

    def _label(self) -> str:
        """Of the result: `x4`, or the size that was asked for."""
        if self._asked.scale is not None:
            return f"x{self._asked.scale:g}"
        height, width = self._asked.size or self._asked.fit or (0, 0)
        return f"{width}x{height}"

    def _error(self, done: FileResult) -> InputError:
        if done.code == STOPPED:
            return stopped()
        if done.code == "unexpected":
            return InputError(f"{self._source.name}: unexpected error; the log of the server has it", code=done.code)
        return InputError(self._public(done.reason), code=done.code)

    def _public(self, text: str) -> str:
        """A message with names of files where the paths of this machine were."""
        for folder in (self._source.parent, self._folder):
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "the server")
        return text
