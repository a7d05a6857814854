"""Faults that pydantic finds in options, in the terms of an option file: one for each key, with a code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imdn_kd.errors import InputError

UNKNOWN = "unknown_option"
"""Type of the errors about keys that the schema does not have; their place ends with the key."""


@dataclass(frozen=True)
class ConfigError:
    """A fault in the options.

    Attributes:
        keys: nested keys of the value; the last one may be missing.
        section: the part of the keys that begins the message.
        reason: what is wrong, on one line.
        code: as in `InputError`.
    """

    keys: tuple[Any, ...]
    section: tuple[Any, ...]
    reason: str
    code: str

    def __str__(self) -> str:
        section = " ".join(".".join(map(str, self.section)).split())
        return f"{section}: {self.reason}" if section else self.reason


def config_errors(content: Any, errors: Sequence[Any]) -> list[ConfigError]:  # noqa: ANN401 - whatever YAML holds
    """The faults that `ValidationError.errors()` lists, by the keys of the file.

    pydantic's location of an error mixes the keys of the file with the types that it tried for a value. Of a value
    that may be of several types, only the faults under the best-fitting type are reported.

    Args:
        content: what was validated.
        errors: of pydantic.
    """
    return _sorted_out(content, [(tuple(error["loc"]), error) for error in errors], ())


def _sorted_out(content: Any, found: list[tuple[Any, Any]], keys: tuple[Any, ...]) -> list[ConfigError]:  # noqa: ANN401
    problems = []
    inside: dict[Any, list[tuple[Any, Any]]] = {}
    kinds: dict[Any, list[tuple[Any, Any]]] = {}
    for place, error in found:
        if not place:
            problems.append(_config_error(keys, error))
        elif len(place) == 1 and error["type"] == "missing":
            problems.append(_config_error((*keys, place[0]), error))
        else:
            groups = kinds if _key(content, place[0]) is None else inside
            groups.setdefault(place[0], []).append((place[1:], error))
    for part, group in inside.items():
        key = _key(content, part)
        assert key is not None  # noqa: S101
        problems += _sorted_out(content[key[0]], group, (*keys, key[0]))
    if kinds:
        best = max(kinds.values(), key=lambda group: (max(len(place) for place, _ in group), -len(group)))
        problems += _sorted_out(content, best, keys)
    return problems


_WORDS = {
    ("missing",): "is missing",
    ("model_type", "model_attributes_type", "dict_type", "mapping_type"): "is to be a section of options",
    ("list_type", "tuple_type"): "is to be a list",
    ("string_type",): "is to be text",
    ("bool_type", "bool_parsing"): "is to be true or false",
    ("int_type", "int_parsing", "int_parsing_size", "int_from_float"): "is to be a whole number",
    ("float_type", "float_parsing"): "is to be a number",
    ("finite_number",): "is to be a finite number",
    ("greater_than",): "is to be more than {gt}",
    ("greater_than_equal",): "is to be at least {ge}",
    ("less_than",): "is to be less than {lt}",
    ("less_than_equal",): "is to be at most {le}",
    ("literal_error", "enum"): "is to be {expected}",
    ("union_tag_invalid",): "is to be one of {expected_tags}",
    ("too_short",): "has too few entries; give at least {min_length}",
    ("too_long",): "has too many entries; give at most {max_length}",
    ("string_too_short",): "is too short; give at least {min_length} characters",
    ("string_too_long",): "is too long; give at most {max_length} characters",
    ("invalid_key",): "has keys that are no names",
}
"""What is said of an error instead of pydantic's message, by its type; braces hold what pydantic knows of it."""

_SAID = {kind: words for kinds, words in _WORDS.items() for kind in kinds}


def in_words(error: Any) -> str:  # noqa: ANN401 - a private type of pydantic
    """Return what is wrong, in the terms of an option file, of one of `ValidationError.errors()`."""
    words = _SAID.get(error["type"])
    if words is None:
        return str(error["msg"])
    return words.format_map({key: _short(value) for key, value in error.get("ctx", {}).items()})


def _short(value: object) -> object:
    """A bound without its decimals, if it has none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _config_error(keys: tuple[Any, ...], error: Any) -> ConfigError:  # noqa: ANN401 - a private type of pydantic
    kind = error["type"]
    said = in_words(error)
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return ConfigError(keys, keys, " ".join(str(raised).split()), raised.code)
    return ConfigError(keys, keys[:-1] if kind == UNKNOWN else keys, " ".join(said.split()), _code(kind))


def _code(kind: str) -> str:
    """The code of an error by pydantic's name for its kind; the kinds of our own schemas are codes themselves."""
    if kind in (UNKNOWN, "misspelt"):
        return "options.unknown-key"
    if kind == "missing":
        return "options.missing"
    if kind.startswith(("greater_than", "less_than")) or kind.endswith(("too_short", "too_long", "finite_number")):
        return "options.out-of-range"
    if kind.endswith(("_type", "_parsing")) or kind.startswith("int_from"):
        return "options.wrong-type"
    if kind in ("literal_error", "union_tag_invalid", "union_tag_not_found"):
        return "options.wrong-value"
    return f"options.{kind.replace('_', '-')}"


def _key(content: Any, part: str | int) -> tuple[Any] | None:  # noqa: ANN401
    """The key that is meant by a part of a place, alone in a tuple; None if there is no such key."""
    if isinstance(content, Mapping):
        # pydantic names keys that are neither text nor whole numbers by their text.
        return next(((key,) for key in content if key == part or str(key) == str(part)), None)
    return (part,) if isinstance(content, list) and isinstance(part, int) and part < len(content) else None
