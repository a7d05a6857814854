"""Catalogue of published data sets: addresses, file names, contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

SAMPLE = {"sample": ("astronaut", "chelsea", "motorcycle", "rocket"), "sample_valid": ("coffee",)}
"""Photographs inside scikit-image: to train on, and to choose by."""


@dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes:
        url: its public address.
        checksum: `md5:...` or `sha256:...`; those of DIV2K are the ones that torchSR publishes.
        size: bytes, where known.
    """

    url: str
    checksum: str
    size: int | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Part:
    """The HR images of a set, or its LR images for a scale: an archive, and the folders they may be in."""

    archive: Archive
    folders: tuple[str, ...]


@dataclass(frozen=True)
class NamedSet:
    """A published data set.

    Attributes:
        title: shown in tables.
        images: number of HR images.
        hr: the HR images.
        lr: the LR images published with them (MATLAB bicubic), by scale.
        licence: one line.
    """

    title: str
    images: int
    hr: Part
    lr: Mapping[Fraction, Part]
    licence: str


def _div2k(title: str, images: int, *, hr: Archive, lr: dict[int, str], x8: str) -> NamedSet:
    stem = hr.name.removesuffix("_HR.zip")
    parts = {
        Fraction(scale): Part(_ethz(f"{stem}_LR_bicubic_X{scale}.zip", md5), (f"{stem}_LR_bicubic/X{scale}",))
        for scale, md5 in lr.items()
    }
    parts[Fraction(8)] = Part(_ethz(f"{stem}_LR_x8.zip", x8), (f"{stem}_LR_x8",))
    licence = "DIV2K is for academic research only; the rights in the images stay with their owners"
    return NamedSet(title, images, Part(hr, (f"{stem}_HR",)), parts, licence)


def _ethz(name: str, md5: str, size: int | None = None) -> Archive:
    return Archive(f"https://data.vision.ee.ethz.ch/cvl/DIV2K/{name}", f"md5:{md5}", size)


def _benchmark(title: str, images: int) -> NamedSet:
    archive = Archive(
        "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
        "sha256:80c21c333bbf6ceb5308b7243761f8284478274413a97b96f1d63e9045fd93e8",
        250112000,
    )
    lr = {Fraction(scale): Part(archive, (f"{title}/LR_bicubic/X{scale}",)) for scale in (2, 3, 4)}
    hr = Part(archive, (*(f"{title}/{folder}" for folder in ("HR", "GTmod12", "GT")), title))
    licence = f"{title} is for research only; the rights in the images stay with their owners"
    return NamedSet(title, images, hr, lr, licence)


NAMED_SETS: Mapping[str, NamedSet] = {
    "div2k": _div2k(
        "DIV2K",
        800,
        hr=_ethz("DIV2K_train_HR.zip", "bdc2d9338d4e574fe81bf7d158758658", 3530603713),
        lr={
            2: "9a637d2ef4db0d0a81182be37fb00692",
            3: "ad80b9fe40c049a07a8a6c51bfab3b6d",
            4: "76c43ec4155851901ebbe8339846d93d",
        },
        x8="613db1b855721b3d2b26f4194a1d22a6",
    ),
    "div2k_valid": _div2k(
        "DIV2K_valid",
        100,
        hr=_ethz("DIV2K_valid_HR.zip", "9fcdda83005c5e5997799b69f955ff88", 448993893),
        lr={
            2: "1512c9a3f7bde2a1a21a73044e46b9cb",
            3: "18b1d310f9f88c13618c287927b29898",
            4: "21962de700c8d368c6ff83314480eff0",
        },
        x8="c5aeea2004e297e9ff3abfbe143576a5",
    ),
    "set5": _benchmark("Set5", 5),
    "set14": _benchmark("Set14", 14),
    "b100": _benchmark("B100", 100),
    "urban100": _benchmark("Urban100", 100),
}
"""Data sets by the names that commands take."""
