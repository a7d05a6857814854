"""Folders of photographs, several files at the same time, and videos: what `tests.bench` measures of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image

from imdn_kd.image.picture import Picture
from imdn_kd.image.resize import imresize
from imdn_kd.inference.batch import run_jobs
from imdn_kd.inference.file_jobs import plan_jobs
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.inference.video import upscale_video
from tests.shared_data import SHARED

COUNT = 60
STUDENTS = ("imdn_rtc_x2", "plain_m_x2")


def photographs() -> list[np.ndarray]:
    """Kodak's where they lie beside the checkout, otherwise those of scikit-image."""
    kodak = sorted((SHARED / "val" / "kodak24").glob("*.png"))
    if kodak:
        return [np.asarray(Image.open(path).convert("RGB")) for path in kodak]
    return [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]


def make_folder(folder: Path) -> None:
    """PNG and JPEG files of 200 to 768 px."""
    pictures, random = photographs(), np.random.default_rng(0)
    for number in range(COUNT):
        pixels = pictures[number % len(pictures)]
        sides = [int(side * random.uniform(0.4, 1)) for side in pixels.shape[:2]]
        suffix = ("png", "jpg")[number % 2]
        Image.fromarray(imresize(pixels, size=(sides[0], sides[1]))).save(folder / f"{number:03}.{suffix}", quality=92)


def folders(compare: Callable[..., float]) -> None:
    """A folder of photographs by as many workers as there are cores, against one; the files must be the same."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(workers)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "in"
        source.mkdir()
        make_folder(source)
        for name in STUDENTS:
            upscaler = Upscaler(name, device="cpu", engine="torch")

            def run(count: int, upscaler: Upscaler = upscaler) -> dict[str, bytes]:
                target = Path(temporary) / "out"
                shutil.rmtree(target, ignore_errors=True)
                for result in run_jobs(
                    plan_jobs([str(source)], target),
                    lambda picture, on_progress: upscaler(picture, on_progress=on_progress),
                    lambda size: (2 * size[0], 2 * size[1]),
                    workers=count,
                ):
                    assert result.status == "done", result.reason
                return {path.name: path.read_bytes() for path in target.iterdir()}

            assert run(1) == run(workers)
            title = f"folder of {COUNT} photographs, {name}: --jobs {workers} / --jobs 1"
            compare(title, partial(run, workers), partial(run, 1), 3)


def videos(compare: Callable[..., float]) -> None:
    """A clip of 640x360 px to 1280x720, against the network alone on its frames."""
    import av

    count, size = 48, (640, 360)
    first = imresize(photographs()[0], size=(400, 700))
    frames = [np.ascontiguousarray(first[k // 2 : k // 2 + size[1], k : k + size[0]]) for k in range(count)]
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "clip.mp4"
        with av.open(str(source), "w") as file:
            video: Any = file.add_stream("libx264", rate=25)
            video.width, video.height = size
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        for name in STUDENTS:
            upscaler = Upscaler(name, device="cpu", engine="torch")

            def run(upscaler: Upscaler = upscaler) -> None:
                upscale_video(
                    source,
                    Path(temporary) / "large.mp4",
                    lambda picture: replace(picture, pixels=upscaler(picture.pixels)),
                    lambda size: (2 * size[0], 2 * size[1]),
                    settings={},
                    workers=torch.get_num_threads(),
                    overwrite=True,
                )

            def alone(upscaler: Upscaler = upscaler) -> None:
                for pixels in frames:
                    upscaler(Picture(pixels))

            compare(f"{count} frames to 1280x720 as a video, {name} / the network alone", run, alone, 3)
