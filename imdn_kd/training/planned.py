"""The planned piece of a run, `piece.json`: kept from when it is measured, so that it has its length when resumed."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from imdn_kd.utils.files import atomic_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedPiece:
    """The numbers of a piece.

    Attributes:
        start: updates done before it.
        total_iter: updates done at its end.
        periods: of the learning rate, from the beginning of the run; they sum to `total_iter`.
        restart_weights: one for each period.
        val_freq: updates from one validation to the next; None: there are none.
    """

    start: int
    total_iter: int
    periods: list[int]
    restart_weights: list[float]
    val_freq: int | None


def read_piece(path: Path) -> PlannedPiece | None:
    """The piece that was planned last; None if there is none, or if the file is damaged, which the log says."""
    try:
        piece = PlannedPiece(**json.loads(path.read_text(encoding="utf-8")))
        if _fits(piece):
            return piece
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        pass
    logger.warning("%s: is damaged; the piece is planned again", path)
    return None


def write_piece(path: Path, piece: PlannedPiece) -> None:
    """Keep a piece in the folder of its run, which is made if it is not there.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(piece), indent=2) + "\n", encoding="utf-8")


def _fits(piece: PlannedPiece) -> bool:
    whole = [piece.start, piece.total_iter, *piece.periods, 1 if piece.val_freq is None else piece.val_freq]
    return (
        all(type(number) is int for number in whole)
        and 0 <= piece.start < piece.total_iter == sum(piece.periods)
        and min(whole[1:]) > 0
        and len(piece.periods) == len(piece.restart_weights)
        and all(isinstance(weight, int | float) for weight in piece.restart_weights)
    )
