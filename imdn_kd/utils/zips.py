"""Zip files of PyTorch: what they may unpack to."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

_SPARE = 2**26
_TIMES = 4
_LARGEST_PICKLE = 2**23


def inflates(file: BinaryIO) -> str | None:
    """Return why a zip file unpacks to more than a model of its size can be, as half a sentence; None if it does not.

    `torch.save` does not compress, so that its files unpack to what they are. Files that someone compressed later are
    let pass: up to four times the size of the file, and 64 MiB. The pickle, which makes many times its size in Python
    objects, is let pass up to 8 MiB. A file that is no zip file does not unpack at all.

    Args:
        file: a file, which is left at its start.
    """
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start != b"PK\3\4":
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return None  # reading says what is wrong
    finally:
        file.seek(0)
    if (total := sum(member.file_size for member in members)) > _TIMES * size + _SPARE:
        return f"{size} bytes that unpack to {total}"
    longest = max((member.file_size for member in members if member.filename.endswith(".pkl")), default=0)
    return f"a pickle of {longest} bytes" if longest > _LARGEST_PICKLE else None
