"""Pipeline from source images to a data set: decode, check for leaks, degrade, write; resumes when interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import PIL

import imdn_kd
from imdn_kd.data.base import lq_plane
from imdn_kd.data.degradation.steps import describe
from imdn_kd.data.layouts.file_tree import DiskFile
from imdn_kd.data.lmdb_io import check_key
from imdn_kd.data.preparation.additions import add_lr_planes
from imdn_kd.data.preparation.samples import PrepareSpec, Sample, SampleBuilder, build_samples
from imdn_kd.data.preparation.sources.sources import Source
from imdn_kd.data.preparation.writers import open_writer
from imdn_kd.data.store import MANIFEST, is_store
from imdn_kd.data.store_writer import keep_planes
from imdn_kd.errors import InputError
from imdn_kd.utils.files import check_folder, remove_leftovers
from imdn_kd.utils.progress_log import ProgressLog, Record

PROGRESS_LOG, REPLACED = "progress.jsonl", "replaced"

OnImage = Callable[[int, int], None]
"""Called with the number of finished images, and of all."""


@dataclass(frozen=True)
class PrepareReport:
    """Report of a prepared data set.

    Attributes:
        path: the data set.
        images: number of images.
        fresh: False if the data set was complete already.
        bytes: bytes of pixels, by plane.
        bad: HR images that cannot be used, with the reason.
        excluded: HR images that look like a benchmark image, with its label.
        ignored: number of files that are no images.
        converted: HR images converted to 8-bit RGB, by what they were.
        warning: a warning about the source, or empty.
        notes: lines on LR files; see `Source`.
    """

    path: Path
    images: int
    fresh: bool
    bytes: dict[str, int]
    bad: dict[str, str]
    excluded: dict[str, str]
    ignored: int
    converted: dict[str, list[str]]
    warning: str
    notes: tuple[str, ...] = ()


def build_dataset(
    source: Source,
    target: Path,
    spec: PrepareSpec,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    on_image: OnImage | None = None,
) -> PrepareReport:
    """Write the data set of a source to `target`.

    Files are written to `target` + `.part`, which is renamed to `target` when complete. After an interruption of any
    kind the same call resumes, and the result is the same byte for byte.

    Args:
        source: the HR images, perhaps with LR images.
        target: a folder that does not exist yet.
        spec: scales, degradations, leak check and format.
        overwrite: replace an existing data set. Without it, one of the same source and spec is kept, and a store of
            the same source gets the LR planes that it lacks. In a store, other planes stay either way, as far as they
            fit the new ones; see `keep_planes`.
        workers: threads that decode and degrade (default: all cores).
        on_image: called with the number of finished images, and of all.

    Raises:
        InputError: `prepare.nothing-usable`, no image can be used; `prepare.output-exists`, `prepare.output-foreign`
            or `prepare.output-overlaps`; `prepare.in-use`; `prepare.cannot-write`; as `add_lr_planes`.
    """
    dataset = _PlannedDataset(source, spec)
    part = target.with_name(f"{target.name}.part")
    workers = workers or os.cpu_count() or 1
    present, inside = _manifest_of(target), _lies_in(source, target)
    same = dataset.agrees_with(present, by_names=inside)
    missing = {
        plane: described for plane, described in dataset.planes.items() if plane not in present.get("planes", ())
    }
    if same and not missing and not overwrite:
        return _report(target, present, fresh=False)
    if inside:
        raise InputError(
            f"{target}: contains the HR images themselves; choose another --output", code="prepare.output-overlaps"
        )
    if target.exists() and not overwrite:
        if same and spec.form == "store":
            add_lr_planes(target, source, missing, spec, workers=workers, on_image=on_image)
            return _report(target, _manifest_of(target), fresh=True)
        raise InputError(
            f"{target}: exists already, with other images or options; add --overwrite, or choose another --output",
            code="prepare.output-exists",
        )
    check_folder(target)
    _refuse_to_replace(target)
    _refuse_strange(part)
    if spec.form == "lmdb":
        for original in source.images:
            check_key(original.name)
    with _working_in(part, target):
        if target.exists() and (part / REPLACED).exists():  # left by a run that was stopped during cleanup
            shutil.rmtree(part / REPLACED)
        progress_log = ProgressLog(part / PROGRESS_LOG, dataset.job)
        if not progress_log.records and (part / target.name).exists():  # left by a run with another plan
            shutil.rmtree(part / target.name)
        try:
            manifest = _fill(dataset, part / target.name, progress_log, workers, on_image)
        except _NothingUsableError:
            shutil.rmtree(part)
            raise
        except OSError as error:
            done = f"{len(progress_log.records)} of {len(source.images)} images are done"
            advice = "make room or choose another --output, and run the same command again to resume"
            raise InputError(
                f"{target}: cannot write it ({error.strerror}); {done}; {advice}", code="prepare.cannot-write"
            ) from error
        if target.exists():
            if spec.form == "store" and is_store(target):
                keep_planes(target, part / target.name)
                manifest = _manifest_of(part / target.name)
            target.replace(part / REPLACED)
        (part / target.name).replace(target)
    return _report(target, manifest, fresh=True)


def _refuse_to_replace(target: Path) -> None:
    """Refuse to overwrite what `imdn-kd prepare` did not make."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(
            f"{target}: is a link or a file, not a data set; choose another --output", code="prepare.output-foreign"
        )
    if target.exists() and "plan" not in _manifest_of(target) and any(target.iterdir()):
        raise InputError(
            f"{target}: exists already, and was not made by imdn-kd prepare; choose another --output",
            code="prepare.output-foreign",
        )


