"""PSNR beside time: students that ship, official IMDNs, and larger networks where their weights are at hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from imdn_kd import Upscaler, zoo
from imdn_kd.evaluation.benchmark import Upsampler, bicubic, open_upsamplers, plan_tasks, score
from tests.bench_engines import processor
from tests.official import FILES, FOLDER
from tests.shared_data import SHARED

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "psnr_time.png"
SCALES = (2, 3, 4)
ROUNDS = 5
LARGER = {"DCTLSA": "DCTLSA_x{}.pt"}
PART = 4
"""Their time is that of a picture with sides so many times smaller, times its square: a whole one takes minutes."""
TIME_LIMIT = 5.0
"""Seconds of measured runs after which a network has no more rounds."""


@dataclass(frozen=True)
class Measurement:
    """PSNR and time of a network.

    Attributes:
        kind: `student`, `official` or `larger`.
        name: of the network, without its scale.
        scale: of the network.
        psnr: on Set5, dB.
        seconds: for a result of 1280x720 px.
    """

    kind: str
    name: str
    scale: int
    psnr: float
    seconds: float


def psnr_time() -> None:
    """Print and draw PSNR on Set5 and the time for a result of 1280x720, one thread, `--engine auto`."""
    print(f"{processor()}; one thread, medians of up to {ROUNDS} runs, --engine auto, uint8 to uint8")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    measured = []
    try:
        for kind, name, scale, model in _networks():
            if not Path(model).is_file() and kind != "student":
                continue
            part = PART if kind == "larger" else 1
            seconds = part**2 * _seconds(model, 720 // scale // part, 1280 // scale // part)
            place = Measurement(kind, name, scale, _psnr(open_upsamplers([model])[0]), seconds)
            print(f"x{scale} {name:<12} {place.psnr:.3f} dB   {place.seconds * 1000:9.1f} ms", flush=True)
            measured.append(place)
    finally:
        torch.set_num_threads(before)
    _draw(measured, {scale: _psnr(bicubic(scale)) for scale in SCALES})


def _networks() -> Iterator[tuple[str, str, int, str]]:
    for scale in SCALES:
        for student in zoo.students():
            if student.scale == scale and not student.restores:
                yield "student", student.name.rpartition("_")[0], scale, student.name
        official = {"IMDN": f"IMDN_x{scale}", **({"IMDN_RTC": "IMDN_RTC"} if scale == 2 else {})}
        for name, key in official.items():
            yield "official", name, scale, str(FOLDER / FILES[key])
        for name, file in LARGER.items():
            yield "larger", name, scale, str(SHARED / "weights" / "teachers" / file.format(scale))


def _psnr(upsampler: Upsampler) -> float:
    (task,) = plan_tasks([upsampler], [SHARED / "benchmark" / "Set5"])
    return score(task).psnr


def _seconds(model: str, height: int, width: int) -> float:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    upscaler = Upscaler(model, device="cpu")
    times: list[float] = []
    for number in range(ROUNDS + 2):
        start = time.perf_counter()
        upscaler(image)
        if number >= 2:  # engines are chosen first, and prepare a size when it comes again
            times.append(time.perf_counter() - start)
        if sum(times) > TIME_LIMIT:
            break
    return statistics.median(times)


def _draw(measured: list[Measurement], of_bicubic: dict[int, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), dpi=100, layout="constrained")
    colours = {"student": "tab:red", "official": "tab:blue", "larger": "tab:gray"}
    # Beside its point: the leftmost name on the left, the next one below, the others on the right.
    sides = ({"xytext": (-7, -3), "ha": "right"}, {"xytext": (5, -12), "ha": "left"}, {"xytext": (7, -3), "ha": "left"})
    for axes, scale in zip(figure.subplots(1, len(SCALES)), SCALES, strict=True):
        here = sorted((each for each in measured if each.scale == scale), key=lambda each: each.seconds)
        for number, each in enumerate(here):
            place = each.seconds * 1000, each.psnr
            axes.plot(*place, "o", color=colours[each.kind])
            axes.annotate(each.name, place, textcoords="offset points", fontsize=9, **sides[min(number, 2)])
        axes.set_xscale("log")
        axes.margins(x=0.35, y=0.2)
        axes.set_title(f"x{scale} (bicubic: {of_bicubic[scale]:.2f} dB)")
        axes.set_xlabel("ms for 1280x720, one thread")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("PSNR on Set5, dB")
    figure.savefig(PICTURE)
    print(f"wrote {PICTURE}")
