"""Options on the command line, as `--set train.optim_g.lr=1e-4`, that replace those of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imdn_kd.config.yaml import Document
from imdn_kd.errors import InputError


@dataclass(frozen=True)
class Override:
    """A value, and the nested keys at which it goes; items of lists by their number from 0."""

    keys: tuple[str, ...]
    value: Any

    @property
    def name(self) -> str:
        """What stands in messages in place of file and line."""
        return f"--set {'.'.join(self.keys)}"


def parse_override(text: str) -> Override:
    """Read `KEY.KEY=VALUE`; the value is read as it would be in a file.

    Raises:
        InputError: there is no `=`, a key is empty, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    path = " ".join(path.split())
    if not equals:
        raise InputError(
            f"--set {path}: has no value; write KEY=VALUE, as in train.optim_g.lr=1e-4", code="options.override-syntax"
        )
    keys = tuple(path.split("."))
    if not all(keys):
        raise InputError(
            f"--set {path}=: has an empty key; write KEY=VALUE, as in train.optim_g.lr=1e-4",
            code="options.override-syntax",
        )
    document = Document(value, lambda _: f"--set {path}")
    if document.duplicate_keys:
        raise InputError(
            *(f"--set {path}: {key.key!r} is given twice; keep one" for key in document.duplicate_keys),
            code="options.duplicate-key",
        )
    return Override(keys, document.content)


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[InputError]]:
    """The overrides that can be read, in their order, and an error for each of the others."""
    overrides: list[Override] = []
    wrong: list[InputError] = []
    for text in texts:
        try:
            overrides.append(parse_override(text))
        except InputError as error:
            wrong.append(error)
    return overrides, wrong


def apply_overrides(overrides: Sequence[Override], content: Any) -> tuple[Any, list[Override], list[InputError]]:  # noqa: ANN401
    """Replace options; sections that are not there are made. `content` itself is not changed.

    Returns:
        The options; the overrides that were applied; and an error for each of the others, whose keys lead into
        something that is neither a section nor a list, or to no item of a list.
    """
    done: list[Override] = []
    wrong: list[InputError] = []
    for override in overrides:
        try:
            content = _replaced(content, override, 0)
            done.append(override)
        except InputError as error:
            wrong.append(error)
    return content, done, wrong


def _replaced(content: Any, override: Override, depth: int) -> Any:  # noqa: ANN401
    if depth == len(override.keys):
        return override.value
    key = override.keys[depth]
    if isinstance(content, list):
        number = {str(number): number for number in range(len(content))}.get(key)
        if number is None:
            there = f"items 0 to {len(content) - 1}" if content else "no items"
            raise InputError(
                f"{override.name}: {_name(override, depth)} is a list with {there}; give the number of one",
                code="options.override-path",
            )
        return [*content[:number], _replaced(content[number], override, depth + 1), *content[number + 1 :]]
    if content is not None and not isinstance(content, dict):
        inside = _name(override, depth)
        raise InputError(
            f"{override.name}: {inside} is no section, but {content!r}; give {inside} itself",
            code="options.override-path",
        )
    section = content or {}
    known: Any = next((each for each in section if str(each) == key), _typed(key))
    return {**section, known: _replaced(section.get(known), override, depth + 1)}


def _typed(key: str) -> str | int:
    """A key as a file would have it, where `4:` is a number."""
    return int(key) if re.fullmatch("[0-9]{1,9}", key) else key


def _name(override: Override, depth: int) -> str:
    return ".".join(override.keys[:depth])


def named_by(overrides: Sequence[Override], keys: Sequence[object], depth: int) -> Override | None:
    """The override that has put the value at nested keys there, if one has.

    Args:
        overrides: in the order in which they were applied.
        keys: of the value.
        depth: how many of the keys the file itself has.
    """
    texts = tuple(map(str, keys))
    for override in reversed(overrides):
        if texts[: len(override.keys)] == override.keys:
            return override
    # What is missing in a section that only overrides have made, is missing in one of these.
    section = texts[:-1]
    for override in reversed(overrides) if depth < len(section) else ():
        if override.keys[: len(section)] == section:
            return override
    return None
