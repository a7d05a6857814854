"""Upscaling a video: several frames at the same time, in parts that are kept, so that a stopped run goes on there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

from imdn_kd import __version__
from imdn_kd.errors import InputError
from imdn_kd.image import video
from imdn_kd.image.picture import Picture
from imdn_kd.inference.side_by_side import threads_of
from imdn_kd.inference.sizes import Size
from imdn_kd.utils.files import atomic_path, check_folder
from imdn_kd.utils.threads import in_order

PART = 48
"""Frames of a part; a run that is killed repeats at most these."""


@dataclass(frozen=True)
class VideoResult:
    """What became of a video.

    Attributes:
        frames: of the result.
        given: height and width of the source, px.
        size: height and width of the result, px.
        left_out: what of the source the result does not hold, in words.
    """

    frames: int
    given: Size
    size: Size
    left_out: tuple[str, ...]


def video_target(source: Path, output: str) -> Path:
    """The file to write: `output`, or in the folder `output` one of the same name.

    Raises:
        InputError: `image.unwritable-format` or `output.is-input`.
    """
    target = Path(output)
    if target.is_dir() or output.endswith(("/", os.sep)) or not target.suffix:
        suffix = source.suffix if source.suffix.lower() in video.WRITABLE_VIDEOS else ".mkv"
        target = target / (source.stem + suffix)
    if target.suffix.lower() not in video.WRITABLE_VIDEOS:
        kinds = ", ".join(sorted(video.WRITABLE_VIDEOS))
        raise InputError(f"{target}: videos are written as {kinds}; change its suffix", code="image.unwritable-format")
    if os.path.realpath(target) == os.path.realpath(source):
        raise InputError(f"{target}: the output would replace the input; choose another", code="output.is-input")
    return target


def upscale_video(
    source: Path,
    target: Path,
    enlarge: Callable[[Picture], Picture],
    result_size: Callable[[Size], Size],
    *,
    settings: dict[str, Any],
    workers: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoResult:
    """Upscale the frames of a video; sound, subtitles, timing, colours, aspect and rotation are kept.

    Frames that are done are kept in a folder beside `target` until all are; the same call goes on there.

    Args:
        source: the video.
        target: the file to write, in full or not at all.
        enlarge: makes the result of a frame; called by several threads.
        result_size: height and width of the result for those of the frames, px.
        settings: of `enlarge`, as JSON can hold them: frames of others are not used.
        workers: frames worked on at the same time.
        overwrite: replace a target that exists.
        on_progress: called with the frames that are done, and all of them if that is known.

    Raises:
        InputError: `output.exists`; `video.in-use`, another run works on `target`; as `imdn_kd.image.video`,
            `enlarge` and `atomic_path`.
    """
    video.require_pyav()
    if os.path.lexists(target) and not overwrite:
        raise InputError(
            f"{target}: exists already; use --overwrite, --skip-existing or another output", code="output.exists"
        )
    info = video.read_info(source)
    height, width = result_size((info.height, info.width))
    video.check_size(info, width, height)
    check_folder(target)
    with video.naming_errors(target), _Parts(target, source, [width, height, settings]).opened() as parts:
        done = sum(map(video.part_length, parts.files()))
        on_progress(done, info.count)
        frames = _enlarged(video.decode_video(source, info, skip=done), info, enlarge, workers)
        while True:
            with parts.new() as path:
                written = video.encode_part(path, islice(frames, PART), info, (width, height))
            if not written:
                break
            done += written
            on_progress(done, info.count)
        with atomic_path(target, overwrite=overwrite) as path:
            left_out = video.join_parts(path, parts.files(), source, info, (width, height))
        parts.remove()
    return VideoResult(done, (info.height, info.width), (height, width), left_out)


def _enlarged(
    frames: Iterator[tuple[video.Moment, Any]],
    info: video.VideoInfo,
    enlarge: Callable[[Picture], Picture],
    workers: int,
) -> Iterator[tuple[video.Moment, Any]]:
    total = torch.get_num_threads()

    def one(frame: tuple[video.Moment, Any]) -> tuple[video.Moment, Any]:
        with threads_of(total, workers):
            large = enlarge(Picture(video.to_rgb(frame[1], info)))
        return frame[0], video.from_rgb(np.asarray(large.pixels, np.uint8), info)

    if workers == 1:
        yield from map(one, frames)
        return
    try:
        yield from in_order(one, frames, workers=workers, ahead=2 * workers, name="frames")
    finally:
        torch.set_num_threads(total)


class _Parts:
    """The folder of the parts that are done; of another source or with other settings it begins anew."""

    def __init__(self, target: Path, source: Path, settings: list[Any]) -> None:
        status = source.stat()
        self._target, self._folder = target, target.with_name(f".{target.name}.frames")
        self._job = [__version__, str(source.resolve()), status.st_size, status.st_mtime_ns, PART, settings]

    @contextmanager
    def opened(self) -> Iterator[_Parts]:
        """Make the folder, for one process at a time, or find what an earlier run left in it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self._folder / "lock", timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise InputError(
                f"{self._target}: another process is making it; wait for that", code="video.in-use"
            ) from error
        except OSError as error:
            raise InputError(
                f"{self._target}: cannot write there ({error.strerror}); choose another output folder",
                code="file.cannot-write",
            ) from error
        try:
            note, job = self._folder / "job.json", json.dumps(self._job)
            if not note.exists() or note.read_text(encoding="utf-8") != job:
                note.unlink(missing_ok=True)
                for path in self._folder.glob("*.npz"):
                    path.unlink()
                with atomic_path(note) as path:
                    path.write_text(job, encoding="utf-8")
            yield self
        finally:
            lock.release()
            if not self.files():
                self.remove()

    def files(self) -> list[Path]:
        """The parts that are done, in order."""
        paths = (self._folder / f"{number:06}.npz" for number in count())
        found: list[Path] = []
        for path in paths:
            if not path.exists():
                return found
            found.append(path)
        return found

    @contextmanager
    def new(self) -> Iterator[Path]:
        """Yield a path to write the next part to; nothing comes of it if nothing is written."""
        path = self._folder / "part"
        try:
            yield path
            if path.exists():
                path.replace(self._folder / f"{len(self.files()):06}.npz")
        except OSError as error:
            raise InputError(
                f"{self._target}: cannot write it ({error.strerror or error})", code="file.cannot-write"
            ) from error
        finally:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
