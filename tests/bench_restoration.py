"""Students that restore, beside classical methods and larger networks, on Kodak beside the checkout."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from skimage.restoration import denoise_nl_means, estimate_sigma

from imdn_kd import zoo
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.evaluation.benchmark import Upsampler, bicubic, open_upsamplers, plan_tasks, score
from tests.shared_data import SHARED

Image = npt.NDArray[np.uint8]

TEACHERS = ("DITN_Real_x4.pth", "DITN_Real_GAN_x4.pth", "realesr-general-x4v3.pth")


def non_local_means(strength: float, sigma: float | None) -> Upsampler:
    """scikit-image's, as its gallery sets it up: patches of 5 px, searched up to 6 px away, `h` = strength x sigma.

    Args:
        strength: .8 in the gallery, for the fast variant.
        sigma: of the noise, levels of 255; None: estimated for each image.
    """

    def restore(image: Image) -> Image:
        pixels = image.astype(np.float64) / 255
        level = float(np.mean(estimate_sigma(pixels, channel_axis=-1))) if sigma is None else sigma / 255
        restored = denoise_nl_means(
            *(pixels,), h=strength * level, sigma=level, fast_mode=True, patch_size=5, patch_distance=6, channel_axis=-1
        )
        return np.asarray(np.round(255 * np.clip(restored, 0, 1)), np.uint8)

    return Upsampler(f"non-local means, h {strength:g} sigma", 1, restore)


def block_matching(sigma: float | None) -> list[Upsampler]:
    """The BM3D of its authors where it is installed (`pip install bm3d`, for research only: nothing needs it)."""
    if sigma is None or find_spec("bm3d") is None:
        return []
    from bm3d import bm3d_rgb

    def restore(image: Image) -> Image:
        restored = bm3d_rgb(image / 255, sigma / 255)
        return np.asarray(np.round(255 * np.clip(restored, 0, 1)), np.uint8)

    return [Upsampler("BM3D", 1, restore)]


def restoration() -> None:
    """PSNR on Kodak; takes minutes; run it by name."""
    students = [student.name for student in zoo.students() if student.scale == 1]
    for text, sigma in (("noise=15", 15), ("noise=25", 25), ("noise=50", 50), ("jpeg=10", None), ("jpeg=20", None)):
        peers = [non_local_means(strength, sigma) for strength in ((0.6, 0.8) if sigma else (0.8, 1.5, 3))]
        source = DataSource(SHARED / "val" / "kodak24", steps=parse_steps(text))
        peers += block_matching(sigma)
        for task in plan_tasks([bicubic(1), *peers, *open_upsamplers(students)], [source]):
            print(f"{text:<10} {task.upsampler.name:<32} {score(task).psnr:.2f} dB")


def degraded() -> None:
    """PSNR and SSIM of x4 students and of teachers on inputs by Real-ESRGAN's degradation; takes minutes."""
    students = [student.name for student in zoo.students() if student.scale == 4 and student.name.startswith("plain_m")]
    teachers = [SHARED / "weights" / "teachers" / name for name in TEACHERS]
    for text in ("real_esrgan", "bicubic"):
        source = DataSource(SHARED / "val" / "kodak24", steps=parse_steps(text))
        for task in plan_tasks([bicubic(4), *open_upsamplers([*students, *teachers])], [source]):
            found = score(task)
            print(f"{text:<12} {task.upsampler.name:<24} {found.psnr:.2f} / {found.ssim:.4f}")
