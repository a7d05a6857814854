"""Option files: YAML without code, checked against a schema, with errors that name the line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.errors import InputError

Schema = TypeVar("Schema", bound="Options")

_UNKNOWN = "unknown_option"


class Options(BaseModel):
    """A section of an option file: unknown keys are errors, and values are of the type stated."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, content: object) -> object:
        for key in content if isinstance(content, Mapping) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(cls.model_fields)}"
                # Braces would be taken for places to fill in.
                message = f"no option is called {str(key)!r}; {hint}".replace("{", "(").replace("}", ")")
                raise PydanticCustomError(_UNKNOWN, message, {"key": key})
        return content


def read_options(path: Path | str, schema: type[Schema]) -> Schema:
    """Read a YAML file (safe subset: no code is run) and check it.

    Raises:
        InputError: no such file, not YAML, a key given twice, an unknown key, or a value of the wrong kind, with the
            line and the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot read it ({reason}); give the path of an option file (.yml)") from error
    try:
        tree = yaml.compose(text, yaml.SafeLoader)
        _refuse_twins(tree, path)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(f"{path}{where}: is not plain YAML ({problem}); correct it") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply; correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no options; write `key: value` lines")
    return _validated(content, schema, lambda keys: f"{path}, line {_line(tree, keys)}")


def check_options(content: Mapping[str, Any], schema: type[Schema], where: str) -> Schema:
    """Check options that come from elsewhere, say a command line; `where` begins the message of an error.

    Raises:
        InputError: an unknown key, or a value of the wrong kind.
    """
    return _validated(content, schema, lambda _: where)


def _validated(content: Mapping[str, Any], schema: type[Schema], place: Callable[[list[Any]], str]) -> Schema:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problem = _most_telling(error.errors())
        keys = _keys(content, problem["loc"], missing=problem["type"] == "missing")
        section = ".".join(map(str, keys))
        if problem["type"] == _UNKNOWN:
            keys.append(problem["ctx"]["key"])
        message = f"{section}: {problem['msg']}" if section else problem["msg"]
        raise InputError(f"{place(keys)}: {' '.join(message.split())}") from error


def _most_telling(problems: Sequence[Any]) -> Any:  # noqa: ANN401 - a private type of pydantic
    """The first problem; of a value that could be of several kinds, the one of the kind that fits furthest."""
    place = problems[0]["loc"][:1]
    return max((each for each in problems if each["loc"][:1] == place), key=lambda each: len(each["loc"]))


def _keys(content: Any, loc: Sequence[Any], *, missing: bool) -> list[Any]:  # noqa: ANN401 - whatever YAML holds
    """Of the place that pydantic names, the parts that stand in the file; it also names kinds of values."""
    keys = []
    for part in loc:
        inside = (
            part in content if isinstance(content, Mapping) else isinstance(content, list) and isinstance(part, int)
        )
        if inside:
            content = content[part]
            keys.append(part)
    return [*keys, loc[-1]] if missing else keys


def _refuse_twins(node: yaml.Node | None, path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise InputError(f"{path}, line {key.start_mark.line + 1}: {key.value!r} is given twice; keep one")
            seen.add(str(key.value))
            _refuse_twins(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twins(item, path)


def _line(node: yaml.Node | None, keys: list[Any]) -> int:
    """Line of the innermost of `keys` that the file has, from 1."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        found = next((pair for pair in node.value if pair[0].value == str(key)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
