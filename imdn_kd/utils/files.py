"""Atomic writing of files, and checks of folders to write to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imdn_kd.errors import InputError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which is renamed to `target` on leaving.

    Missing parent folders are created. If the body raises (Ctrl-C included), the temporary file is removed and `target`
    stays as it was. The temporary name keeps the suffix of `target`, by which writers choose the format.

    Raises:
        InputError: `file.cannot-write`: the folder cannot be created or written to, disk full, name too long.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".part{target.suffix}", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(
            f"{target}: cannot write there ({error.strerror}); choose another output folder", code="file.cannot-write"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a finished output gets the permissions any new file would have.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot write it ({error.strerror or error})", code="file.cannot-write") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, deep: bool = True) -> None:
    """Remove temporary files that `atomic_path` left in `folder` when a process was killed.

    No other process may be writing there.

    Args:
        folder: the folder.
        deep: include the folders inside.
    """
    for path in folder.glob("**/.*.part*" if deep else ".*.part*"):
        path.unlink(missing_ok=True)


def check_folder(target: Path) -> None:
    """Check before long work that `target` can be written after it.

    Raises:
        InputError: `file.cannot-write`: the folder of `target`, or the nearest existing one above, is no folder or
            read-only.
    """
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot write there; choose another output folder", code="file.cannot-write")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
