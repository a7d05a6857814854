"""The one exception that users are meant to see."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used.

    Commands print it without a traceback and exit with code 2; Python callers catch it like any other ValueError.

    Args:
        lines: one for each thing that is wrong: what it is, with the name of the file or option, and what to do about
            it. Nearly always there is one.
        code: a stable key for programs and tests, `AREA.what-is-wrong`, as in `image.truncated`. Messages may be
            reworded; a code stays.
    """

    def __init__(self, *lines: str, code: str = "input") -> None:
        super().__init__(*lines)
        self.lines = lines
        self.code = code

    def __str__(self) -> str:
        return "\n".join(self.lines)
