"""Printing: names of files must not steer the terminal."""

from __future__ import annotations

import sys

from imdn_kd.utils.text import printable, printable_lines


def say(text: str) -> None:
    """Print text, of one line or several, to standard output at once."""
    print(_encodable(printable_lines(text), sys.stdout.encoding), flush=True)


def complain(message: str) -> None:
    """Print a message of one line to the error stream."""
    print(_encodable(f"imdn-kd: {printable(message)}", sys.stderr.encoding), file=sys.stderr)


def _encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
