"""Packed stores: the decoded images of a data set in memory-mapped files, so that training never decodes.

A store is a folder, readable with numpy alone. A plane holds one image per HR image: `gt`, `lq_x4`, or the
output of a teacher.

    manifest.json       what the images are, how each plane was made, versions
    images.npy          a record per image: `name` (UTF-8), `sha256` of its file
    gt.npy              the pixels of a plane, image after image, each height x width x 3, RGB: one uint8 array
    gt.index.npy        a record per image of that plane: `offset` in that array, `height`, `width`, `crc32`
    lq_x4.npy, lq_x4.index.npy, ...

    map_x2_<checksum>.npy, map_x2_<checksum>.index.npy
                        of a feature of a teacher, height x width x `channels` numbers of `dtype`, as in the manifest

    index, pixels = (np.load(f"DIV2K.store/lq_x4{end}", mmap_mode="r") for end in (".index.npy", ".npy"))
    at = index[7]
    image = pixels[at["offset"]:][: 3 * at["height"] * at["width"]].reshape(at["height"], at["width"], 3)

`gt` images have the size of their HR images; `lq_x4` is computed from the part of them, from the top left corner, that
is a multiple of the scale.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imdn_kd.data.base import exact_scale, lq_plane
from imdn_kd.errors import InputError
from imdn_kd.registry import DATASETS

FORMAT = "imdn_kd store"
VERSION = 1
MANIFEST, IMAGES = "manifest.json", "images.npy"
PIXELS, INDEX = "{}.npy", "{}.index.npy"
HEADER_BYTES = 128
"""Length of the header of `PIXELS` files: that of every .npy file with one dimension."""

Pixels = npt.NDArray[Any]
"""An image of a plane, H x W x C: uint8 with three channels, or the map of a feature."""

INDEX_DTYPE = np.dtype([("offset", "<i8"), ("height", "<i4"), ("width", "<i4"), ("crc32", "<u4")])

_RESIDENT_BYTES = 2**25


class PlaneFormat(NamedTuple):
    """Of what the images of a plane are.

    Attributes:
        dtype: of a value.
        channels: values of a pixel.
    """

    dtype: np.dtype[Any] = np.dtype(np.uint8)
    channels: int = 3

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> PlaneFormat:
        """The format that the description of a plane in the manifest states; images without any."""
        return cls(np.dtype(description.get("dtype", "uint8")), int(description.get("channels", 3)))

    def nbytes(self, height: int, width: int) -> int:
        """Size of an image in bytes."""
        return height * width * self.channels * self.dtype.itemsize


class Store:
    """A packed store, read-only; it can be pickled and opened by any number of processes.

    Args:
        path: the folder.

    Raises:
        InputError: `store.not-found`, `store.damaged`, or `store.version`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        self.planes: tuple[str, ...] = tuple(self.manifest["planes"])
        self._images = _load(self.path / IMAGES)
        if self._images.ndim != 1 or self._images.dtype.names != ("name", "sha256") or not len(self._images):
            raise InputError(f"{self.path / IMAGES}: does not fit the store; prepare it again", code="store.damaged")
        # Other planes are opened on demand: damage in one need not hinder who does not use it.
        self._maps = {plane: self._open(plane) for plane in self.planes if is_own(plane)}
        self._touched = 0

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.path,)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def checksum(self) -> str:
        """Checksum of the names and all pixels of `gt`: equal in stores of the same HR images."""
        return str(self.manifest["planes"]["gt"]["sha256"])

    def name(self, index: int) -> str:
        """Name of an image: that of its file, without the suffix."""
        return bytes(self._images["name"][index]).decode(errors="replace")

    def source_sha256(self, index: int) -> str:
        """SHA-256 of the file that an image came from."""
        return bytes(self._images["sha256"][index]).decode()

    def sizes(self, plane: str) -> npt.NDArray[np.int64]:
        """(height, width) of every image of a plane, px."""
        index = self._map(plane).index
        return np.stack([index["height"], index["width"]], 1).astype(np.int64)

    def image(self, index: int, plane: str = "gt") -> Pixels:
        """Return one image, H x W x C, as a read-only view of the file; see `format`."""
        image = self._map(plane).image(index)
        # What was read counts as memory of this process until it is returned to the cache of the system.
        self._touched += image.nbytes
        if self._touched > _RESIDENT_BYTES:
            self._touched = image.nbytes
            for one in self._maps.values():
                one.give_back()
        return image

    def format(self, plane: str) -> PlaneFormat:
        """Of what the images of a plane are."""
        return PlaneFormat.of(self.manifest["planes"][plane])

    def crc32(self, index: int, plane: str) -> int:
        """Checksum of the pixels of one image."""
        return int(self._map(plane).index["crc32"][index])

    def lq_scales(self) -> list[Fraction]:
        """Scales of the LR planes."""
        described = self.manifest["planes"]
        return sorted(Fraction(described[plane]["scale"]) for plane in self.planes if plane.startswith("lq_"))

    def lq_plane(self, scale: Fraction) -> str:
        """Name of the LR plane of a scale; InputError (`store.no-plane`) if there is none."""
        if scale not in self.lq_scales():
            there = ", ".join(f"x{float(each):g}" for each in self.lq_scales()) or "none"
            raise InputError(
                f"{self.path}: has no LR images for x{float(scale):g} (there: {there}); "
                f"prepare it again with --scale {float(scale):g}, which adds them",
                code="store.no-plane",
            )
        return lq_plane(scale)

    def verify(
        self, on_image: Callable[[int], None] | None = None, *, planes: Sequence[str] | None = None
    ) -> Iterator[str]:
        """Compare every image with its checksum and the index with the manifest; yield a line per fault.

        Args:
            on_image: called with the number of images checked, of all planes.
            planes: the planes to check (default: all).
        """
        checked = 0
        for plane in planes or self.planes:
            description = self.manifest["planes"][plane]
            try:
                self._map(plane)
            except InputError as error:
                yield str(error)
                continue
            if description["sha256"] != index_checksum(self.path, plane):
                yield f"{self.path}: {IMAGES} or {INDEX.format(plane)} has changed since the store was made"
            for number in range(len(self)):
                if zlib.crc32(self.image(number, plane).data) != self.crc32(number, plane):
                    yield f"{self.path}: {self.name(number)} is damaged in {PIXELS.format(plane)}"
                checked += 1
                if on_image:
                    on_image(checked)

    def has(self, plane: str) -> bool:
        """Whether the plane is there, with all its files."""
        try:
            self._map(plane)
        except InputError:
            return False
        return True

    def _map(self, plane: str) -> _PlaneMap:
        if plane in self.planes and plane not in self._maps:
            self._maps[plane] = self._open(plane)
        if plane not in self._maps:
            raise InputError(
                f"{self.path}: has no plane {plane}; it has {', '.join(self.planes)}", code="store.no-plane"
            )
        return self._maps[plane]

    def _open(self, plane: str) -> _PlaneMap:
        return _PlaneMap(self.path, plane, len(self._images), self.format(plane))


