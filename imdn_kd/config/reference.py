"""What may stand in an option file, for people: Markdown made from the JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from imdn_kd.config.json_schema import json_schema
from imdn_kd.config.options import Options

Node = Mapping[str, Any]

# Kinds in plain words: one of them, and several.
_WORDS = {
    "integer": ("integer", "integers"),
    "number": ("number", "numbers"),
    "string": ("string", "strings"),
    "boolean": ("true/false", "true/false"),
    "null": ("`~`", "`~`"),
}


def reference(schema: type[Options]) -> str:
    """Describe an option file in Markdown: a heading and a table of keys for every section.

    A section is called by the keys that lead to it, as `train.optim_g`, with `NAME` for any key and `N` for the number
    of an item in a list. `~` is YAML's way to give nothing.
    """
    document = json_schema(schema)
    return _Reference(document.get("$defs", {})).write(document)


class _Part(NamedTuple):
    heading: str
    path: str
    node: Node


class _Reference:
    """The text while it is written.

    Args:
        defs: sections by their names in the JSON schema.
    """

    def __init__(self, defs: Mapping[str, Node]) -> None:
        self._defs = defs
        self._links: dict[str, str] = {}
        self._found: list[_Part] = []

    def write(self, document: Node) -> str:
        waiting, written = [_Part("The file", "", document)], []
        while waiting:
            part = waiting.pop(0)
            self._found = []
            written.append(self._table(part))
            # What lies in a section follows it, before its neighbours.
            waiting = self._found + waiting
        return "\n".join(written)

    def _table(self, part: _Part) -> str:
        required = part.node.get("required", ())
        rows = [
            (
                f"`{key}`",
                self._kind(node, _join(part.path, key)),
                "required" if key in required else self._default(node),
                node.get("description", ""),
            )
            for key, node in part.node.get("properties", {}).items()
        ]
        other = part.node.get("additionalProperties", False)
        if other is not False:
            node = {} if other is True else other
            meaning = self._target(node).get("description", "handed on as it is.").partition("\n")[0]
            rows.append(("any other", self._kind(node, _join(part.path, "NAME")), "", meaning))
        # Some docstrings say no more than the heading.
        about = part.node.get("description", "").strip()
        lines = [f"## {part.heading}", "", *([] if about in ("", f"`{part.path}`.") else [about, ""])]
        lines += ["| key | kind | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
        return "\n".join(lines) + "\n"

    def _kind(self, node: Node, path: str, *, many: bool = False) -> str:
        """The kind of a value in plain words; sections in it are noted, to be written later."""
        choices = [each for each in _choices(node) if each.get("type") != "null"]
        sections = [each for each in choices if "properties" in self._target(each)]
        kinds = [self._simple(each, path, many=many) for each in choices if each not in sections]
        if sections:
            links = [self._link(each, path, alone=len(sections) == 1) for each in sections]
            kinds.append(f"{'sections' if many else 'section'} {' or '.join(links)}")
        # That nothing can be given where nothing is the default goes without saying.
        if len(choices) < len(_choices(node)) and node.get("default", "") is not None:
            kinds.append(_WORDS["null"][many])
        return (", or " if any("," in kind for kind in kinds) else " or ").join(dict.fromkeys(kinds))

    def _simple(self, node: Node, path: str, *, many: bool) -> str:
        node = self._target(node)
        kind = node.get("type")
        if "const" in node:
            return _value(node["const"])
        if "enum" in node:
            return f"one of {', '.join(map(_value, node['enum']))}"
        if kind == "array":
            return f"{'lists' if many else 'list'} of {self._items(node, path)}"
        if kind == "object":
            inside = node.get("additionalProperties", True)
            mapping = "mappings" if many else "mapping"
            if inside is True or not inside:
                return f"{mapping} with any keys"
            return f"{mapping} of names to {self._kind(inside, _join(path, 'NAME'), many=True)}"
        return _WORDS[kind][many] + _limits(node) if kind in _WORDS else "anything"

    def _items(self, node: Node, path: str) -> str:
        if "prefixItems" in node:
            return f"{len(node['prefixItems'])}: {', '.join(self._kind(each, path) for each in node['prefixItems'])}"
        low, high = node.get("minItems"), node.get("maxItems")
        if low is not None and low == high:
            count = f"{low} "
        else:
            count = (f"at least {low} " if low else "") + (f"at most {high} " if high else "")
        return count + self._kind(node.get("items", {}), _join(path, "N"), many=True)

    def _link(self, node: Node, path: str, *, alone: bool) -> str:
        """A link to the part about a section, which is written once, where it first occurs."""
        name = node["$ref"]
        if name not in self._links:
            target = self._target(node)
            heading, label = f"`{path}`", f"`{path}`"
            if not alone:
                kinds = " or ".join(map(_value, _values(target["properties"].get("type", {})))) or target["title"]
                heading, label = f"{heading}: {kinds}", kinds
            self._links[name] = f"[{label}](#{_anchor(heading)})"
            self._found.append(_Part(heading, path, target))
        return self._links[name]

    def _default(self, node: Node) -> str:
        if "default" not in node:
            return ""
        default = node["default"]
        inside = self._target(node).get("properties", {})
        if inside and default == {key: each.get("default") for key, each in inside.items()}:
            return "as there"
        return _value(default)

    def _target(self, node: Node) -> Node:
        return self._defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _choices(node: Node) -> Sequence[Node]:
    found: Sequence[Node] = node.get("anyOf") or node.get("oneOf") or [node]
    return [inner for each in found for inner in (_choices(each) if each is not node else [each])]


def _values(node: Node) -> Sequence[Any]:
    return [node["const"]] if "const" in node else node.get("enum", [])


def _limits(node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if node.get("minLength") == 1:
        return " that is not empty"
    lowest, highest = (low if above is None else above), (high if below is None else below)
    if lowest is not None and highest is not None:
        return f" in {'(' if low is None else '['}{_number(lowest)}, {_number(highest)}{')' if high is None else ']'}"
    signs = ((">=", low), (">", above), ("<=", high), ("<", below))
    return "".join(f" {sign} {_number(limit)}" for sign, limit in signs if limit is not None)


def _number(limit: float) -> str:
    power = int(limit).bit_length() - 1
    return f"2^{power}" if limit > 10**9 and limit == 2**power else f"{limit:g}"


def _value(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    if value is None:
        return "`~`"
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
