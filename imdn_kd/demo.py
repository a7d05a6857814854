"""A student made on the spot: trains for a minute or two and leaves a model file with a photograph to enlarge.

Run as `python -m imdn_kd.demo`. It uses the photographs inside scikit-image, so nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import skimage.data
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from imdn_kd.archs.network import SRNetwork
from imdn_kd.data.resize import imresize
from imdn_kd.evaluation.metrics import psnr
from imdn_kd.inference.imageio import Picture, write_image
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS

Pixels = npt.NDArray[np.uint8]

HONEST = "a student trained for {} steps on four photographs, without a teacher yet: a demonstration, no more"
BATCH, PATCH, PEAK_RATE, SEED = 8, 24, 8e-3, 0


def main(
    steps: Annotated[int, typer.Option(min=1, help="Updates of the weights.")] = 2000,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("experiments/demo"),
) -> None:
    """Train a small x2 student and compare it with bicubic on a photograph that it has not seen.

    Leaves `student.safetensors`, `photo_lq.png` (the photograph shrunk by two) and `HR/photo.png` (the original), so
    that `out` is a data set for `imdn-kd benchmark`.
    """
    photo, *photos = (_even(pixels) for pixels in _photographs())
    student = train(photos, steps)
    small = imresize(photo, 1 / 2)
    with torch.inference_mode():
        large = _pixels(student(_tensor(small)[None])[0])
    figures = {"bicubic": psnr(imresize(small, 2), photo, scale=2), "student": psnr(large, photo, scale=2)}

    write_image(out / "photo_lq.png", Picture(small), overwrite=True)
    write_image(out / "HR" / "photo.png", Picture(photo), overwrite=True)
    training = {"steps": steps, "data": "scikit-image photographs", "teacher": None, "psnr_y": figures}
    card = f"# Demo student\n\nThis is {HONEST.format(steps)}.\n"
    save_model(out / "student.safetensors", ModelFile(student, training=training, card=card))

    console = Console(soft_wrap=True)
    console.print(f"This is {HONEST.format(steps)}.", highlight=False)
    console.print("PSNR of the held-out photograph (Y, 2 px cut from each border), dB:", highlight=False)
    for name, figure in figures.items():
        console.print(f"  {name}  {figure:.2f}")
    console.print(f"Saved in {out}", highlight=False)


def train(photos: list[Pixels], steps: int) -> SRNetwork:
    """Train `imdn_rtc` x2 on patches of `photos` (H x W x 3 each, sides even) with L1; the same result every time."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    pairs = [(_tensor(imresize(photo, 1 / 2)), _tensor(photo)) for photo in photos]
    areas = np.array([photo.size for photo in photos], dtype=float)
    network: SRNetwork = ARCHS.build({"type": "imdn_rtc", "upscale": 2})
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps + 1, pct_start=0.1)
    for _ in track(range(steps), f"Training {network.spec['type']} x2", console=Console(stderr=True)):
        chosen = random.choice(len(pairs), BATCH, p=areas / areas.sum())
        batch = [_patch(*pairs[int(index)], random) for index in chosen]
        lr, hr = (torch.stack(images) for images in zip(*batch, strict=True))
        optimizer.zero_grad()
        torch.autograd.backward(F.l1_loss(network(lr), hr))
        optimizer.step()
        schedule.step()
    return network.eval()


def _photographs() -> list[Pixels]:
    """The colour photographs that come inside the package, the one to hold out first."""
    data: Any = skimage.data  # scikit-image is only partly typed
    left, *_ = data.stereo_motorcycle()
    return [data.coffee(), data.astronaut(), data.chelsea(), data.rocket(), left]


def _patch(lr: Tensor, hr: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut a random place out of both (C x H x W, C x 2H x 2W), turned the same way."""
    y, x = (random.integers(side - PATCH + 1) for side in lr.shape[1:])
    lr, hr = lr[:, y : y + PATCH, x : x + PATCH], hr[:, 2 * y : 2 * (y + PATCH), 2 * x : 2 * (x + PATCH)]
    flips = [axis for axis in (1, 2) if random.random() < 0.5]
    axes = (1, 2) if random.random() < 0.5 else (2, 1)
    return lr.flip(flips).permute(0, *axes), hr.flip(flips).permute(0, *axes)


def _even(pixels: Pixels) -> Pixels:
    return pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def _pixels(image: Tensor) -> Pixels:
    result: Pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)  # the patches are so small that on a busy machine threads mostly wait for each other
    typer.run(main)
