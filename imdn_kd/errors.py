"""The one exception that users are meant to see."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, with the name of the file or option, and what to do about it. Commands print
    it without a traceback and exit with code 2; Python callers catch it like any other exception.
    """
