"""What may stand in an option file, for editors: a JSON schema with the descriptions of the docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from imdn_kd.config.options import Options, keys_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What pydantic calls limits of a number that it checks in Python, as it does for `Integer`.
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def json_schema(schema: type[Options]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of an option file; unknown keys are refused as `read_options` refuses them."""
    return {"$schema": _DIALECT, **schema.model_json_schema(schema_generator=_Generator)}


def summary(schema: type[Options]) -> str:
    """What the docstring of a section says before its `Attributes:`."""
    return _sections(schema)[0]


def descriptions(schema: type[Options]) -> dict[str, str]:
    """What the docstrings of a section and of those it is made from say about its keys.

    A `type` that is not described says what kind of section it is, so it gets the first sentence about that kind.
    """
    found: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if issubclass(cls, Options) and cls is not Options:
            found |= _attributes(_sections(cls)[1])
    own = {key: found[name] for (key, name) in zip(keys_of(schema), schema.model_fields, strict=True) if name in found}
    if "type" in keys_of(schema) and "type" not in own:
        own["type"] = summary(schema).partition("\n")[0]
    return own


def _sections(schema: type[Options]) -> tuple[str, str]:
    # Not `inspect.getdoc`, which gives a class without a docstring that of its base.
    text = inspect.cleandoc(schema.__dict__.get("__doc__") or "")
    before, _, attributes = text.partition("Attributes:\n")
    return before.strip(), attributes


def _attributes(text: str) -> dict[str, str]:
    """The entries `name: description` of an `Attributes:` section in Google's style, lines joined."""
    body = re.match(r"(?:(?:    .*)?(?:\n|\Z))*", text)
    entries = re.findall(r"^    (\w+): ((?:.|\n(?:     |\n))*)", body[0] if body else "", re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in entries}


class _Generator(GenerateJsonSchema):
    """Adds descriptions and the defaults that factories make, and leaves out titles that only repeat keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - a union of many private types
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        cls = schema["cls"]
        if not issubclass(cls, Options):
            return result
        result["description"] = summary(cls)
        said = descriptions(cls)
        for key, field in keys_of(cls).items():
            entry = result["properties"][key]
            if key in said:
                entry["description"] = said[key]
            if field.default_factory is not None:
                entry["default"] = self.encode_default(field.get_default(call_default_factory=True))
        return result

    def generate(self, schema: core_schema.CoreSchema, mode: Any = "validation") -> JsonSchemaValue:  # noqa: ANN401
        result: JsonSchemaValue = _with_limits(super().generate(schema, mode))
        return result


def _with_limits(node: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(node, list):
        return [_with_limits(each) for each in node]
    if not isinstance(node, dict):
        return node
    number = node.get("type") in ("integer", "number")
    return {_LIMITS.get(key, key) if number else key: _with_limits(value) for key, value in node.items()}
