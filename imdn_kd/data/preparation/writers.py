"""Writers of data sets: packed stores, folders of PNG files, BasicSR's LMDBs; each can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from imdn_kd.data.lmdb_io import LmdbWriter, check_key
from imdn_kd.data.preparation.schema import Format
from imdn_kd.data.store import MANIFEST
from imdn_kd.data.store_writer import StoreWriter
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.rgb import RgbImage
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.progress_log import Record

Description = Mapping[str, Any]


class Writer(Protocol):
    """A resumable writer of samples."""

    def resume(self, records: Sequence[Record]) -> int:
        """Keep the leading records that are complete, remove the rest, and return their number."""
        ...

    def append(self, name: str, sha256: str, planes: Mapping[str, RgbImage]) -> Record:
        """Write an image in all its planes; return its record for the progress log."""
        ...

    def finish(self, records: Sequence[Record], manifest: Description) -> None:
        """Complete the data set, and write the manifest."""
        ...

    def close(self) -> None:
        """Close everything as it is, to be resumed."""
        ...


class FolderWriter:
    """A writer of PNG files by the usual names: `HR/0001.png`, `LRbicx4/0001x4.png`."""

    def __init__(self, folder: Path, planes: Mapping[str, Description]) -> None:
        self._folder = folder
        self._patterns = {plane: _pattern(plane, description) for plane, description in planes.items()}

    def resume(self, records: Sequence[Record]) -> int:
        """Count complete images: files appear under their names only when complete."""
        for number, record in enumerate(records):
            if not all(self._path(plane, record["name"]).is_file() for plane in self._patterns):
                return number
        return len(records)

    def append(self, name: str, sha256: str, planes: Mapping[str, RgbImage]) -> Record:
        """Write one file for each plane."""
        for plane, image in planes.items():
            write_image(self._path(plane, name), Picture(image), overwrite=True)
        return {"name": name, "sha256": sha256}

    def finish(self, records: Sequence[Record], manifest: Description) -> None:
        """Write the manifest."""
        _write_manifest(self._folder, manifest)

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, plane: str, name: str) -> Path:
        return self._folder / self._patterns[plane].replace("{}", name)


class LmdbPlanesWriter:
    """A writer of one LMDB per plane, as BasicSR reads them: `gt.lmdb`, `lq_x4.lmdb`; keys are the names."""

    def __init__(self, folder: Path, planes: Mapping[str, Description]) -> None:
        self._folder = folder
        self._writers = {plane: LmdbWriter(folder / f"{plane}.lmdb") for plane in planes}

    def resume(self, records: Sequence[Record]) -> int:
        """Count complete images: those that were committed."""
        for number, record in enumerate(records):
            if not all(writer.has(record["name"]) for writer in self._writers.values()):
                return number
        return len(records)

    def append(self, name: str, sha256: str, planes: Mapping[str, RgbImage]) -> Record:
        """Write and commit an image."""
        check_key(name)
        for plane, image in planes.items():
            self._writers[plane].put(name, image)
            self._writers[plane].commit()
        return {"name": name, "sha256": sha256}

    def finish(self, records: Sequence[Record], manifest: Description) -> None:
        """Write the lists of keys and the manifest."""
        for writer in self._writers.values():
            writer.finish(record["name"] for record in records)
        _write_manifest(self._folder, manifest)

    def close(self) -> None:
        """Close the databases."""
        for writer in self._writers.values():
            writer.close()


def open_writer(form: Format, folder: Path, planes: Mapping[str, Description]) -> Writer:
    """Open a writer to `folder`, new or resumed.

    Args:
        form: output format.
        folder: created if absent.
        planes: names and descriptions of the planes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if form == "store":
        return StoreWriter(folder, planes)
    if form == "folder":
        return FolderWriter(folder, planes)
    return LmdbPlanesWriter(folder, planes)


def _pattern(plane: str, description: Description) -> str:
    if plane == "gt":
        return "HR/{}.png"
    scale = f"{float(Fraction(description['scale'])):g}"
    # The name of the published tables' LR images is for MATLAB's bicubic alone.
    kind = "LRbic" if description["degradation"] == [{"type": "bicubic"}] else "LR"
    return f"{kind}x{scale}/{{}}x{scale}.png"


def _write_manifest(folder: Path, manifest: Description) -> None:
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
