"""What models are called in tables and reports: students by name, files of a run by that of the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_OF_RUNS = "net_g_"
"""Begins the names of the model files of a run, `experiments/RUN/models/net_g_latest.safetensors`."""


def name_of(model: str | Path) -> str:
    """The name of a model alone; see `names_of`."""
    return names_of([model])[0]


def names_of(models: Sequence[str | Path]) -> list[str]:
    """Names of models, as short as tells them apart.

    Args:
        models: names of students, which stay as they are, or paths of model files.

    Returns:
        For a file of a run the name of the run, with which of its files it is if there are several of the run; for
        other files their stem; the whole path for those that would have one name.
    """
    found = [_shortest_first(model) for model in models]
    names = [forms[0] for forms in found]
    for place in (1, 2):
        counts = Counter(names)
        names = [
            forms[min(place, len(forms) - 1)] if counts[name] > 1 else name
            for name, forms in zip(names, found, strict=True)
        ]
    return names


def _shortest_first(model: str | Path) -> list[str]:
    path = Path(model)
    if not path.is_file():
        return [str(model)]
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - a linked folder is called what the user calls it
    run, which = whole.parent.parent.name, path.stem.removeprefix(_OF_RUNS)
    if whole.parent.name == "models" and which != path.stem and run:
        return [run, f"{run} ({which})", str(model)]
    return [path.stem, str(model)]
