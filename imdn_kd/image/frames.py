"""Files of several pictures: the frames of animations and the pages of TIFFs, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from PIL import ExifTags, Image, MpoImagePlugin

from imdn_kd.image.picture import Picture, Pixels
from imdn_kd.image.reader import (
    RefusedError,
    exif_of,
    naming_errors,
    open_image,
    pixels_of,
    quiet,
    read_image,
    read_page,
    require_file,
    upright,
)

_PREVIEW_OR_MASK = 1 | 4  # in NewSubfileType
_THUMBNAILS = ("Large Thumbnail (VGA Equivalent)", "Large Thumbnail (Full HD Equivalent)")


@dataclass(frozen=True)
class Frame:
    """One of the pictures of a file.

    Attributes:
        picture: the whole canvas; in animations RGB with alpha.
        duration: for which it is shown, ms; None for a page, and for the picture of an animated PNG that only programs
            without animations show.
    """

    picture: Picture
    duration: float | None = None


@dataclass(frozen=True)
class Frames:
    """The pictures of one file.

    Attributes:
        kind: `animation` or `pages`, also for a single picture; `views` where a JPEG holds other pictures, such as a
            gain map or the other view of a stereo pair, beside the first.
        count: of all pictures.
        loop: how often an animation is shown; 0 means for ever.
        pictures: read one at a time when it is asked for; of `views` the first only.
    """

    kind: Literal["animation", "pages", "views"]
    count: int
    loop: int
    pictures: Iterator[Frame]


def read_frames(path: Path | str) -> Frames:
    """Read all pictures of a file; each as `read_image` reads the first.

    Left out are pages of a TIFF that are previews or masks, and previews in a JPEG. Animations whose colours have 16
    bits arrive with 8.

    Raises:
        InputError: as `read_image`, also while the pictures are taken; or `image.unlisted-pages`: stacks of ImageJ and
            tifffile whose pages follow each other without directories.
    """
    with naming_errors(path), quiet:
        require_file(path)
        with Path(path).open("rb") as file:
            if (pages := _pages(file)) is not None:
                return Frames("pages", len(pages), 0, (Frame(read_page(path, page)) for page in pages))
            image = open_image(file)
            count = getattr(image, "n_frames", 1)
            if isinstance(image, MpoImagePlugin.MpoImageFile):
                return Frames("views", 1 + _views(image), 0, _first(path))
            if count == 1:
                return Frames("pages", 1, 0, _first(path))
            return Frames("animation", count, _loop(image), _animation(path, count))


def picture_sizes(path: Path | str) -> list[tuple[int, int]]:
    """Return height and width of every picture that `read_frames` reads, px, as headers state them.

    Nothing is decoded. An orientation may exchange the two.

    Raises:
        InputError: as `read_frames`.
    """
    with naming_errors(path), quiet:
        require_file(path)
        with Path(path).open("rb") as file:
            if (pages := _pages(file)) is not None:
                file.seek(0)
                directory = tifffile.TiffFile(file).pages
                found = (directory[number].aspage() for number in pages)
                return [(int(page.imagelength), int(page.imagewidth)) for page in found]
            with open_image(file) as image:
                views = isinstance(image, MpoImagePlugin.MpoImageFile)
                return [(image.height, image.width)] * (1 if views else getattr(image, "n_frames", 1))


def _first(path: Path | str) -> Iterator[Frame]:
    yield Frame(read_image(path))


def _animation(path: Path | str, count: int) -> Iterator[Frame]:
    first = read_image(path)
    with naming_errors(path):
        file = Path(path).open("rb")  # noqa: SIM115 - closed below; errors of who takes the frames are not ours
    with file:
        with naming_errors(path), quiet:
            image = open_image(file)
            orientation = exif_of(image).get(ExifTags.Base.Orientation)
        for number in range(count):
            with naming_errors(path), quiet:
                image.seek(number)
                image.load()
                pixels = upright(_with_alpha(pixels_of(image)), orientation)
                hidden = number == 0 and getattr(image, "default_image", False)
                duration = None if hidden else float(image.info.get("duration", 0))
            yield Frame(replace(first, pixels=pixels), duration)


def _with_alpha(pixels: Pixels) -> Pixels:
    """H x W x 4: the frames of one file may differ in their channels."""
    planes = pixels.reshape(*pixels.shape[:2], -1)
    channels = planes.shape[2]
    alpha = planes[..., -1:] if channels in (2, 4) else np.full_like(planes[..., :1], np.iinfo(pixels.dtype).max)
    colour = planes[..., :3] if channels > 2 else planes[..., :1].repeat(3, axis=2)
    joined: Any = np.concatenate((colour, alpha), axis=2)
    four: Pixels = joined
    return four


def _loop(image: Image.Image) -> int:
    if image.format == "GIF":
        # It states how often to repeat, nothing for once; the others state how often to show. So does gif2webp:
        # https://chromium.googlesource.com/webm/libwebp/+/refs/heads/main/examples/gif2webp.c
        repeats = image.info.get("loop")
        return 1 if repeats is None else repeats and int(repeats) + 1
    return int(image.info.get("loop", 0))


def _pages(file: BinaryIO) -> list[int] | None:
    """Numbers of the pages of a TIFF that are no previews or masks; None for another or a damaged file."""
    try:
        tiff = tifffile.TiffFile(file)
        pages = [number for number, page in enumerate(tiff.pages) if not page.aspage().subfiletype & _PREVIEW_OR_MASK]
        hidden = len(tiff.pages) == 1 and (tiff.is_imagej or tiff.is_shaped) and _planes(tiff) > 1
    except Exception:  # of every kind; decoding reports what is wrong
        return None
    if hidden:
        raise RefusedError(
            "holds pages that it does not list, which only few programs see; save it as a plain TIFF stack",
            code="image.unlisted-pages",
        )
    return sorted({0, *pages})


def _planes(tiff: tifffile.TiffFile) -> int:
    """How many pictures the description of the first page says there are."""
    series = tiff.series[0]
    return series.size // series.keyframe.size


def _views(image: MpoImagePlugin.MpoImageFile) -> int:
    """How many pictures beside the first are more than previews."""
    entries = image.mpinfo[0xB002][1:] if image.mpinfo else []
    return sum(entry["Attribute"]["MPType"] not in _THUMBNAILS for entry in entries)
