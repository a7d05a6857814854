"""The folder of a run, `experiments/NAME`: what lies where, and the record of how the run was made."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
import torch

from imdn_kd import __version__
from imdn_kd.errors import InputError
from imdn_kd.training.checkpoint import abandon_newer_states
from imdn_kd.utils.files import atomic_path, remove_leftovers

_PACKAGES = ("torch", "numpy", "accelerate", "basicsr", "pillow", "scikit-image", "safetensors")


@dataclass(frozen=True)
class RunFolder:
    """Paths in the folder of a run, those of BasicSR.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @property
    def models(self) -> Path:
        """`net_g_ITER.pth` as in BasicSR, and model files: `net_g_latest.safetensors` and the best ones."""
        return self.path / "models"

    def model_file(self, which: str) -> Path:
        """A model file: `latest`, `best_psnr`, `best_ssim`."""
        return self.models / f"net_g_{which}.safetensors"

    @property
    def states(self) -> Path:
        """`ITER.state`: everything that training needs to resume."""
        return self.path / "training_states"

    @property
    def visualization(self) -> Path:
        """Enlarged images, in a folder for each iteration at which they were made."""
        return self.path / "visualization"

    @property
    def metrics(self) -> Path:
        """Losses and scores, a JSON record a line."""
        return self.path / "metrics.jsonl"

    @property
    def record(self) -> Path:
        """Options, versions and data, for each time that the run was begun or resumed."""
        return self.path / "run.json"

    @property
    def published(self) -> Path:
        """At which iteration the run was published the last time: JSON."""
        return self.path / "published.json"

    def published_at(self) -> int | None:
        """The iteration at which the run was published the last time; None if it was not, or if the file is damaged."""
        try:
            found = json.loads(self.published.read_text(encoding="utf-8"))["iteration"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if isinstance(found, int) else None

    def check_free(self) -> None:
        """Refuse a folder where another run writes, without making anything; see `lock`."""
        if self._lock_path.exists():
            self.lock().release()

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    def lock(self) -> filelock.BaseFileLock:
        """Keep other runs out of the folder until the result is released or this process ends.

        Raises:
            InputError: one is there, or the lock, a file beside the folder, cannot be made.
        """
        lock = filelock.FileLock(self._lock_path, timeout=0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise InputError(
                f"{self.path}: another run writes there; wait for its end, or give another name",
                code="run.in-use",
            ) from error
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot write there ({error.strerror}); choose another --root", code="run.cannot-write"
            ) from error
        if not self._lock_path.exists():
            # `give_up` removed the file between its opening and its locking: a lock of that file keeps nobody out.
            lock.release()
            return self.lock()
        return lock

    def give_up(self, lock: filelock.BaseFileLock) -> None:
        """Release the lock of a run that may not have begun; if it has not, nothing is left of it."""
        if not self.path.exists():
            with suppress(OSError):  # a folder that holds other runs stays
                self._lock_path.unlink()
                self.path.parent.rmdir()
        lock.release()

    def begin(self, *, resumed: bool, step: int) -> Path | None:
        """Make the folder; a run that is there already is renamed, unless it is to be resumed.

        Args:
            resumed: whether a run that is there is to be resumed.
            step: iteration of the state; later ones are abandoned.

        Returns:
            What an older run is called now, if there was one.

        Raises:
            InputError: the folder cannot be made.
        """
        archived = None
        try:
            if self.path.exists() and not resumed:
                archived = self._rename()
            for folder in (self.models, self.states):
                folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
            abandon_newer_states(self.states, step)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot write there ({error.strerror}); choose another --root", code="run.cannot-write"
            ) from error
        return archived

    def archive(self) -> Path:
        """Rename a run that is there, as `begin` does; returns what it is called now.

        Raises:
            InputError: another run writes there, or it cannot be renamed.
        """
        lock = self.lock()
        try:
            return self._rename()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be renamed ({error.strerror}); choose another --root", code="run.cannot-write"
            ) from error
        finally:
            lock.release()

    def _rename(self) -> Path:
        stamp = time.strftime("%Y%m%d_%H%M%S")
        names = (f"{self.path.name}_archived_{stamp}{more}" for more in ("", *(f"_{n}" for n in range(2, 100))))
        archived = next(path for name in names if not (path := self.path.with_name(name)).exists())
        return self.path.rename(archived)

    def first_weights(self) -> str | None:
        """SHA-256 of the weights that the run began with; None if they were random ones, or if none was begun.

        Raises:
            InputError: `run.json` cannot be read.
        """
        try:
            return first_weights(json.loads(self.record.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{self.record}: is damaged; restore it, or move the folder away", code="run.damaged"
            ) from error

    def note(self, entry: Mapping[str, Any]) -> None:
        """Add an entry to the record, with the time, versions, machine and git state."""
        try:
            entries = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            entries = []
        entries.append({**entry, **_surroundings()})
        with atomic_path(self.record) as temporary:
            temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def beginning(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The entry of `run.json` of when the run was begun, the last time; None if it resumed from a state of another."""
    return next((entry for entry in reversed(entries) if entry["step"] == 0), None)


def first_weights(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """SHA-256 of the weights that a run began with, if they are known."""
    begun = beginning(entries)
    found: str | None = None if begun is None else begun.get("first_weights")
    return found


def _surroundings() -> dict[str, Any]:
    # That of an editable installation is the one it was made at.
    versions = {"imdn_kd": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"system": platform.platform(), "gpus": gpus, "threads": torch.get_num_threads()},
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit of the working folder and whether it has changes; None outside a checkout or without git."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603, S607
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "changed": bool(changes.strip())}
