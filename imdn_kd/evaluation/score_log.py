"""Scores of a benchmark that is not finished, from which it goes on after an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from imdn_kd.utils.progress_log import ProgressLog

log = logging.getLogger("imdn_kd")


def log_folder() -> Path:
    """Where scores are kept until their benchmark is finished."""
    return user_cache_path("imdn_kd") / "benchmarks"


class ScoreLog:
    """The images of a data set that are measured, in a file of `log_folder`.

    Args:
        key: checksum of all that the scores depend on.

    Attributes:
        kept: what earlier processes have measured, by the name of the image; damaged records are left out.
        works: whether the file can be written.
    """

    def __init__(self, key: str) -> None:
        self._key, self._path = key, log_folder() / f"{key}.jsonl"
        self._log: ProgressLog | None = None
        self.kept: dict[str, Any] = {}
        self.works = True
        try:
            if self._path.exists():
                self._log = ProgressLog(self._path, key)
        except OSError as error:
            self._give_up(error)
        for record in self._log.records if self._log else ():
            if isinstance(record, dict) and record == self._record(str(record.get("name")), record.get("scores")):
                self.kept[record["name"]] = record["scores"]

    def add(self, name: str, scores: Any) -> None:  # noqa: ANN401 - whatever JSON takes
        """Keep the scores of an image, if the file can be written."""
        if not self.works:
            return
        try:
            if self._log is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._log = ProgressLog(self._path, self._key)
            self._log.add(self._record(name, scores))
        except OSError as error:
            self._give_up(error)

    def forget(self) -> None:
        """Remove the file."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def _record(self, name: str, scores: Any) -> dict[str, Any]:  # noqa: ANN401
        check = hashlib.sha256(json.dumps([self._key, name, scores]).encode()).hexdigest()
        return {"name": name, "scores": scores, "check": check}

    def _give_up(self, error: OSError) -> None:
        self.works = False
        log.debug("%s: scores are not kept (%s)", self._path, error)
