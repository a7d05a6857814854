"""Text: files that users write, and messages on one line."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_text(path: Path | str) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark, as Windows writes it; the mark is left out.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not text.
    """
    data = Path(path).read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig")


def one_line(message: str) -> str:
    """Return `message` without line breaks, which file names and library errors may contain."""
    return " ".join(message.splitlines())
