"""Progress logs: records of finished parts of a job, from which it resumes after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class ProgressLog:
    """A file of JSON lines: the first identifies the job, each further one records a finished part.

    Args:
        path: the file; restarted if it belongs to another job.
        job: identifies the job.
    """

    def __init__(self, path: Path, job: str) -> None:
        lines = list(_complete_lines(path)) if path.exists() else []
        self.records: list[Record] = lines[1:] if lines and lines[0] == {"job": job} else []
        self._path = path
        self._job = job
        self.cut(len(self.records))

    def cut(self, count: int) -> None:
        """Drop all records but the first `count`."""
        self.records = self.records[:count]
        temporary = self._path.with_suffix(".new")
        lines = [{"job": self._job}, *self.records]
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        temporary.replace(self._path)

    def add(self, record: Record) -> None:
        """Append the record of a finished part; call it after that part is written."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records.append(record)


def _complete_lines(path: Path) -> Iterator[Record]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except ValueError:
            return
