"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imdn_kd.errors import InputError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `target`; on leaving, rename it to `target`.

    Missing parent folders are made. If the body raises (Ctrl-C included), the temporary file is removed and whatever
    stood at `target` before is untouched. The temporary name keeps the suffix of `target`, since writers choose the
    format by it.

    Raises:
        InputError: the folder cannot be made or written to, or the file cannot be written (disk full, name too long).
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
    """Remove the temporary files that `atomic_path` leaves in `folder` when the process is killed.

    Nobody else may be writing there.

    Args:
        folder: where.
        deep: also in the folders inside.
    """
    for path in folder.glob("**/.*.part*" if deep else ".*.part*"):
        path.unlink(missing_ok=True)


def check_folder(target: Path) -> None:
    """Refuse before long work what could not be written after it.

    Raises:
        InputError: the folder of `target`, or the nearest one above it that exists, is no folder or is read-only.
    """
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot write there; choose another output folder", code="file.cannot-write")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
