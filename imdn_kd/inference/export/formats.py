"""The formats of exported files."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from imdn_kd.archs.base import SRNetwork
from imdn_kd.errors import InputError
from imdn_kd.inference.engines.base import Array
from imdn_kd.utils.extras import how_to_install

NAMES = ("onnx", "openvino", "ncnn", "torchscript", "pt2")

Run = Callable[[Array], Array]
"""Runs an exported network: images N x C x H x W to N x C x sH x sW, fp32."""


class Format(Protocol):
    """A format; the modules here with these names are formats.

    Attributes:
        SUFFIXES: of its files, which have one stem. The first is the one that names the export.
        PACKAGES: that writing a file and running it need.
        RUNTIME: the package that runs the files.
    """

    SUFFIXES: tuple[str, ...]
    PACKAGES: tuple[str, ...]
    RUNTIME: str

    def write(self, network: SRNetwork, metadata: dict[str, str], path: Path) -> None:
        """Write the files of a network, in evaluation mode, of which `path` is the first.

        Args:
            network: whose parameters ask for no gradients.
            metadata: see `describe`; what the format changes, as the smallest size, is changed there.
            path: with the first suffix.

        Raises:
            InputError: an operation of the network is in the way.
        """

    def read_metadata(self, path: Path) -> dict[str, str]:
        """What a file says; of files of other programs nothing, or nothing of ours."""

    def load(self, path: Path, threads: int) -> Run:
        """Open files for their runtime, with so many threads on the CPU; `path` is the first one."""


def find_format(name: str, *, to_run: bool = False) -> Format:
    """The format of that name, whose packages are there.

    Args:
        name: one of `NAMES`.
        to_run: only its runtime is needed, not what writes its files.

    Raises:
        InputError: `export.unknown-format`, or `export.not-installed`.
    """
    if name not in NAMES:
        raise InputError(f"format {name!r} is unknown; choose one of {', '.join(NAMES)}", code="export.unknown-format")
    found: Format = import_module(f"imdn_kd.inference.export.{name}")
    packages = (found.RUNTIME,) if to_run else found.PACKAGES
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        work = f"running {name} files needs" if to_run else f"writing {name} files and checking them needs"
        raise InputError(
            f"{work} {' and '.join(missing)}; {how_to_install('deploy')}, or pip install {' '.join(missing)}",
            code="export.not-installed",
        )
    return found
