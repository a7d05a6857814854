"""A student made on the spot: trains for a minute or two on prepared photographs and leaves a model file.

Run as `python -m imdn_kd.demo`, after `imdn-kd prepare sample sample_valid`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F  # noqa: N812

from imdn_kd.archs.network import SRNetwork
from imdn_kd.data.image_sets import find_set
from imdn_kd.data.patches import Patches, to_training
from imdn_kd.data.resize import imresize
from imdn_kd.data.store import StoreDataset
from imdn_kd.evaluation.metrics import psnr
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.registry import ARCHS

HONEST = "a student trained for {} steps on {} photographs, without a teacher yet: a demonstration, no more"
SCALE, BATCH, PATCH, PEAK_RATE, SEED = 2, 8, 48, 8e-3, 0


def main(
    steps: Annotated[int, typer.Option(min=1, help="Updates of the weights.")] = 2000,
    data: Annotated[Path, typer.Option(help="Packed store to train on.")] = Path("datasets/sample.store"),
    valid: Annotated[Path, typer.Option(help="Data set of photographs that are held out.")] = Path(
        "datasets/sample_valid"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the result, `student.safetensors`.")] = Path("experiments/demo"),
) -> None:
    """Train a small x2 student and compare it with bicubic on photographs that it has not seen."""
    images = StoreDataset(scale=SCALE, dataroot=data)
    student = train(images, steps)
    figures = score(student, valid)

    honest = HONEST.format(steps, len(images))
    training = {"steps": steps, "data": data.name, "teacher": None, "psnr_y": figures}
    card = f"# Demo student\n\nThis is {honest}.\n"
    save_model(out / "student.safetensors", ModelFile(student, training=training, card=card))

    console = Console(soft_wrap=True)
    console.print(f"This is {honest}.", highlight=False)
    console.print(f"Mean PSNR on {valid.name} (Y, 2 px cut from each border), dB:", highlight=False)
    for name, figure in figures.items():
        console.print(f"  {name}  {figure:.2f}")
    console.print(f"Saved in {out}", highlight=False)


def train(images: StoreDataset, steps: int) -> SRNetwork:
    """Train `imdn_rtc` on patches of `images` with L1; the same result every time."""
    torch.manual_seed(SEED)
    patches = Patches(images, gt_size=PATCH, batch_size=BATCH, seed=SEED, sampling="area", augment_on="worker")
    network: SRNetwork = ARCHS.build({"type": "imdn_rtc", "upscale": SCALE})
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps + 1, pct_start=0.1)
    console = Console(stderr=True)
    for batch in track(patches.loader(0, steps), f"Training {network.spec['type']} x2", total=steps, console=console):
        planes = to_training(batch, "cpu")
        optimizer.zero_grad()
        torch.autograd.backward(F.l1_loss(network(planes["lq"]), planes["gt"]))
        optimizer.step()
        schedule.step()
    return network.eval()


def score(student: SRNetwork, valid: Path) -> dict[str, float]:
    """Mean PSNR of bicubic and of the student, dB."""
    upscaler = Upscaler(student, device="cpu")
    found = find_set(valid, SCALE)
    totals = {"bicubic": 0.0, "student": 0.0}
    for pair in found.pairs:
        hr, lr = found.load(pair)
        totals["bicubic"] += psnr(imresize(lr, SCALE), hr, scale=SCALE)
        totals["student"] += psnr(upscaler(lr), hr, scale=SCALE)
    return {name: total / len(found.pairs) for name, total in totals.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)  # the patches are so small that on a busy machine threads mostly wait for each other
    typer.run(main)
