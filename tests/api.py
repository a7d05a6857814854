"""The public names of `imdn_kd` with their signatures, as text; `make api` writes them anew.

A name that is renamed, removed or called in another way changes the text, and `tests/test_api.py` fails until
`tests/api.txt` says the same. What changes there belongs into the changelog.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import imdn_kd

SNAPSHOT = Path(__file__).with_name("api.txt")


def described(name: str, value: object) -> Iterator[str]:
    """The lines of a name: a function, a class with what it announces, or a module with the names that it announces."""
    if inspect.ismodule(value):
        yield from (f"{name}.{inner}{_signature(getattr(value, inner))}" for inner in value.__all__)
        return
    yield f"{name}{_signature(value)}"
    if not inspect.isclass(value):
        return
    fields = getattr(value, "__dataclass_fields__", {})
    yield from (f"{name}.{field}: {described.type}" for field, described in fields.items())
    for inner in filter(_public, dir(value)):
        # What PyTorch gives its modules, and Python its errors, is theirs.
        home = next(each for each in value.__mro__ if inner in vars(each))
        if inner not in fields and home.__module__.startswith("imdn_kd"):
            member = getattr(value, inner)
            yield f"{name}.{inner}{_signature(member) if callable(member) else ''}"


def _public(name: str) -> bool:
    return not name.startswith("_") or name == "__call__"


def _signature(value: object) -> str:
    return str(inspect.signature(value))


def snapshot() -> str:
    """All lines, sorted."""
    names = (name for name in imdn_kd.__all__ if name != "__version__")
    lines = {line for name in names for line in described(name, getattr(imdn_kd, name))}
    return "".join(f"{line}\n" for line in sorted(lines))


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
