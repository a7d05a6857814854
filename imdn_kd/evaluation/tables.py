"""Tables of figures: on a terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imdn_kd.errors import InputError
from imdn_kd.utils.files import atomic_path, check_folder
from imdn_kd.utils.text import printable, printable_lines

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Table:
    """A heading, columns (texts to the left, figures to the right) and lines to print below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()

    def rich(self) -> RenderableType:
        """For a terminal."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, since a name such as model[1] would be taken for markup otherwise.
        drawn = RichTable(
            title=Text(printable(self.title)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for column in self.columns:
            # Folded where there is no room: an ellipsis would hide digits.
            if column in self.texts:
                drawn.add_column(Text(column), overflow="fold")
            else:
                drawn.add_column(Text(column), justify="right", overflow="fold", min_width=self._width(column))
        for row in self.rows:
            drawn.add_row(*(Text(printable(cell)) for cell in row))
        return Group(drawn, *(Text(printable_lines(note)) for note in self.notes))

    def _width(self, column: str) -> int:
        """Of the widest cell, and the widest word of the heading."""
        index = self.columns.index(column)
        return max(map(len, (*column.split(), *(row[index] for row in self.rows))))

    def markdown(self) -> str:
        """As GitHub Markdown, ending with a line break."""
        rule = ("---" if column in self.texts else "---:" for column in self.columns)
        lines = [_line(self.columns), _line(rule), *(_line(row) for row in self.rows)]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n" + notes


@dataclass(frozen=True)
class Report:
    """Tables for people, and the same and more for programs.

    Attributes:
        tables: one or several.
        data: what JSON holds; figures that are not finite become null.
    """

    tables: tuple[Table, ...]
    data: dict[str, Any]

    def markdown(self) -> str:
        """All tables as Markdown."""
        return "\n".join(table.markdown() for table in self.tables)

    def json(self) -> str:
        """The data as JSON."""
        return json.dumps(_finite(self.data), indent=2)

    def save(self, path: Path) -> None:
        """Write the report, as Markdown or JSON by the suffix; see `check_output` for errors."""
        check_output(path)
        text = self.markdown() if path.suffix.lower() == ".md" else self.json() + "\n"
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def show(self, *, as_json: bool) -> None:
        """Print: tables on a terminal, Markdown into a pipe, or JSON."""
        from rich.console import Console

        console = Console()
        if as_json:
            print(self.json())
        elif console.is_terminal:
            for table in self.tables:
                console.print(table.rich())
        else:
            print(printable_lines(self.markdown()), end="")


def check_output(path: Path | None) -> None:
    """Raise InputError where a report cannot be written to `path` (None is fine), before long work begins."""
    if path is None:
        return
    if path.suffix.lower() not in (".md", ".json"):
        raise InputError(
            f"{path}: a report is written as .md or .json; choose one of these suffixes", code="report.format"
        )
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file", code="report.is-folder")
    check_folder(path)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _finite(value: Any) -> Any:  # noqa: ANN401 - whatever JSON takes
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