def _refuse_strange(part: Path) -> None:
    if part.is_symlink() or (part.exists() and not part.is_dir()):
        raise InputError(f"{part}: is in the way; move it, or choose another --output", code="prepare.output-foreign")
    if part.exists() and not (part / PROGRESS_LOG).exists() and {path.name for path in part.iterdir()} - {"lock"}:
        raise InputError(
            f"{part}: is in the way, and not of an interrupted run; move it, or choose another --output",
            code="prepare.output-foreign",
        )


class _NothingUsableError(InputError):
    """No image of the source can be used."""


def _lies_in(source: Source, target: Path) -> bool:
    """Whether a file of the source lies in `target`."""
    home = target.resolve()
    files = (file for original in source.images for file in original.files())
    return any(isinstance(file, DiskFile) and home in file.path.resolve().parents for file in files)


class _PlannedDataset:
    """A source and a spec, with checksums.

    Attributes:
        plan: of the HR images and of what is done to them, apart from LR images.
        job: of everything, versions included: what is resumed must be the same.
    """

    def __init__(self, source: Source, spec: PrepareSpec) -> None:
        self.source, self.spec = source, spec
        versions = {"imdn_kd": imdn_kd.__version__, "numpy": np.__version__, "pillow": PIL.__version__}
        self._identity = {
            "name": source.name,
            "source": source.label,
            "form": spec.form,
            "seed": spec.seed,
            "benchmarks": spec.exclude.labels if spec.exclude else [],
        }
        self.description = {**self._identity, "made_with": versions}
        self.planes = {"gt": {"scale": "1"}, **{lq_plane(scale): self._describe(scale) for scale in spec.scales}}
        files = [(each.name, each.gt.stamp) for each in source.images]
        self.plan = _digest([self._identity, spec.exclude.checksum if spec.exclude else None, files])
        self.job = _digest([self.plan, self.description, self.planes])

    def agrees_with(self, manifest: Mapping[str, Any], *, by_names: bool) -> bool:
        """Whether a data set is of the same images and options; it may have other scales.

        Args:
            manifest: of the data set; empty if there is none.
            by_names: compare names of what was prepared instead of files, since these are now its own.
        """
        if "plan" not in manifest:
            return False
        keys = ("scale", "degradation") if by_names else ("scale", "degradation", "given", "files")
        for plane, described in manifest["planes"].items():
            mine = self.planes.get(plane)
            if mine and any(mine.get(key) != described.get(key) for key in keys):
                return False
        lr = [
            each for planes in (manifest["planes"], self.planes) for name, each in planes.items() if name[:3] == "lq_"
        ]
        if any(each["degradation"] != lr[0]["degradation"] for each in lr):
            return False
        if by_names:
            return all(manifest.get(key) == value for key, value in self._identity.items())
        return bool(manifest["plan"] == self.plan)

    def _describe(self, scale: Fraction) -> dict[str, Any]:
        if self.spec.steps is not None:
            return {"scale": str(scale), "degradation": describe(self.spec.steps), "given": False}
        files = _digest([image.lq[scale].stamp for image in self.source.images])
        return {"scale": str(scale), "degradation": self.source.lq_made_by.get(scale), "given": True, "files": files}


