"""The part of `imdn-kd upscale` that is for videos."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from imdn_kd.cli.progress import FileProgress
from imdn_kd.cli.screen import complain, say
from imdn_kd.cli.upscale_report import told
from imdn_kd.errors import InputError

if TYPE_CHECKING:
    from imdn_kd.inference.sizes import Size
    from imdn_kd.inference.upscaler import Upscaler


def check_request(inputs: list[str], given: list[str]) -> None:
    """Refuse what does not go with a video; `given` are options that are for images only."""
    from imdn_kd.image.video import require_pyav

    if len(inputs) > 1:
        raise InputError("a video is upscaled by itself; give one input", code="cli.video")
    if given:
        raise InputError(f"{' and '.join(given)} cannot be given for a video", code="cli.video")
    require_pyav()


def upscale_file(
    source: Path,
    output: str,
    upscaler: Upscaler,
    result_size: Callable[[Size], Size],
    settings: dict[str, Any],
    *,
    jobs: int,
    skip_existing: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Upscale a video and say what became of it."""
    from imdn_kd.image.picture import Picture
    from imdn_kd.inference.batch import FileResult
    from imdn_kd.inference.file_jobs import FileJob
    from imdn_kd.inference.video import upscale_video, video_target

    target = video_target(source, output)
    done = FileResult(FileJob(source, target), "skipped")
    if not (skip_existing and target.exists()):

        def enlarge(picture: Picture) -> Picture:
            height, width = result_size((picture.height, picture.width))
            return upscaler(picture, size=(width, height))

        start = time.perf_counter()
        with FileProgress(quiet=quiet) as progress:
            progress.begin(source.name)
            try:
                result = upscale_video(
                    source,
                    target,
                    enlarge,
                    result_size,
                    settings=settings,
                    workers=jobs,
                    overwrite=overwrite and not skip_existing,
                    on_progress=progress.at,
                )
            except KeyboardInterrupt:
                complain("stopped; the same command goes on with the frames that are left")
                raise typer.Exit(130) from None
        done = FileResult(
            done.job,
            "done",
            given=result.given,
            size=result.size,
            frames=result.frames,
            seconds=time.perf_counter() - start,
            left_out=result.left_out,
        )
        if result.left_out:
            complain(f"{target}: does not hold {', '.join(result.left_out)}")
    if line := told(done, upscaler, as_json=as_json, quiet=quiet):
        say(line)
