"""Text: files that users write, and messages on one line."""

from __future__ import annotations

import codecs
import logging
import re
import unicodedata
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


def printable(text: str) -> str:
    r"""Return text with escapes, as `\x1b`, for what would steer a terminal or cannot be encoded.

    These are control characters, line breaks among them, what changes the direction of writing, and the bytes of file
    names that are not text.
    """
    return "".join(_escaped(letter) if _steers(letter) else letter for letter in text)


def printable_lines(text: str) -> str:
    """As `printable`, where line breaks and tabs stay."""
    return re.sub(r"[^\n\t]+", lambda part: printable(part[0]), text)


class PrintableFormatter(logging.Formatter):
    """Formats records of a log for a terminal or a text file; see `printable_lines`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return printable_lines(super().format(record))


def _steers(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in _DIRECTIONS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Of https://www.unicode.org/reports/tr9/, section 2; marks (LRM, RLM) and joiners belong to ordinary text."""


def one_line(message: str) -> str:
    """Return `message` without line breaks, which file names and library errors may contain."""
    return " ".join(message.splitlines())
