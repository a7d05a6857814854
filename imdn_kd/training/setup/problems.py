"""What is wrong with an option file, collected so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from imdn_kd.errors import InputError

Made = TypeVar("Made")


class Problems:
    """Lines of errors, each beginning with the option that it belongs to."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._codes: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._lines)

    @contextmanager
    def at(self, option: str) -> Iterator[None]:
        """Collect the InputError of a block."""
        try:
            yield
        except InputError as error:
            self.add((f"{option}: {line}" for line in error.lines), code=error.code)

    def of(self, option: str, make: Callable[[], Made]) -> Made | None:
        """Return what `make` returns; None if it raised an InputError, which is collected."""
        with self.at(option):
            return make()
        return None

    def add(self, lines: Iterable[str], *, code: str) -> None:
        """Collect lines that name their option already."""
        for line in lines:
            self._lines.append(line)
            self._codes.append(code)

    def extend(self, other: Problems) -> None:
        """Collect what another one has."""
        self._lines += other._lines
        self._codes += other._codes

    def check(self) -> None:
        """Raise what was collected.

        Raises:
            InputError: its code is that of the problems, or `train.several-problems` where these have different ones.
        """
        if self._lines:
            raise InputError(
                *self._lines, code="train.several-problems" if len(set(self._codes)) > 1 else self._codes[0]
            )
