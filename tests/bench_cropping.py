"""Ways to crop compared on photographs: PSNR, time and memory. Needs weights and Kodak's photographs."""

from __future__ import annotations

import time
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from imdn_kd.evaluation.metrics import psnr
from imdn_kd.image.resize import imresize
from imdn_kd.inference.cropping import AdaptiveCropping
from imdn_kd.inference.memory import PeakMemory
from tests.official import official
from tests.shared_data import SHARED, read_rgb

SCALE = 2
PHOTOGRAPHS = (3, 8, 19)
MODES = (("whole", None), ("paper", None), *((mode, side) for side in (32, 64, 128) for mode in ("local", "exact")))


def cropping() -> None:
    """Official IMDN x2 on three photographs shrunk to half their size, 384x256 px."""
    model = official("IMDN_x2").network.to(memory_format=torch.channels_last)
    photos = [read_rgb(SHARED / "val" / "kodak24" / f"kodim{number:02}.png") for number in PHOTOGRAPHS]
    whole: list[Tensor] = []
    first = 0.0
    print("crops            PSNR to HR   largest difference   step at seams   time   memory of tensors")
    for mode, side in MODES:
        network = AdaptiveCropping(model, mode=mode, crop_size=side)  # type: ignore[arg-type]
        scores, differences, steps, peaks, seconds = [], [], [], [], 0.0
        for number, photo in enumerate(photos):
            lr = torch.from_numpy(imresize(photo, 1 / SCALE) / np.float32(255)).permute(2, 0, 1)[None]
            start = time.perf_counter()
            sr = network(lr)
            seconds += time.perf_counter() - start
            with PeakMemory() as peak:
                network(lr)
            peaks.append(peak.peak)
            if mode == "whole":
                whole.append(sr)
            error = 255 * (sr - whole[number])
            differences.append(float(error.abs().max()))
            inside = range(SCALE * (side or lr.shape[3] // 2), sr.shape[3], SCALE * (side or lr.shape[3]))
            steps.append(max(float((error[..., x] - error[..., x - 1]).abs().max()) for x in inside))
            pixels = (255 * sr[0].permute(1, 2, 0)).clamp(0, 255).round().byte().numpy()
            scores.append(psnr(pixels, photo, SCALE))
        first = first or seconds
        print(
            f"{mode:<6}{side or '':>6}     {fmean(scores):10.3f}   {max(differences):18.4f}   {max(steps):13.4f}   "
            f"{seconds / first:4.2f}   {max(peaks) / 2**20:6.1f} MiB"
        )
