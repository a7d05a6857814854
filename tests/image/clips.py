"""Small video files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (32, 24)
"""Width and height in px."""
TIME_BASE = Fraction(1, 90000)
UNEVEN = (0, 3600, 7200, 14400, 18000, 18180, 25200, 28800, 45000, 48600, 52200, 55800)
"""Time stamps of a variable frame rate."""
BT709, BT601 = (1, 1, 1, 1), (6, 1, 6, 6)
"""Matrix, range, primaries and transfer by H.273, range 1 limited and 2 full."""


def level(number: int) -> int:
    """The grey of a frame, which tells it from the others."""
    return 40 + 14 * number % 200


def make_clip(
    path: Path,
    times: Sequence[int] = UNEVEN,
    *,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    colours: tuple[int, int, int, int] = BT709,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: bool = False,
    options: dict[str, str] | None = None,
    flags: int = 0,
) -> Path:
    """Write a clip of flat frames, each of its own `level`, with a language and a title."""
    import av

    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=25)
        context: Any = video.codec_context
        context.width, context.height = size
        context.pix_fmt, context.time_base = pixel_format, TIME_BASE
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colours
        context.flags |= flags
        context.options = {"crf": "4"} if options is None else options
        if aspect:
            context.sample_aspect_ratio = video.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        file.metadata["title"] = "A clip"
        audio = file.add_stream("aac", rate=44100) if sound else None
        if audio:
            audio.metadata["language"] = "fra"
        for number, time in enumerate(times):
            grey = np.full((size[1], size[0], 3), level(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = time, TIME_BASE
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio:
            for number in range(20):
                wave = np.random.default_rng(number).random((2, 1024), np.float32) / 4
                samples = av.AudioFrame.from_ndarray(wave, "fltp", "stereo")
                samples.rate, samples.pts, samples.time_base = 44100, 1024 * number, Fraction(1, 44100)
                file.mux(audio.encode(samples))
            file.mux(audio.encode(None))
    return path
