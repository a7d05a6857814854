"""Atomic writing of files, and checks of folders to write to."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imdn_kd.errors import InputError


@contextmanager
def atomic_path(target: Path | str, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which becomes `target` on leaving.

    Missing parent folders are created. If the body raises (Ctrl-C included), the temporary file is removed and `target`
    stays as it was. The temporary name keeps the suffix of `target`, by which writers choose the format.

    Args:
        target: the file.
        overwrite: replace a file of that name; otherwise one that is there on leaving stays, whoever made it.

    Raises:
        InputError: `file.cannot-write`: the folder cannot be created or written to, disk full, name too long;
            `file.exists`: there is a file, and `overwrite` is false.
    """
    target = Path(target)
    temporary = target.parent / f".{secrets.token_hex(8)}.part{target.suffix}"
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)  # which gives it the permissions of any new file
        except OSError as error:
            raise InputError(
                f"{target}: cannot write there ({error.strerror}); choose another output folder",
                code="file.cannot-write",
            ) from error
        try:
            yield temporary
            if overwrite:
                temporary.replace(target)
            else:
                _rename_to_new(temporary, target)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{target}: cannot write it ({reason})", code="file.cannot-write") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _rename_to_new(path: Path, target: Path) -> None:
    """Rename a file to a name that no file has; looking for one first would miss one that appears in between."""
    try:
        _link(path, target)
    except FileExistsError as error:
        raise InputError(
            f"{target}: exists already; choose another name or allow overwriting", code="file.exists"
        ) from error


def _link(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as FAT
        target.touch(exist_ok=False)
        try:
            path.replace(target)
        except BaseException:
            target.unlink()
            raise


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
        InputError: `file.cannot-write`: the folder of `target`, or the nearest existing one above, is no folder, may
            not be entered or written to; or a name is too long for the file system.
    """
    folder = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot write there; choose another output folder", code="file.cannot-write")
    for name in target.absolute().relative_to(folder).parts:
        try:
            (folder / name).lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(
                f"{target}: cannot write it ({error.strerror}); choose a shorter name", code="file.cannot-write"
            ) from error
