"""Opening LMDB folders: with errors that can be read, and at most once in a process."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from imdn_kd.errors import InputError

DATA = "data.mdb"
META = "meta_info.txt"

Environment: TypeAlias = Any
"""What `lmdb.open` returns; the package comes without types."""

# A file must not be opened twice in one process (newer releases of lmdb refuse it), so that readers share what is open.
_opened: WeakValueDictionary[Path, Environment] = WeakValueDictionary()
_one_opens = threading.Lock()


def _forget_the_parent() -> None:
    """Close what the parent process has opened: it must not be used here, and keeps the file from being opened here."""
    global _one_opens
    _one_opens = threading.Lock()
    for environment in list(_opened.values()):
        environment.close()
    _opened.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_the_parent)


def import_lmdb() -> ModuleType:
    """Return the package `lmdb`; raises InputError where it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise InputError("LMDB folders need the package lmdb; install imdn_kd[train] (or lmdb)") from error
    module: ModuleType = lmdb
    return module


def lmdb_folder(path: Path | str) -> Path:
    """Return `path` if its name is one that BasicSR takes for LMDB, else raise InputError."""
    path = Path(path)
    if path.suffix != ".lmdb":
        raise InputError(f"{path}: is not the name of an LMDB folder; give one that ends in .lmdb")
    return path


def open_to_read(path: Path) -> Environment:
    """Return the environment of a folder, the same to everyone in this process for as long as anyone keeps it.

    Raises:
        InputError: the file is absent, damaged or cut short, or opened by other code of this process.
    """
    lmdb = import_lmdb()
    with _one_opens:
        where = path.resolve()
        environment = _opened.get(where)
        if environment is None:
            try:
                # Read-only and without locks, like BasicSR: works on read-only disks, and for any number of processes.
                environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False)
                _require_whole(path, environment)
            except (lmdb.Error, OSError) as error:
                raise damaged(path, error) from error
            _opened[where] = environment
    return environment


def _require_whole(path: Path, environment: Environment) -> None:
    """Refuse a file that was cut short: reading what it lacks would end the process, without a message."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (path / DATA).stat().st_size
    if found < needed:
        environment.close()
        raise InputError(f"{path / DATA}: is cut short ({found} bytes of {needed}); copy or make the folder again")


def damaged(path: Path, error: Exception) -> InputError:
    """Return what to tell of an error of LMDB while reading."""
    reason = " ".join(str(error).split()).rstrip(".")
    advice = "close it there first" if "already open" in reason else "copy or make the folder again"
    return InputError(f"{path / DATA}: cannot be read ({reason}); {advice}")
