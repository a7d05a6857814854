"""Reference of what `distill.objectives` may hold: Markdown made from the docstrings of losses and loss terms."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from imdn_kd.losses.base import FeatureLoss, PixelLoss
from imdn_kd.registry import LOSS_TERMS, LOSSES, Registry

OF_ALL_TERMS = ("name", "weight", "at", "at_weights")
"""Arguments that stand elsewhere in option files: as keys of sections, `loss_weight`, `taps` and `tap_weights`."""

_SECTIONS = ("Args", "Raises", "Attributes", "Returns")


def loss_term_reference() -> str:
    """Describe every `type` in Markdown: a heading, what it compares, and a table of its options."""
    kinds = {
        "Losses between the outputs of student and teacher": [name for name in LOSSES if _is(LOSSES, name, PixelLoss)],
        "Losses between their features, `taps`": [name for name in LOSSES if _is(LOSSES, name, FeatureLoss)],
        "Losses of more than two images": [name for name in LOSSES if not _is(LOSSES, name, PixelLoss, FeatureLoss)],
        "Loss terms": list(LOSS_TERMS),
    }
    more = (
        "Beside their own options all take `loss_weight`, `start_iter`, ..., those between features `taps`: see "
        "`imdn-kd options docs train`."
    )
    parts = [f"# What `distill.objectives` may hold\n\n{more}\n"]
    for title, names in kinds.items():
        parts.append(f"## {title}\n")
        for name in names:
            builder = (LOSS_TERMS if name in LOSS_TERMS else LOSSES).get(name)
            parts.append(f"### `{name}`\n\n{_described(builder)}")
    return "\n".join(parts)


def _is(registry: Registry[Any], name: str, *kinds: type) -> bool:
    builder = registry.get(name)
    return inspect.isclass(builder) and issubclass(builder, kinds)


def _described(builder: Callable[..., Any]) -> str:
    about, *rest = re.split(rf"^({'|'.join(_SECTIONS)}):\n", inspect.getdoc(builder) or "", flags=re.MULTILINE)
    sections = dict(zip(rest[::2], rest[1::2], strict=True))
    options = re.findall(r"^    (\w+): ((?:.|\n(?:     |\n))*)", sections.get("Args", ""), re.MULTILINE)
    options = [(name, text) for name, text in options if name not in OF_ALL_TERMS]
    if not options:
        return f"{about.strip()}\n"
    defaults = {name: parameter.default for name, parameter in inspect.signature(builder).parameters.items()}
    rows = [f"| `{name}` | {_value(defaults[name])} | {_cell(text)} |" for name, text in options]
    return "\n".join([about.strip(), "", "| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _value(default: object) -> str:
    if default is None:
        return "`~`"
    return f"`[{', '.join(map(str, default))}]`" if isinstance(default, tuple) else f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
