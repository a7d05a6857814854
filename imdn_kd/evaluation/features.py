"""Which features student and teachers have, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.distill.feature_names import match, semantic_names
from imdn_kd.distill.hooks import FeatureHooks, FeatureInfo
from imdn_kd.distill.teacher import Teacher
from imdn_kd.evaluation.tables import Report, Table

SIZE = (64, 96)
"""Height and width of the photograph, px: unequal, so that rows and columns are not mistaken for each other."""


def report_features(student: SRNetwork, teachers: Sequence[Teacher] = ()) -> Report:
    """Lay out the features with a name that student and teachers have: module, shape, and range for a photograph.

    Args:
        student: run in eval mode; left as it was.
        teachers: each in a table of its own, beside the features of the student that are compared with it.
    """
    photograph = _photograph(student.info.num_in_ch)
    names = semantic_names(student)
    mine = _probe(student, names.values(), photograph)
    if not teachers:
        alone = [(name, *_cells(mine[tap])) for name, tap in names.items()]
        return _report([_table(f"Features of {type(student).__name__}", ("name", "student", "shape", "range"), alone)])
    tables = []
    for teacher in teachers:
        pairs = shared_features(student, teacher.network)
        theirs = _probe(teacher.network, {other for _, other in pairs.values()}, teacher.normalize_input(photograph))
        rows = [(name, *_cells(mine[one]), *_cells(theirs[other])) for name, (one, other) in pairs.items()]
        title = f"Features of {type(student).__name__} and its teacher, {type(teacher.network).__name__}"
        columns = ("name", "student", "shape", "range", "teacher", "its shape", "its range")
        tables.append(_table(title, columns, rows))
    return _report(tables)


def shared_features(student: nn.Module, teacher: nn.Module) -> dict[str, tuple[str, str]]:
    """The names of features that both networks have, each with the two hooks that belong together."""
    known = semantic_names(teacher)
    shared = [name for name in semantic_names(student) if name.startswith("block.") or name in known]
    return {name: match(student, teacher, name) for name in shared}


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(title, columns, tuple(rows), (_note(),), frozenset(columns))


def _report(tables: Sequence[Table]) -> Report:
    data = [dict(zip(table.columns, row, strict=True)) for table in tables for row in table.rows]
    return Report(tuple(tables), {"features": data})


def _note() -> str:
    return (
        f"For a photograph of {SIZE[1]}x{SIZE[0]} px. Paths of other modules work too, also PATH@CALL and "
        "PATH:input; * at the range: changed in place afterwards, so a copy is kept. Where heights or widths "
        "differ, the larger feature is pooled to the smaller size."
    )


def _probe(network: nn.Module, taps: Iterable[str], image: Tensor) -> dict[str, FeatureInfo]:
    hooks = FeatureHooks(network, list(taps))
    try:
        return {row.name: row for row in hooks.probe(image)}
    finally:
        hooks.remove()


def _cells(row: FeatureInfo) -> tuple[str, str, str]:
    shape = "x".join(map(str, row.shape[1:]))
    return row.name, shape, f"{row.minimum:.3g} to {row.maximum:.3g}{' *' if row.copied else ''}"


def _photograph(channels: int) -> Tensor:
    import skimage.data

    data: Any = skimage.data  # scikit-image is only partly typed
    height, width = SIZE
    part = torch.from_numpy(data.astronaut()[:256, 100:484].copy()).permute(2, 0, 1)[None].float() / 255
    small = torch.nn.functional.interpolate(part, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return small if channels == 3 else small.mean(1, keepdim=True).expand(-1, channels, -1, -1)
