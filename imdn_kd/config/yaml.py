"""YAML without code and with the numbers of YAML 1.2: reading, with the line of each key, and writing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import yaml

from imdn_kd.errors import InputError

_FLOAT, _INT, _BOOL, _NULL, _STR = (f"tag:yaml.org,2002:{name}" for name in ("float", "int", "bool", "null", "str"))


class _Loader(yaml.SafeLoader):
    """The safe subset of PyYAML, with the numbers of YAML 1.2's core schema (its section 10.3.2).

    PyYAML follows YAML 1.1, where `2e-4` is text, `010` is eight and `1:30` is ninety. Here `1_000` stays a number,
    and `yes` a truth value, except as a key: keys are names.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        node = super().compose_node(parent, index)
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        if is_key and isinstance(node, yaml.ScalarNode) and node.tag in (_BOOL, _NULL):
            return yaml.ScalarNode(_STR, node.value, node.start_mark, node.end_mark, node.style)
        return node

    def int_of(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text, 10 if re.fullmatch(r"\s*[-+]?[0-9]+\s*", text) else 0)


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] not in (_FLOAT, _INT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"""[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z
        |[-+]?[0-9]+[eE][-+]?[0-9]+\Z
        |[-+]?\.(?:inf|Inf|INF)\Z
        |\.(?:nan|NaN|NAN)\Z""",
        re.VERBOSE,
    ),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?[0-9][0-9_]*\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z"), list("-+0123456789")
)
_Loader.add_constructor(_INT, _Loader.int_of)


class _Dumper(yaml.SafeDumper):
    """Writes text with quotes where `_Loader` would read something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - whatever YAML holds
        return True


def dump_yaml(content: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    """Write plain values as YAML that `Document` reads back, keys in their order."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


class DuplicateKey(NamedTuple):
    """A key that its section has already: the name, and the line of the second one from 1."""

    key: str
    line: int


class Document:
    """A YAML document.

    Args:
        text: of the document.
        where: begins the message of an error, given the line from 1, or None if it is not known.

    Attributes:
        content: what it holds; None if it is empty.
        duplicate_keys: keys that are given again in the same section, of which the last one counts.

    Raises:
        InputError: the text is not YAML, or asks for more than plain values.
    """

    def __init__(self, text: str, where: Callable[[int | None], str]) -> None:
        try:
            # The constructor is the part that makes objects: `SafeLoader`'s, which knows plain values only.
            loader = _Loader(text)
            try:
                self._root = loader.get_single_node()
                inside_itself = _self_reference(self._root, set(), set())
                if inside_itself is not None:
                    raise InputError(
                        f"{where(_line(inside_itself))}: holds itself; correct it", code="options.self-reference"
                    )
                self.duplicate_keys = list(_duplicate_keys(self._root, set()))
                # Merges (`<<`) become part of the nodes here, so that their lines are found as well.
                self.content: Any = None if self._root is None else loader.construct_document(self._root)
            finally:
                loader.dispose()
        except InputError:
            raise
        except RecursionError as error:
            raise InputError(f"{where(None)}: is nested too deeply; correct it", code="options.not-yaml") from error
        # Values that do not fit the tag before them (`!!bool 3`) fail in all of these ways.
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            mark = getattr(error, "problem_mark", None)
            problem = " ".join(str(getattr(error, "problem", None) or "it cannot be read").split())
            place = where(mark.line + 1 if mark else None)
            raise InputError(f"{place}: is not plain YAML ({problem}); correct it", code="options.not-yaml") from error

    def find(self, keys: Sequence[object]) -> tuple[int, int]:
        """The line, from 1, of the innermost of nested keys that the text has, and how many of them it has."""
        line, node = 1, self._root
        for depth, key in enumerate(keys):
            if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and 0 <= key < len(node.value):
                node = node.value[key]
                line = _line(node)
            elif isinstance(node, yaml.MappingNode):
                # Of duplicate keys, and of what is merged and given as well, the last one counts.
                found = next((pair for pair in reversed(node.value) if pair[0].value == str(key)), None)
                if found is None:
                    return line, depth
                line, node = _line(found[0]), found[1]
            else:
                return line, depth
        return line, len(keys)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _inside(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        yield from (each for pair in node.value for each in pair)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _self_reference(node: yaml.Node | None, around: set[int], done: set[int]) -> yaml.Node | None:
    """A node that lies in itself, by an anchor."""
    if id(node) in around:
        return node
    if id(node) not in done:
        for each in _inside(node):
            found = _self_reference(each, {*around, id(node)}, done)
            if found is not None:
                return found
        done.add(id(node))
    return None


def _duplicate_keys(node: yaml.Node | None, done: set[int]) -> Iterator[DuplicateKey]:
    # What an anchor names is looked at once, however often it is used.
    if id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield DuplicateKey(key.value, _line(key))
                seen.add(key.value)
    for each in _inside(node):
        yield from _duplicate_keys(each, done)
