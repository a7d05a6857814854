"""Option files: YAML without code, checked against a schema, with errors that name the line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from imdn_kd.config.overrides import apply_overrides, named_by, parse_overrides
from imdn_kd.config.problems import UNKNOWN, ConfigError, config_errors
from imdn_kd.config.yaml import Document
from imdn_kd.errors import InputError

Schema = TypeVar("Schema", bound="Options")


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]
"""An integer, which an option file may also write as `5e3` or `!!float 5e3`."""

UserPath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, in which `~/` is the user's home folder, as in BasicSR."""


class Options(BaseModel):
    """A section of an option file: unknown keys are errors, and values are of the type stated.

    `Attributes:` in the docstring of a subclass is what the reference and editors say about its keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown(cls: type[Schema], content: object, handler: ModelWrapValidatorHandler[Schema]) -> Schema:
        try:
            return handler(content)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, _with_hints(cls, error)) from error


def keys_of(schema: type[Options]) -> dict[str, FieldInfo]:
    """The keys of a section as they stand in a file, with what is known about them."""
    return {field.alias or name: field for name, field in schema.model_fields.items()}


def _with_hints(schema: type[Options], error: ValidationError) -> list[InitErrorDetails]:
    """The errors of a section, where unknown keys come with a guess at what was meant.

    One mistake is one error: a key that is missing because it was misspelt is not told as well.
    """
    found = error.errors(include_url=False)
    known = keys_of(schema)
    own = {each["loc"]: each["type"] for each in found if len(each["loc"]) == 1}
    near = {
        place: next(iter(difflib.get_close_matches(str(place[0]), known, n=1)), "")
        for place, kind in own.items()
        if kind in ("extra_forbidden", "invalid_key")
    }
    hints = {place: f"did you mean {key!r}?" if key else f"known: {', '.join(known)}" for place, key in near.items()}
    missing = [place for place, kind in own.items() if kind == "missing" and place[0] not in near.values()]
    strange = [place for place, key in near.items() if not key]
    misspelt = {(key,) for key in near.values()}
    if len(strange) == len(missing) == 1:
        hints[strange[0]] = f"did you mean {missing[0][0]!r}, which is missing? {hints[strange[0]]}"
        misspelt.add((str(missing[0][0]),))
    told = []
    for each in found:
        place, kind, message = each["loc"], each["type"], each["msg"]
        if place in hints:
            # pydantic takes braces for places to fill in.
            key = str(place[0]).replace("{", "(").replace("}", ")")
            kind, message = UNKNOWN, f"no option is called {key!r}; {hints[place]}"
        if kind != "missing" or place not in misspelt:
            described = PydanticCustomError(cast(Any, kind), cast(Any, message))
            told.append(InitErrorDetails(type=described, loc=place, input=each["input"]))
    return told


def read_options(path: Path | str, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Read a YAML file (safe subset: no code is run) and check it.

    Args:
        path: of the file.
        schema: what it may hold.
        overrides: options that replace those of the file, as `train.optim_g.lr=1e-4`: nested keys (items of lists by
            their number from 0), and a value as it would stand in a file. Messages call them `--set KEYS`.

    Raises:
        InputError: no such file, or not YAML; or else everything that is wrong, a line each, in the order of the file
            and after that in `overrides`: keys given twice, unknown or missing, values of the wrong kind, each with
            the line and the key. What a schema asks of a section as a whole is looked at when every key in it is
            right.
    """
    path = Path(path)
    given, wrong = parse_overrides(overrides)
    try:
        document = _read(path)
    except InputError as error:
        raise InputError(*error.lines, *wrong) from error
    content, done, impossible = apply_overrides(given, document.content)
    wrong += impossible
    in_file = [(key.line, f"{key.key!r} is given twice; keep one") for key in document.duplicate_keys]
    options, problems = _validated(content, schema)
    for problem in problems:
        line, depth = document.find(problem.keys)
        culprit = named_by(done, problem.keys, depth)
        if culprit is None:
            in_file.append((line, str(problem)))
        else:
            named = tuple(map(str, problem.keys)) == culprit.keys
            wrong.append(f"{culprit.name}: {problem.reason if named else problem}")
    lines = [f"{path}, line {line}: {message}" for line, message in sorted(in_file, key=lambda each: each[0])]
    if options is None or lines or wrong:
        raise InputError(*dict.fromkeys([*lines, *wrong]))
    return options


def check_options(content: Mapping[str, Any], schema: type[Schema], where: str) -> Schema:
    """Check options that come from elsewhere, say a command line; `where` begins each line of an error.

    Raises:
        InputError: unknown or missing keys, or values of the wrong kind, a line each.
    """
    options, problems = _validated(content, schema)
    if options is None:
        raise InputError(*dict.fromkeys(f"{where}: {problem}" for problem in problems))
    return options


def _read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot read it ({reason}); give the path of an option file (.yml)") from error
    document = Document(text, lambda line: f"{path}, line {line}" if line else f"{path}")
    if not isinstance(document.content, dict):
        raise InputError(f"{path}: holds no options; write `key: value` lines")
    return document


def _validated(content: Mapping[str, Any], schema: type[Schema]) -> tuple[Schema | None, list[ConfigError]]:
    try:
        return schema.model_validate(content), []
    except ValidationError as error:
        return None, config_errors(content, error.errors(include_url=False))
