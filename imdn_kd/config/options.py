"""Option files checked against a schema, with errors that name file, line and key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from imdn_kd.config.imports import import_user_code
from imdn_kd.config.layers import Layers, read_layers
from imdn_kd.config.overrides import Override, apply_overrides, named_by, parse_overrides
from imdn_kd.config.problems import UNKNOWN, ConfigError, config_errors
from imdn_kd.errors import InputError, join_errors

Schema = TypeVar("Schema", bound="Options")

IMPORTS = "imports"
"""The option that names modules of the user."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]
"""An integer, which an option file may also write as `5e3` or `!!float 5e3`."""

UserPath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, in which `~/` is the user's home folder, as in BasicSR."""


class Options(BaseModel):
    """A section of an option file: unknown keys are errors, and values are of the type stated.

    `Attributes:` in the docstring of a subclass is what the reference and editors say about its keys.

    Attributes:
        moved: keys of other projects that are refused, and where here to give what they say.
        harmless: keys of other projects that are accepted without effect, and what to tell the user of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)
    moved: ClassVar[Mapping[str, str]] = {}
    harmless: ClassVar[Mapping[str, str]] = {}
    _ignored: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown(cls: type[Schema], content: object, handler: ModelWrapValidatorHandler[Schema]) -> Schema:
        if not isinstance(content, Mapping):
            return handler(content)
        ignored = tuple(key for key in content if key in cls.harmless)
        wrong = [_unknown(key, cls.moved[key], content) for key in content if key in cls.moved]
        try:
            section = handler({key: content[key] for key in content if key not in ignored and key not in cls.moved})
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, [*wrong, *_with_hints(cls, error)]) from error
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        section._ignored = ignored
        return section

    def ignored_keys(self, path: str = "") -> Iterator[str]:
        """A line for each harmless key that was given, in this section at `path` and in those inside it."""
        for key in self._ignored:
            yield f"{path}{key}: {self.harmless[key]}"
        for key, value in self:
            sections = value.items() if isinstance(value, dict) else [(None, value)]
            for name, section in sections:
                if isinstance(section, Options):
                    yield from section.ignored_keys(f"{path}{key}." if name is None else f"{path}{key}.{name}.")


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
        place, kind = each["loc"], each["type"]
        if place in hints:
            told.append(_unknown(place[0], hints[place], each["input"]))
        elif kind != "missing" or place not in misspelt:
            # The message is not the template, in which pydantic would fill in what is between braces.
            context = {**each.get("ctx", {}), "said": each["msg"]}
            described = PydanticCustomError(cast(Any, kind), "{said}", context)
            told.append(InitErrorDetails(type=described, loc=place, input=each["input"]))
    return told


def _unknown(key: object, hint: str, content: Any) -> InitErrorDetails:  # noqa: ANN401 - whatever YAML holds
    said = PydanticCustomError(UNKNOWN, "no option is called {key}; {hint}", {"key": repr(str(key)), "hint": hint})
    return InitErrorDetails(type=said, loc=(cast(Any, key),), input=content)


def read_options(path: Path | str, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Read an option file (YAML without code), with what it inherits (see `read_layers`), and check it.

    Args:
        path: of the file.
        schema: what it may hold.
        overrides: options that replace those of the file, as `train.optim_g.lr=1e-4`: nested keys (items of lists by
            their number from 0), and a value as in a file. Messages call them `--set KEYS`.

    Raises:
        InputError: no such file, or not YAML; or else everything that is wrong, a line each, in the order of the file,
            of the files it inherits from, and of `overrides`: keys given twice, unknown or missing, values of the
            wrong type, each with file, line and key. What a schema asks of a section as a whole is checked when every
            key in it is right.
    """
    layers, content, applied, wrong = _read(Path(path), overrides)
    in_file = [((number, line), error) for number, line, error in _duplicate_keys(layers)]
    options, faults = _validated(content, schema)
    for fault in faults:
        number, line, depth = layers.find(fault.keys)
        culprit = named_by(applied, fault.keys, depth)
        if culprit is None:
            message = f"{layers.files[number][0]}, line {line}: {fault}"
            in_file.append(((number, line), InputError(message, code=fault.code)))
        else:
            named = tuple(map(str, fault.keys)) == culprit.keys
            wrong.append(InputError(f"{culprit.name}: {fault.reason if named else fault}", code=fault.code))
    errors = [*(error for _, error in sorted(in_file, key=lambda each: each[0])), *wrong]
    if options is None or errors:
        raise join_errors(errors)
    _import_named(content, layers, applied)
    return options


def merged_options(path: Path | str, overrides: Sequence[str] = ()) -> dict[Any, Any]:
    """What a file comes to, with what it inherits and with `overrides`: plain values, not checked against a schema.

    Raises:
        InputError: as in `read_options`, less what a schema says.
    """
    layers, content, _, wrong = _read(Path(path), overrides)
    errors = [*(error for _, _, error in _duplicate_keys(layers)), *wrong]
    if errors:
        raise join_errors(errors)
    return dict(content)


def _read(path: Path, overrides: Sequence[str]) -> tuple[Layers, Any, list[Override], list[InputError]]:
    """The file, its content after overrides, the overrides that were applied, and errors of the others."""
    given, wrong = parse_overrides(overrides)
    try:
        layers = read_layers(path)
    except InputError as error:
        raise join_errors([error, *wrong]) from error
    content, applied, impossible = apply_overrides(given, layers.content)
    return layers, content, applied, [*wrong, *impossible]


def import_named_in(path: Path | str) -> None:
    """Import what an option file names under `imports`, without the rest of `read_options`.

    Raises:
        InputError: as in `import_user_code`.
    """
    layers, content, _, _ = _read(Path(path), ())
    _import_named(content, layers, ())


def _import_named(content: Any, layers: Layers, applied: Sequence[Override]) -> None:  # noqa: ANN401
    """Import the user's modules under `imports`, as seen from the file that names them."""
    names = content.get(IMPORTS) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{IMPORTS}: give a list of files and modules", code="options.wrong-type")
    number, line, depth = layers.find([IMPORTS])
    if named_by(applied, [IMPORTS], depth) is not None:
        import_user_code(names, Path(), f"--set {IMPORTS}")
    elif names:
        path, _ = layers.files[number]
        import_user_code(names, path.parent, f"{path}, line {line}: {IMPORTS}")


def _duplicate_keys(layers: Layers) -> Iterator[tuple[int, int, InputError]]:
    for number, (path, document) in enumerate(layers.files):
        for key in document.duplicate_keys:
            message = f"{path}, line {key.line}: {key.key!r} is given twice; keep one"
            yield number, key.line, InputError(message, code="options.duplicate-key")


def check_options(content: Mapping[str, Any], schema: type[Schema], where: str) -> Schema:
    """Check options that come from elsewhere, say a command line; `where` begins each line of an error.

    Raises:
        InputError: unknown or missing keys, or values of the wrong kind, a line each.
    """
    options, faults = _validated(content, schema)
    if options is None:
        raise join_errors(InputError(f"{where}: {fault}", code=fault.code) for fault in faults)
    return options


def _validated(content: Mapping[str, Any], schema: type[Schema]) -> tuple[Schema | None, list[ConfigError]]:
    try:
        return schema.model_validate(content), []
    except ValidationError as error:
        return None, config_errors(content, error.errors(include_url=False))
