"""Draw the pictures of the documentation from what the package ships: `python docs/draw.py`, half a minute."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from imdn_kd import Teacher, Upscaler, imresize, load_model
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.degradation.steps import degrade
from imdn_kd.evaluation.feature_drawings import draw_features

FOLDER = Path(__file__).parent
Pixels = npt.NDArray[np.uint8]

SIDE, HEAD, GAP = 160, 18, 4
"""Of a picture in a grid, of the line above it and between two, px."""


def grid(rows: Sequence[Sequence[tuple[str, Pixels]]]) -> Image.Image:
    """Pictures with a line above each, in rows."""
    width = max(map(len, rows)) * (SIDE + GAP) - GAP
    page = Image.new("RGB", (width, len(rows) * (SIDE + HEAD + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for y, row in enumerate(rows):
        for x, (line, pixels) in enumerate(row):
            left, top = x * (SIDE + GAP), y * (SIDE + HEAD + GAP)
            pen.text((left, top + 2), line, fill="black", font=font)
            image = Image.fromarray(pixels).convert("RGB")
            page.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top + HEAD))
    return page


def zoo() -> Image.Image:
    """The students beside bicubic and the original, for each scale."""
    top, left, side = 24, 176, 80
    hr = np.ascontiguousarray(skimage.data.astronaut()[: 512 // 12 * 12, : 512 // 12 * 12])
    rows = []
    for scale in (2, 3, 4):
        lr = imresize(hr, 1 / scale)
        pictures = {f"bicubic x{scale}": imresize(lr, scale)}
        pictures |= {name: Upscaler(name)(lr) for name in (f"imdn_rtc_x{scale}", f"plain_m_x{scale}")}
        pictures["original"] = hr
        rows.append([(name, each[top : top + side, left : left + side]) for name, each in pictures.items()])
    return grid(rows)


def methods() -> Image.Image:
    """What the losses compare: outputs and features of a student and of a teacher."""
    top, left, side = 24, 176, 80
    hr = np.ascontiguousarray(skimage.data.astronaut()[top : top + side, left : left + side])
    lr = imresize(hr, 1 / 2)
    networks = {"student": "imdn_rtc_x2", "teacher": "plain_m_x2"}
    models = {role: load_model(name).network for role, name in networks.items()}
    drawings = draw_features(models["student"], [Teacher(models["teacher"])], lr)
    rows = []
    for role, name in networks.items():
        sr = Upscaler(name)(lr)
        error = np.abs(sr.astype(float) - hr).mean(2)
        row = [(f"{role}: output", sr), ("its error, x 6", np.clip(6 * error, 0, 255).astype(np.uint8))]
        kinds = {"mean": "mean of features", "energy": "attention map", "cosine": "similarity to the middle"}
        kinds["affinity"] = "affinity graph"
        shown = {each.kind: each.pixels for each in drawings if (each.feature, each.network) == ("body_out", role)}
        rows.append(row + [(line, shown[kind]) for kind, line in kinds.items()])
    return grid(rows)


def restoration() -> Image.Image:
    """Degraded photographs as students for clean ones leave them, and as the students for them do."""
    top, left, side = 100, 352, 160
    hr = np.ascontiguousarray(skimage.data.astronaut())
    small = imresize(hr, 1 / 2)
    noisy, blocky, small_blocky = (
        degrade(image, Fraction(1), parse_steps(steps), "astronaut")
        for image, steps in ((hr, "noise=25"), (hr, "jpeg=20"), (small, "jpeg=20"))
    )
    poor = degrade(hr, Fraction(4), parse_steps("real_esrgan"), "astronaut")
    rows = [
        [("original", hr), ("noise, sigma 25", noisy), ("plain_m_denoise", Upscaler("plain_m_denoise")(noisy))],
        [("original", hr), ("JPEG, quality 20", blocky), ("plain_m_jpeg", Upscaler("plain_m_jpeg")(blocky))],
        [
            ("original", hr),
            ("JPEG, plain_m_x2", Upscaler("plain_m_x2")(small_blocky)),
            ("plain_m_jpeg, plain_m_x2", Upscaler("plain_m_x2")(Upscaler("plain_m_jpeg")(small_blocky))),
        ],
        [
            ("original", hr),
            ("degraded, plain_m_x4", Upscaler("plain_m_x4")(poor)),
            ("plain_m_degraded_x4", Upscaler("plain_m_degraded_x4")(poor)),
        ],
    ]
    return grid([[(line, each[top : top + side, left : left + side]) for line, each in row] for row in rows])


if __name__ == "__main__":
    for name, draw in {"zoo": zoo, "methods": methods, "restoration": restoration}.items():
        draw().save(FOLDER / f"{name}.png", optimize=True)
