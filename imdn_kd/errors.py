"""The exception that users are meant to see, and a collector of several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """Something the user gave cannot be used.

    Commands print it without a traceback and exit with code 2; Python callers catch it like any other ValueError.

    Args:
        lines: one for each thing that is wrong: what it is, with the name of the file or option, and what to do about
            it. Nearly always there is one.
        code: a stable key for programs and tests, `AREA.what-is-wrong`, as in `image.truncated`. Messages may be
            reworded; a code stays. An error of several lines has the code of its first line.
    """

    def __init__(self, *lines: str, code: str) -> None:
        super().__init__(*lines)
        self.lines = lines
        self.code = code

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), code=self.code), self.lines


@contextmanager
def naming(place: object) -> Iterator[None]:
    """Let the lines of an InputError of this block begin with a place, say a file, unless they name it already."""
    try:
        yield
    except InputError as error:
        lines = (line if str(place) in line else f"{place}: {line}" for line in error.lines)
        raise InputError(*lines, code=error.code) from error


def join_errors(errors: Iterable[InputError]) -> InputError:
    """One error with the lines of several, each line once, and the code of the first."""
    errors = list(errors)
    return InputError(*dict.fromkeys(line for error in errors for line in error.lines), code=errors[0].code)


class Problems:
    """Collects InputErrors with the places that they belong to, so that all of them are reported at once.

        with Problems() as problems:
            for name, value in options.items():
                with problems.at(name):
                    check(value)

    The outer block ends with what `check` raises.

    Args:
        most: lines of the error, of which the last one then counts the others; None is no limit.
    """

    def __init__(self, most: int | None = None) -> None:
        self._errors: list[InputError] = []
        self._most = most

    def __bool__(self) -> bool:
        return bool(self._errors)

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.check()

    @contextmanager
    def at(self, place: str = "") -> Iterator[None]:
        """Collect the InputError of a block; its lines get the place, such as an option, before them."""
        try:
            yield
        except InputError as error:
            lines = (f"{place}: {line}" for line in error.lines) if place else error.lines
            self._errors.append(InputError(*lines, code=error.code))

    def of(self, place: str, make: Callable[[], T]) -> T | None:
        """Return what `make` returns; None if it raised an InputError, which is collected."""
        with self.at(place):
            return make()
        return None

    def add(self, lines: Iterable[str], *, code: str) -> None:
        """Collect lines that name their place already."""
        self._errors += [InputError(line, code=code) for line in lines]

    def extend(self, other: Problems) -> None:
        """Collect what another one has."""
        self._errors += other._errors

    def check(self) -> None:
        """Raise an InputError of what was collected; see `join_errors`."""
        if not self._errors:
            return
        error = join_errors(self._errors)
        more = 0 if self._most is None else len(error.lines) - self._most
        raise InputError(*error.lines[: self._most], f"and {more:,} more", code=error.code) if more > 0 else error
