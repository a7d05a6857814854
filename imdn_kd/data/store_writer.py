"""Writers of packed stores, which resume after an interruption at any moment."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np

from imdn_kd.data.base import lq_plane
from imdn_kd.data.store import (
    FORMAT,
    HEADER_BYTES,
    IMAGES,
    INDEX,
    INDEX_DTYPE,
    MANIFEST,
    PIXELS,
    VERSION,
    Pixels,
    PlaneFormat,
    Store,
    index_checksum,
    is_own,
)
from imdn_kd.errors import InputError
from imdn_kd.image.rgb import RgbImage
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.progress_log import ProgressLog, Record

PROGRESS_LOG = "progress.jsonl"


class PlaneWriter:
    """A writer of the pixels and the index of one plane.

    Args:
        folder: folder of the store; must exist.
        plane: name of the plane.
        form: of what its images are.
    """

    def __init__(self, folder: Path, plane: str, form: PlaneFormat = PlaneFormat()) -> None:  # noqa: B008 - immutable
        self._form = form
        self._pixels, self._index = folder / PIXELS.format(plane), folder / INDEX.format(plane)
        self._file: BinaryIO = self._pixels.open("r+b" if self._pixels.exists() else "w+b")

    def intact(self, shapes: Sequence[Sequence[int]]) -> int:
        """Number of leading images whose pixels match the given (height, width, crc32)."""
        self._file.seek(HEADER_BYTES)
        for number, (height, width, crc32) in enumerate(shapes):
            if zlib.crc32(self._file.read(self._form.nbytes(height, width))) != crc32:
                return number
        return len(shapes)

    def cut(self, shapes: Sequence[Sequence[int]]) -> None:
        """Remove all but these images, so that the next one is written after them."""
        end = HEADER_BYTES + sum(self._form.nbytes(height, width) for height, width, _ in shapes)
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, image: Pixels) -> tuple[int, int, int]:
        """Write H x W x C and return (height, width, crc32)."""
        if image.dtype != self._form.dtype or image.shape[2:] != (self._form.channels,):
            raise ValueError(f"an image of {image.dtype} with {image.shape[2:]} channels, not {self._form}")
        data = np.ascontiguousarray(image).data
        self._file.write(data)
        self._file.flush()
        return image.shape[0], image.shape[1], zlib.crc32(data)

    def finish(self, shapes: Sequence[Sequence[int]]) -> None:
        """Write the header and the index, and flush everything to disk."""
        index = np.zeros(len(shapes), INDEX_DTYPE)
        for field, values in zip(("height", "width", "crc32"), zip(*shapes, strict=True), strict=True):
            index[field] = values
        lengths = self._form.channels * index["height"].astype(np.int64) * index["width"]
        index["offset"][1:] = np.cumsum(lengths)[:-1]
        self._file.seek(0)
        header = {"descr": self._form.dtype.str, "fortran_order": False, "shape": (int(lengths.sum()),)}
        np.lib.format.write_array_header_1_0(self._file, header)
        if self._file.tell() != HEADER_BYTES:
            raise RuntimeError("this version of numpy writes headers of another length")
        _sync(self._file)
        self._file.close()
        _save(self._index, index)

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


class StoreWriter:
    """A writer of stores with several planes; a `Writer` of `imdn-kd prepare`.

    Args:
        folder: folder of the store; must exist.
        planes: their names and descriptions for the manifest.
    """

    def __init__(self, folder: Path, planes: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder, self._planes = folder, planes
        self._writers = {plane: PlaneWriter(folder, plane) for plane in planes}

    def resume(self, records: Sequence[Record]) -> int:
        """Keep the leading records whose images are all intact, remove the rest, and return their number."""
        shapes = {plane: [record["planes"][plane] for record in records] for plane in self._planes}
        kept = min(writer.intact(shapes[plane]) for plane, writer in self._writers.items())
        for plane, writer in self._writers.items():
            writer.cut(shapes[plane][:kept])
        return kept

    def append(self, name: str, sha256: str, planes: Mapping[str, RgbImage]) -> Record:
        """Write an image in all its planes and return its record for the progress log."""
        shapes = {plane: self._writers[plane].append(image) for plane, image in planes.items()}
        return {"name": name, "sha256": sha256, "planes": shapes}

    def finish(self, records: Sequence[Record], manifest: Mapping[str, Any]) -> None:
        """Complete the store; the manifest comes last, since a folder without it is no store."""
        for plane, writer in self._writers.items():
            writer.finish([record["planes"][plane] for record in records])
        names = [record["name"].encode() for record in records]
        images = np.zeros(len(records), [("name", f"S{max(map(len, names))}"), ("sha256", "S64")])
        images["name"], images["sha256"] = names, [record["sha256"] for record in records]
        _save(self._folder / IMAGES, images)
        described = {
            plane: {**description, "sha256": index_checksum(self._folder, plane)}
            for plane, description in self._planes.items()
        }
        _write_manifest(self._folder, {"format": FORMAT, "version": VERSION, **manifest, "planes": described})

    def close(self) -> None:
        """Close the files as they are, to be resumed."""
        for writer in self._writers.values():
            writer.close()


def add_plane(
    path: Path | str,
    plane: str,
    make: Callable[[int], Pixels],
    *,
    description: Mapping[str, Any],
) -> Store:
    """Add a plane to a store; see `add_planes`.

    Args:
        path: folder of the store.
        plane: name of the new plane.
        make: returns the image of an index.
        description: entry of the manifest.

    Raises:
        InputError: see `add_planes`.
    """
    return add_planes(path, {plane: description}, lambda number, _: {plane: make(number)})


def add_planes(
    path: Path | str,
    planes: Mapping[str, Mapping[str, Any]],
    make: Callable[[int, Collection[str]], Mapping[str, Pixels]],
) -> Store:
    """Add planes to a store, such as what a teacher makes of every image; resumes what was interrupted.

    Args:
        path: folder of the store.
        planes: names of the new planes, usable in file names, with their entries of the manifest, JSON: these also
            identify an interrupted job. An existing plane of the same name and entry is kept, unless its files are
            missing or truncated. `dtype` and `channels` are its `PlaneFormat`.
        make: takes the index of an image and the planes that lack it; returns it for each of these, H x W x C.

    Raises:
        InputError: as `Store`; `store.in-use`, another process is adding a plane; `store.plane-exists`, with another
            description.
    """
    lock = filelock.FileLock(Store(path).path / ".planes.lock", timeout=0)
    try:
        with lock:
            return _add_planes(Store(path), planes, make)
    except filelock.Timeout as error:
        raise InputError(
            f"{path}: another process is adding to it; wait until that has ended", code="store.in-use"
        ) from error


def _add_planes(
    store: Store,
    planes: Mapping[str, Mapping[str, Any]],
    make: Callable[[int, Collection[str]], Mapping[str, Pixels]],
) -> Store:
    with ExitStack() as stack:
        jobs = {}
        for plane, description in planes.items():
            present = store.manifest["planes"].get(plane)
            if present is None or not store.has(plane):
                jobs[plane] = stack.enter_context(closing(_NewPlane(store, plane, description)))
            elif {key: value for key, value in present.items() if key != "sha256"} != dict(description):
                raise InputError(
                    f"{store.path}: has another plane {plane} already; choose another name", code="store.plane-exists"
                )
        for number in range(len(store)):
            wanted = [plane for plane, job in jobs.items() if job.done == number]
            if wanted:
                made = make(number, wanted)
                for plane in wanted:
                    jobs[plane].add(made[plane])
        for job in jobs.values():
            store = job.finish(store)
    return store


class _NewPlane:
    """A plane that is added to a store; what was interrupted before is resumed."""

    def __init__(self, store: Store, plane: str, description: Mapping[str, Any]) -> None:
        self._plane, self._description = plane, description
        self._form = PlaneFormat.of(description)
        self._work = store.path / f"{plane}.part"
        self._work.mkdir(exist_ok=True)
        job = json.dumps([plane, description, store.checksum], sort_keys=True)
        self._progress_log = ProgressLog(self._work / PROGRESS_LOG, job)
        self._writer = PlaneWriter(self._work, plane, self._form)
        shapes = [record["shape"] for record in self._progress_log.records]
        self._progress_log.cut(self._writer.intact(shapes))
        self._shapes = shapes[: len(self._progress_log.records)]
        self._writer.cut(self._shapes)

    @property
    def done(self) -> int:
        """Number of images that are there."""
        return len(self._shapes)

    def add(self, image: Pixels) -> None:
        self._shapes.append(self._writer.append(image))
        self._progress_log.add({"shape": self._shapes[-1]})

    def finish(self, store: Store) -> Store:
        """Move the plane into the store; the manifest comes last."""
        self._writer.finish(self._shapes)
        for pattern in (PIXELS, INDEX):
            (self._work / pattern.format(self._plane)).replace(store.path / pattern.format(self._plane))
        described = {**self._description, "sha256": index_checksum(store.path, self._plane)}
        planes = {**store.manifest["planes"], self._plane: described}
        size = sum(self._form.nbytes(height, width) for height, width, _ in self._shapes)
        sizes = {**store.manifest.get("bytes", {}), self._plane: size}
        _write_manifest(store.path, {**store.manifest, "bytes": sizes, "planes": planes})
        shutil.rmtree(self._work)  # whatever else lies in it
        return Store(store.path)

    def close(self) -> None:
        self._writer.close()


def keep_planes(old: Path, new: Path) -> None:
    """Add to a new store the planes of an old one that it lacks: LR planes and results of teachers.

    Files are linked, not copied. A plane is kept if it is intact and still right: `gt` is the same, and LR planes are
    made in the same way, or the LR images that the results are of are the same.

    Args:
        old: a store, perhaps damaged.
        new: a complete store, which nobody uses yet.
    """
    try:
        before, after = Store(old), Store(new)
    except InputError:  # damaged; nothing can be kept
        return
    if before.checksum != after.checksum:
        return
    planes = dict(after.manifest["planes"])
    ways = [described.get("degradation") for plane, described in planes.items() if plane.startswith("lq_")]
    sizes = dict(after.manifest.get("bytes", {}))
    for plane in sorted(before.planes, key=is_own, reverse=True):  # LR planes first
        described = before.manifest["planes"][plane]
        if is_own(plane):
            right = described.get("degradation") in ways
        else:
            source = lq_plane(Fraction(described.get("scale", 1)))
            right = source in planes and planes[source]["sha256"] == before.manifest["planes"][source]["sha256"]
        if plane in planes or not right or any(before.verify(planes=[plane])):
            continue
        for pattern in (PIXELS, INDEX):
            target = new / pattern.format(plane)
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(old / pattern.format(plane))
            except OSError:  # a file system without hard links
                shutil.copyfile(old / pattern.format(plane), target)
        planes[plane] = described
        sizes[plane] = _bytes(before, plane)
    _write_manifest(new, {**after.manifest, "bytes": sizes, "planes": planes})


def _bytes(store: Store, plane: str) -> int:
    return store.format(plane).nbytes(1, int(store.sizes(plane).prod(1).sum()))


def _save(path: Path, array: np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        _sync(file)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    with atomic_path(folder / MANIFEST) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")
        _sync(file)


def _sync(file: Any) -> None:  # noqa: ANN401 - text or binary
    file.flush()
    os.fsync(file.fileno())
