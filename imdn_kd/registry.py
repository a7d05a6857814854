"""Names for things that option files and model files can ask for: networks, losses, data sets, metrics."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from imdn_kd.errors import InputError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


_importing: list[str] = []


@contextmanager
def importing(name: str) -> Iterator[None]:
    """While this block runs, what is registered comes from the user's module of this name."""
    _importing.append(name)
    try:
        yield
    finally:
        _importing.pop()


class Registry(Generic[T]):
    """A table from a name to whatever builds the thing of that name.

    Args:
        kind: what the entries are, for messages ("network").
        home: the package whose import fills the table; imported on first use, so that a registry costs nothing until
            asked.
        outside: modules that know further entries by `find(name)` (a builder or None), with their `names()` and with
            `advice()` on how to get at them, if any is needed; imported when a name is not in the table.
        finish: a module whose `finish(built, spec)` completes what the user's builders make.
    """

    def __init__(self, kind: str, home: str, outside: Sequence[str] = (), finish: str | None = None) -> None:
        self.kind = kind
        self._home = home
        self._outside = outside
        self._finish = finish
        self._builders: dict[str, Callable[..., T]] = {}
        self._sources: dict[str, str] = {}

    def register(self, builder: F) -> F:
        """Add `builder` under its own name (decorator). A name can be taken once."""
        name = builder.__name__
        if name in self._builders:
            raise ValueError(f"the {self.kind} {name!r} is registered already")
        self._builders[name] = builder
        if _importing:
            self._sources[name] = _importing[-1]
        return builder

    def source(self, name: str) -> str | None:
        """The module of the user, as named in `imports` or `--import`, that registered a name; None for our own."""
        return self._sources.get(name)

    def get(self, name: str) -> Callable[..., T]:
        """Return the builder called `name`; raises InputError with the nearest names where there is none."""
        importlib.import_module(self._home)
        if name in self._builders:
            return self._builders[name]
        known, advice = list(self), []
        for module in self._outside:
            outside = importlib.import_module(module)
            found: Callable[..., T] | None = outside.find(name)
            if found is not None:
                return found
            known += outside.names()
            advice.append(outside.advice())
        # The same letters in another case, then in another order, come before other near names.
        alike = [other for other in known if other.casefold() == name.casefold()]
        alike += [other for other in known if sorted(other) == sorted(name)]
        near = alike or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self)}"
        line = "; ".join(filter(None, (f"no {self.kind} is called {name!r}", hint, *advice)))
        raise InputError(line, code="registry.unknown-name")

    def build(self, spec: Mapping[str, Any]) -> T:
        """Build from `{"type": name, **keywords}`.

        Raises:
            InputError: no `type`, an unknown name, a keyword that the builder does not take, one that it lacks, or a
                value that it cannot use.
        """
        keywords = dict(spec)
        name = keywords.pop("type", None)
        if not isinstance(name, str):
            raise InputError(f"a {self.kind} needs a `type`; known: {', '.join(self)}", code="registry.no-type")
        builder = self.get(name)
        accepted = inspect.signature(builder).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            for key in keywords:
                if key not in accepted:
                    raise InputError(
                        f"the {self.kind} {name!r} has no option {key!r}; it takes: {', '.join(accepted) or 'none'}",
                        code="registry.unknown-option",
                    )
        named = [p for p in accepted.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        missing = next((p.name for p in named if p.default is p.empty and p.name not in keywords), None)
        if missing is not None:
            raise InputError(
                f"the {self.kind} {name!r} needs the option {missing!r}; it takes: {', '.join(accepted) or 'none'}",
                code="registry.missing-option",
            )
        try:
            built = builder(**keywords)
            if self._finish is None or name not in self._sources:
                return built
            bound = inspect.signature(builder).bind(**keywords)
            bound.apply_defaults()
            finished: T = importlib.import_module(self._finish).finish(built, {"type": name, **bound.arguments})
            return finished
        except InputError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            given = ", ".join(f"{key}: {value}" for key, value in keywords.items())
            raise InputError(
                f"the {self.kind} {name!r} cannot be built with {given}; correct the values",
                code="registry.invalid-value",
            ) from error

    def __iter__(self) -> Iterator[str]:
        """The names of the table, sorted; not those from outside."""
        importlib.import_module(self._home)
        return iter(sorted(self._builders))


ARCHS: Registry[Any] = Registry(
    "network",
    "imdn_kd.archs",
    outside=("imdn_kd.integrations.spandrel", "imdn_kd.integrations.basicsr_networks"),
    finish="imdn_kd.archs.wrapping",
)
DATASETS: Registry[Any] = Registry("data set", "imdn_kd.data.datasets")
LOSSES: Registry[Any] = Registry("loss", "imdn_kd.losses")
LOSS_TERMS: Registry[Any] = Registry("loss term", "imdn_kd.distill.all_terms")
