"""How images are made comparable before PSNR and SSIM are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from imdn_kd.data.degradation.schema import Jpeg, Step
from imdn_kd.errors import InputError

Space = Literal["y", "y-rounded", "y-swapped", "y-pillow", "y-grey", "rgb", "grey"]
Window = Literal["gaussian11", "uniform7"]

_SPACES: dict[Space, str] = {
    "y": "Y (BT.601, 16-235, not rounded)",
    "y-rounded": "Y (BT.601, 16-235, rounded to whole levels)",
    "y-swapped": "Y (BT.601, 16-235, not rounded) with red and blue swapped",
    "y-pillow": "Y (Pillow's YCbCr, 0-255)",
    "y-grey": "Y (BT.601, 16-235, not rounded), of images with one channel their values (0-255)",
    "rgb": "RGB",
    "grey": "the levels of grey images",
}
_WINDOWS: dict[Window, str] = {
    "gaussian11": "SSIM window Gaussian 11x11 (sigma 1.5)",
    "uniform7": "SSIM window uniform 7x7",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What PSNR and SSIM are measured on; the defaults are those of published tables.

    Attributes:
        space: colour space that is measured. `y` is 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1], as
            MATLAB's `rgb2ycbcr` before rounding; a grey image counts as R = G = B, as in the
            tables of IMDN. The others are met elsewhere: `y-grey` in the tables of SRCNN, VDSR, SESR and ECBSR:
            images of one channel are measured as they are, which takes 20 log10(255 / 219) = 1.32 dB from each, .09 dB
            from the mean of Set14 (`bridge`).
        shave: pixels cut from each border before colours are converted; None for as many as the scale, and none at 1.
        ssim_window: the published 11x11 Gaussian with population covariance, or scikit-image's default, a 7x7 uniform
            window with sample covariance.

    Raises:
        InputError: `metrics.protocol`, a value that is not one of the above.
    """

    space: Space = "y"
    shave: int | None = None
    ssim_window: Window = "gaussian11"

    def __post_init__(self) -> None:
        if self.space not in _SPACES:
            raise InputError(f"space is {self.space!r}; choose one of {', '.join(_SPACES)}", code="metrics.protocol")
        if self.ssim_window not in _WINDOWS:
            raise InputError(
                f"ssim_window is {self.ssim_window!r}; choose one of {', '.join(_WINDOWS)}", code="metrics.protocol"
            )
        if self.shave is not None and self.shave < 0:
            raise InputError(
                f"shave is {self.shave}; give 0 or more pixels, or leave it out to cut as many as the scale",
                code="metrics.protocol",
            )

    def describe(self, scale: float | None = None) -> str:
        """One line to print beside the numbers; `scale` is that of all images, if they have the same."""
        border = "`scale`" if self.shave is None else str(self.shave)
        border = "0" if self.shave is None and scale == 1 else border
        grey = "" if self.space in ("rgb", "y-grey", "grey") else ", grey images as R = G = B"
        cut = f"{border} px cut from each border"
        return f"PSNR and SSIM on {_SPACES[self.space]}, {cut}, {_WINDOWS[self.ssim_window]}{grey}"

    def border(self, scale: float) -> int:
        """Pixels to cut from each border of an image that was enlarged by `scale`; a fraction is rounded up."""
        usual = 0 if scale == 1 else math.ceil(scale)
        return usual if self.shave is None else self.shave


def usual_protocol(scale: int, steps: Sequence[Step] = (), *, grey: bool = False) -> Protocol:
    """The protocol of published tables.

    Args:
        scale: above 1, that of super-resolution: Y. At scale 1, tables of denoising, deblurring and the like measure
            RGB, those of JPEG artefacts Y; neither cuts borders.
        steps: degradations that make the inputs, as far as they are known.
        grey: whether the images are grey, H x W.
    """
    if grey:
        return Protocol(space="grey")
    on_y = scale > 1 or any(isinstance(step, Jpeg) for step in steps)
    return Protocol(space="y" if on_y else "rgb")


PROTOCOLS = {
    "standard": Protocol(),
    "y-rounded": Protocol(space="y-rounded"),
    "no-shave": Protocol(shave=0),
    "y-swapped": Protocol(space="y-swapped"),
    "y-pillow": Protocol(space="y-pillow"),
    "y-grey": Protocol(space="y-grey"),
    "rgb": Protocol(space="rgb"),
    "ssim-7x7": Protocol(ssim_window="uniform7"),
}
"""The standard protocol, and the deviations that most often explain a difference from it, by name."""
