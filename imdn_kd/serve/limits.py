"""What a server refuses: uploads and pictures that are too large, and requests when too many wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from imdn_kd.errors import InputError
from imdn_kd.inference.sizes import Size


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        upload: bytes of an uploaded file.
        pixels: of all pictures of a file together (an animation has many), and of what is made of them.
        waiting: requests that wait while another one is worked on.
        keep: seconds after which uploads and results are removed.
    """

    upload: int = 64 * 2**20
    pixels: int = 200_000_000
    waiting: int = 20
    keep: int = 1800

    def check_bytes(self, name: str, count: int) -> None:
        """Refuse an upload that is too large; raises InputError."""
        if count > self.upload:
            raise InputError(
                f"{name}: has {count / 2**20:.1f} MiB, and this server takes {self.upload / 2**20:.4g} MiB at most; "
                "save it smaller",
                code="serve.too-many-bytes",
            )

    def check_picture(self, name: str, sizes: Sequence[Size]) -> None:
        """Refuse a file whose pictures, of these sizes, have too many pixels; raises InputError."""
        if sum(map(math.prod, sizes)) > self.pixels:
            raise self._too_large(f"{name}: has {_said(sizes)}", sizes, "shrink it, or cut it into pieces")

    def check_result(self, name: str, sizes: Sequence[Size], most: int) -> None:
        """Refuse results that are too large.

        Args:
            name: of the file, for the message.
            sizes: of the results.
            most: pixels of the largest picture on the way to one of them.

        Raises:
            InputError: `serve.too-many-pixels`.
        """
        if sum(map(math.prod, sizes)) > self.pixels:
            raise self._too_large(f"{name}: would become {_said(sizes)}", sizes, "ask for a smaller size")
        if most > self.pixels:
            raise InputError(
                f"{name}: the model would make {most / 1e6:.4g} MP on the way to the result, and this server makes "
                f"{self.pixels / 1e6:.4g} MP at most; ask for a smaller size, or take a model of a smaller scale",
                code="serve.too-many-pixels",
            )

    def _too_large(self, found: str, sizes: Sequence[Size], advice: str) -> InputError:
        total = sum(map(math.prod, sizes)) / 1e6
        return InputError(
            f"{found}, {total:.4g} MP, and this server takes {self.pixels / 1e6:.4g} MP at most; {advice}",
            code="serve.too-many-pixels",
        )


def _said(sizes: Sequence[Size]) -> str:
    height, width = max(sizes, key=math.prod)
    return f"{width}x{height} px" if len(sizes) == 1 else f"{len(sizes)} pictures of up to {width}x{height} px"
