"""Pictures inside HTML pages, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image


def picture_tag(pixels: npt.NDArray[np.uint8], name: str) -> str:
    """An `img` with a picture in it, lossless.

    Args:
        pixels: H x W x 3, RGB, or H x W, grey.
        name: text in its place.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = pixels.shape[:2]
    return f'<img width="{width}" height="{height}" alt="{escape(name)}" src="data:image/png;base64,{data}">'


def picture_figure(pixels: npt.NDArray[np.uint8], name: str) -> str:
    """A `figure` with a picture, as `picture_tag`, and its name below."""
    return f"<figure>{picture_tag(pixels, name)}<figcaption>{escape(name)}</figcaption></figure>"