def _fill(
    dataset: _PlannedDataset,
    folder: Path,
    progress_log: ProgressLog,
    workers: int,
    on_image: OnImage | None,
) -> dict[str, Any]:
    originals, spec = dataset.source.images, dataset.spec
    remove_leftovers(folder)
    writer = open_writer(spec.form, folder, dataset.planes)
    try:
        _resume(progress_log, writer.resume)
        if on_image:
            on_image(len(progress_log.records), len(originals))
        rest = originals[len(progress_log.records) :]
        for sample in build_samples(SampleBuilder(spec), rest, workers):
            if isinstance(sample, Sample):
                record = {**writer.append(sample.name, sample.sha256, sample.planes), "was": sample.was}
                record["bytes"] = {plane: image.nbytes for plane, image in sample.planes.items()}
            else:
                record = sample
            progress_log.add(record)
            if on_image:
                on_image(len(progress_log.records), len(originals))
        kept = [record for record in progress_log.records if "sha256" in record]
        manifest = _manifest(dataset, progress_log.records, kept)
        if not kept:
            first = next(iter({**manifest["bad"], **manifest["excluded"]}.values()), "no images")
            raise _NothingUsableError(
                f"{dataset.source.label}: has no image that can be used ({first})", code="prepare.nothing-usable"
            )
        writer.finish(kept, manifest)
    finally:
        writer.close()
    return manifest


def _resume(progress_log: ProgressLog, resume: Callable[[Sequence[Record]], int]) -> None:
    """Cut the progress log and the images after the last image that is intact in both."""
    written = [number for number, record in enumerate(progress_log.records) if "sha256" in record]
    intact = resume([progress_log.records[number] for number in written])
    if intact < len(written):
        progress_log.cut(written[intact])


@contextmanager
def _working_in(part: Path, target: Path) -> Iterator[None]:
    """Lock the working folder for one process, and remove it on success."""
    try:
        part.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(part / "lock", timeout=0)
        with lock:
            yield
    except filelock.Timeout as error:
        raise InputError(
            f"{target}: is being prepared by another process; wait for it, or stop it", code="prepare.in-use"
        ) from error
    except OSError as error:
        raise InputError(
            f"{target}: cannot write there ({error.strerror}); choose another --output", code="prepare.cannot-write"
        ) from error
    shutil.rmtree(part)


def _manifest(dataset: _PlannedDataset, records: Sequence[Record], kept: Sequence[Record]) -> dict[str, Any]:
    bad = {skip.name: skip.reason for skip in dataset.source.skipped}
    converted: dict[str, list[str]] = {}
    for record in kept:
        for kind in record["was"]:
            converted.setdefault(kind, []).append(record["name"])
    return {
        **dataset.description,
        "images": len(kept),
        "bytes": {plane: sum(record["bytes"][plane] for record in kept) for plane in dataset.planes},
        "bad": {**bad, **{record["name"]: record["bad"] for record in records if "bad" in record}},
        "excluded": {record["name"]: record["excluded"] for record in records if "excluded" in record},
        "ignored": dataset.source.ignored,
        "converted": converted,
        "warning": dataset.source.warning,
        "plan": dataset.plan,
        "planes": dataset.planes,
    }


def _report(path: Path, manifest: Mapping[str, Any], *, fresh: bool) -> PrepareReport:
    names = ("images", "bytes", "bad", "excluded", "ignored", "converted", "warning")
    return PrepareReport(path=path, fresh=fresh, **{name: manifest[name] for name in names})


def _manifest_of(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _digest(content: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
