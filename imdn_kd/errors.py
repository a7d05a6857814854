"""The one exception that users are meant to see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something the user gave cannot be used.

    Commands print it without a traceback and exit with code 2; Python callers catch it like any other ValueError.

    Args:
        lines: one for each thing that is wrong: what it is, with the name of the file or option, and what to do about
            it. Nearly always there is one.
        code: a stable key for programs and tests, `AREA.what-is-wrong`, as in `image.truncated`. Messages may be
            reworded; a code stays. An error of several lines has the code of its first line.
    """

    def __init__(self, *lines: str, code: str = "input") -> None:
        super().__init__(*lines)
        self.lines = lines
        self.code = code

    def __str__(self) -> str:
        return "\n".join(self.lines)


def join_errors(errors: Iterable[InputError]) -> InputError:
    """One error with the lines of several, each line once, and the code of the first."""
    errors = list(errors)
    return InputError(*dict.fromkeys(line for error in errors for line in error.lines), code=errors[0].code)


class Problems:
    """Collects what is wrong in several places, so that all of it is reported at once.

        with Problems() as problems:
            for name, value in options.items():
                with problems.at(name):
                    check(value)

    The block ends with an InputError if there were any: its lines begin with their places, and its code is that of the
    first.
    """

    def __init__(self) -> None:
        self._errors: list[InputError] = []

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Catch an InputError and put the place before its lines."""
        try:
            yield
        except InputError as error:
            self._errors.append(InputError(*(f"{place}: {line}" for line in error.lines), code=error.code))

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._errors:
            raise join_errors(self._errors)
