"""Names for things that option files and model files can ask for: networks, losses, data sets, metrics."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from imdn_kd.errors import InputError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """A table from a name to whatever builds the thing of that name.

    Args:
        kind: what the entries are, for messages ("network").
        home: the package whose import fills the table; imported on first use, so that a registry costs nothing until
            asked.
    """

    def __init__(self, kind: str, home: str) -> None:
        self.kind = kind
        self._home = home
        self._builders: dict[str, Callable[..., T]] = {}

    def register(self, builder: F) -> F:
        """Add `builder` under its own name (decorator). A name can be taken once."""
        name = builder.__name__
        if name in self._builders:
            raise ValueError(f"the {self.kind} {name!r} is registered already")
        self._builders[name] = builder
        return builder

    def get(self, name: str) -> Callable[..., T]:
        """Return the builder called `name`; raises InputError with the nearest names where there is none."""
        importlib.import_module(self._home)
        if name in self._builders:
            return self._builders[name]
        near = difflib.get_close_matches(name, self._builders, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self)}"
        raise InputError(f"no {self.kind} is called {name!r}; {hint}")

    def build(self, spec: Mapping[str, Any]) -> T:
        """Build from `{"type": name, **keywords}`.

        Raises:
            InputError: no `type`, an unknown name, a keyword that the builder does not take, or a value that it cannot
                use.
        """
        keywords = dict(spec)
        name = keywords.pop("type", None)
        if not isinstance(name, str):
            raise InputError(f"a {self.kind} needs a `type`; known: {', '.join(self)}")
        builder = self.get(name)
        accepted = inspect.signature(builder).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            for key in keywords:
                if key not in accepted:
                    raise InputError(f"the {self.kind} {name!r} has no option {key!r}; it takes: {', '.join(accepted)}")
        try:
            return builder(**keywords)
        except (TypeError, ValueError, RuntimeError) as error:
            given = ", ".join(f"{key}: {value}" for key, value in keywords.items())
            raise InputError(f"the {self.kind} {name!r} cannot be built with {given}; correct the values") from error

    def __iter__(self) -> Iterator[str]:
        importlib.import_module(self._home)
        return iter(sorted(self._builders))


ARCHS: Registry[Any] = Registry("network", "imdn_kd.archs")
DATASETS: Registry[Any] = Registry("data set", "imdn_kd.data.datasets")
