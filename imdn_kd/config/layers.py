"""Option files that build on others: `_base_` names the files whose options are inherited, `_drop_` inherited keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imdn_kd.config.yaml import Document
from imdn_kd.errors import InputError
from imdn_kd.utils.text import read_text

BASE = "_base_"
DROP = "_drop_"


@dataclass(frozen=True)
class Layers:
    """An option file with all that it inherits.

    Attributes:
        content: the merged options.
        files: the file itself, then those it inherits from; what comes first takes precedence.
    """

    content: dict[Any, Any]
    files: Sequence[tuple[Path, Document]]

    def find(self, keys: Sequence[object]) -> tuple[int, int, int]:
        """Number in `files` and line of what says most about nested keys, and how many of the keys are there."""
        places = [document.find(keys) for _, document in self.files]
        number = max(range(len(places)), key=lambda each: places[each][1])
        return number, *places[number]


def read_layers(path: Path) -> Layers:
    """Read an option file and the files named by its `_base_`: one, or a list, as seen from the file's own folder.

    Sections are merged key by key; any other value replaces the inherited one. Of several bases the later ones take
    precedence, and over all of them the file itself. `_drop_: [key, ...]` in a section removes inherited keys of this
    section first, so that a section can be dropped, or given anew as a whole.

    Raises:
        InputError: a file is missing, is not YAML, holds no options or inherits from itself; or a key to drop is not
            inherited.
    """
    return _read(path, (), f"{path}: ")


def _read(path: Path, heirs: tuple[Path, ...], named_by: str) -> Layers:
    document = _open(path, named_by)
    inherited: dict[Any, Any] = {}
    files: list[tuple[Path, Document]] = []
    own = dict(document.content)
    heirs = (*heirs, path.resolve())
    for base in _bases(own.pop(BASE, []), path, document):
        line = f"{path}, line {document.find([BASE])[0]}: {BASE}: "
        if base.resolve() in heirs:
            way = " -> ".join(each.name for each in (*heirs, base))
            raise InputError(
                f"{line}{base} inherits from itself ({way}); remove one of them", code="options.base-cycle"
            )
        layers = _read(base, heirs, line)
        inherited = _merged(inherited, layers.content, base, None, ())
        files = [*layers.files, *files]
    content = _merged(inherited, own, path, document, ()) if files else own
    return Layers(content, [(path, document), *files])


def _bases(given: Any, path: Path, document: Document) -> list[Path]:  # noqa: ANN401 - whatever YAML holds
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        line = document.find([BASE])[0]
        message = f"{path}, line {line}: {BASE}: give the path of an option file, or a list of paths"
        raise InputError(message, code="options.base-wrong-type")
    return [path.parent / Path(name).expanduser() for name in names]


def _open(path: Path, named_by: str) -> Document:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        shown = named_by if named_by == f"{path}: " else f"{named_by}{path}: "
        message = f"{shown}cannot read it ({reason}); give the path of an option file (.yml)"
        raise InputError(message, code="options.unreadable-file") from error
    document = Document(text, lambda line: f"{path}, line {line}" if line else f"{path}")
    if not isinstance(document.content, dict):
        raise InputError(f"{path}: holds no options; write `key: value` lines", code="options.empty-file")
    return document


def _merged(inherited: Any, own: Any, path: Path, document: Document | None, keys: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """`own` laid over `inherited`; without a document `own` is merged already, and drops nothing."""
    if not isinstance(own, Mapping):
        return own
    result = dict(inherited) if isinstance(inherited, Mapping) else {}
    dropped = own.get(DROP, []) if document is not None else []
    if document is not None and DROP in own:
        line = f"{path}, line {document.find((*keys, DROP))[0]}: {'.'.join(map(str, (*keys, DROP)))}: "
        if not isinstance(dropped, list):
            raise InputError(f"{line}give a list of inherited keys", code="options.drop-wrong-type")
        for key in dropped:
            if key not in result:
                there = ", ".join(map(str, result)) or "none"
                raise InputError(
                    f"{line}{key!r} is not inherited; inherited here: {there}", code="options.drop-unknown"
                )
            del result[key]
    for key, value in own.items():
        if key != DROP or document is None:
            result[key] = _merged(result.get(key), value, path, document, (*keys, key))
    return result
