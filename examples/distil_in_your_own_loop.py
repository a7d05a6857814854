"""Distil a student in a training loop of your own: CPU, seconds, on photographs that scikit-image brings along.

    python examples/distil_in_your_own_loop.py

Any `nn.Module` that upscales images can be the student or the teacher; here the teacher is a student of the zoo.
"""

from collections.abc import Iterator

import numpy as np
import skimage.data
import torch
from torch import Tensor

from imdn_kd import Distiller, FeatureTerm, ModelFile, OutputTerm, Teacher, create_model, imresize, losses, save_model

ITERATIONS, BATCH, SIDE, SCALE = 20, 4, 32, 2


def patches() -> Iterator[tuple[Tensor, Tensor]]:
    """LR and HR patches of two photographs, N x 3 x H x W in [0, 1]."""
    photographs = [skimage.data.astronaut(), skimage.data.coffee()]
    draw = np.random.default_rng(0)
    while True:
        hr = []
        for _ in range(BATCH):
            photograph = photographs[draw.integers(len(photographs))]
            top, left = draw.integers(np.array(photograph.shape[:2]) - SIDE * SCALE)
            hr.append(photograph[top : top + SIDE * SCALE, left : left + SIDE * SCALE])
        lr = [imresize(patch, 1 / SCALE) for patch in hr]
        lq, gt = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 for images in (lr, hr))
        yield lq, gt


def main() -> None:
    """Train for a few iterations, print the losses and save the student."""
    torch.manual_seed(0)
    student, teacher = create_model("plain_t_x2"), Teacher("imdn_rtc_x2")
    kd = Distiller(
        student,
        teacher,
        [
            OutputTerm(losses.L1Loss(), target="gt"),
            OutputTerm(losses.L1Loss(), target="teacher", weight=0.5),
            FeatureTerm(losses.MimicLoss(), at=["body_out"], weight=0.1),
        ],
    )
    optimizer = torch.optim.Adam(kd.parameters(), lr=1e-3)  # student and adapters, never the teacher
    for iteration, (lq, gt) in enumerate(patches(), 1):
        named = kd(lq, gt)
        optimizer.zero_grad()
        sum(named.values()).backward()
        optimizer.step()
        print(f"{iteration:3d}", *(f"{name} {loss.item():.4f}" for name, loss in named.items()))
        if iteration == ITERATIONS:
            break
    save_model("student.safetensors", ModelFile(student.eval()))
    print("saved; try: imdn-kd upscale photo.jpg -o large.png --model student.safetensors")


if __name__ == "__main__":
    main()