@DATASETS.register
class StoreDataset:
    """`ImagePairs` of a store, for one scale.

    Args:
        scale: px of `gt` per px of `lq`.
        dataroot: folder of the store.
        planes: further planes to read: a teacher's output, or maps of its features.
        hr_only: without `lq`, which need not be there.
        versions: instead of all this, for each version of the images the planes to read, by the names that `read` gives
            them, `lq` among them; each image is there as often, version after version.

    Attributes:
        pitches: of the planes that are maps of features: px of `lq` per px of the map.

    Raises:
        InputError: as `Store`, or `store.no-plane` for the scale.
    """

    def __init__(
        self,
        *,
        scale: float | Fraction,
        dataroot: Path | str,
        planes: Sequence[str] = (),
        hr_only: bool = False,
        versions: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.store = Store(dataroot)
        self.scale = exact_scale(scale)
        if not versions:
            lq = {} if hr_only else {"lq": self.store.lq_plane(self.scale)}
            versions = [lq | {plane: plane for plane in planes}]
        self._versions = versions
        self.planes: Sequence[str] = ("gt", *versions[0])
        for plane in (plane for each in versions for plane in each.values()):
            self.store.sizes(plane)
        described = {name: self.store.manifest["planes"][plane] for name, plane in versions[0].items()}
        self.pitches = {name: Fraction(about["pitch"]) for name, about in described.items() if "pitch" in about}

    def __len__(self) -> int:
        return len(self.store) * len(self._versions)

    @property
    def degradation(self) -> list[dict[str, Any]] | None:
        """The steps that made the `lq` images, as JSON; None where they were given, or there are none."""
        if "lq" not in self.planes:
            return None
        steps: list[dict[str, Any]] | None = self.store.manifest["planes"][self._versions[0]["lq"]].get("degradation")
        return steps

    def name(self, index: int) -> str:
        """Name of an image."""
        return self.store.name(index % len(self.store))

    def lq_sizes(self) -> npt.NDArray[np.int64]:
        """(height, width) of every `lq` image, px; without `lq`, as `gt` would give them."""
        if "lq" in self.planes:
            return np.concatenate([self.store.sizes(planes["lq"]) for planes in self._versions])
        return self.store.sizes("gt") // self.scale.numerator * self.scale.denominator

    def read(self, index: int) -> dict[str, Pixels]:
        """Views of the planes of an image; `gt` is cropped to the part that `lq` was or would be computed from."""
        up, down = self.scale.numerator, self.scale.denominator
        version, index = divmod(index, len(self.store))
        images = {"gt": self.store.image(index)}
        images |= {name: self.store.image(index, plane) for name, plane in self._versions[version].items()}
        lq = images.get("lq")
        if lq is None:
            height, width = (side // up * up for side in images["gt"].shape[:2])
        else:
            height, width = lq.shape[0] * up // down, lq.shape[1] * up // down
        as_they_are = {"lq", *self.pitches}
        return {name: each if name in as_they_are else each[:height, :width] for name, each in images.items()}


class _PlaneMap:
    """The memory-mapped files of one plane."""

    def __init__(self, folder: Path, plane: str, images: int, form: PlaneFormat) -> None:
        path = folder / PIXELS.format(plane)
        again = "prepare the store again" if is_own(plane) else "have it made again: imdn-kd cache-teacher"
        self.index = _load(folder / INDEX.format(plane), again)
        if self.index.dtype != INDEX_DTYPE or len(self.index) != images:
            raise InputError(f"{folder / INDEX.format(plane)}: does not fit the store; {again}", code="store.damaged")
        lengths = form.channels * self.index["height"].astype(np.int64) * self.index["width"]
        ends = np.cumsum(lengths)
        if (lengths <= 0).any() or (self.index["offset"] != ends - lengths).any():
            raise InputError(f"{folder / INDEX.format(plane)}: is damaged; {again}", code="store.damaged")
        wanted = HEADER_BYTES + int(ends[-1]) * form.dtype.itemsize
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read; {again}", code="store.damaged") from error
        if len(self._map) != wanted:
            raise InputError(f"{path}: has {len(self._map)} bytes, should have {wanted}; {again}", code="store.damaged")
        # Looking these up one by one would take as long as copying a patch.
        self._places = self.index["offset"], self.index["height"], self.index["width"]
        self._pixels = np.frombuffer(self._map, form.dtype, offset=HEADER_BYTES)
        self._channels = form.channels

    def image(self, number: int) -> Pixels:
        start, height, width = (field.item(number) for field in self._places)
        return self._pixels[start : start + self._channels * height * width].reshape(height, width, self._channels)

    def give_back(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):  # Linux; elsewhere the system decides
            self._map.madvise(mmap.MADV_DONTNEED)


def is_own(plane: str) -> bool:
    """Whether a plane belongs to the store from the start, and was not added later."""
    return plane == "gt" or plane.startswith("lq_")


def is_store(path: Path | str) -> bool:
    """Whether there is a complete store at `path`."""
    return (Path(path) / MANIFEST).is_file()


def index_checksum(folder: Path, plane: str) -> str:
    """SHA-256 of the names and the index of a plane and, through the checksums in the index, of all pixels."""
    digest = hashlib.sha256()
    for name in (IMAGES, INDEX.format(plane)):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: is not a store of images; make one with imdn-kd prepare", code="store.not-found"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read; prepare the store again", code="store.damaged") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{folder}: is not a store of images; make one with imdn-kd prepare", code="store.not-found")
    if not isinstance(manifest.get("planes"), dict) or "gt" not in manifest["planes"]:
        raise InputError(f"{path}: names no planes; prepare the store again", code="store.damaged")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{folder}: is a store of version {manifest.get('version')}; update imdn_kd to read it",
            code="store.version",
        )
    return manifest


def _load(path: Path, again: str = "prepare the store again") -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read; {again}", code="store.damaged") from error
    return array
