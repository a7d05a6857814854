"""Milliseconds of students on this machine, as measured by `imdn-kd zoo list --time`; in the cache folder."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from imdn_kd.errors import InputError
from imdn_kd.utils.files import atomic_path
from imdn_kd.zoo import Student


def times_file() -> Path:
    """Where they are kept."""
    return user_cache_path("imdn_kd") / "zoo_times.json"


def recall_times() -> dict[str, float]:
    """Milliseconds by key of a student; empty if nothing was measured."""
    try:
        found = json.loads(times_file().read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def keep_times(times: dict[str, float]) -> None:
    """Keep them beside those that are there, if the folder can be written."""
    known = recall_times()
    with suppress(OSError, InputError), atomic_path(times_file()) as path:
        path.write_text(json.dumps({**known, **times}, indent=2), encoding="utf-8")


def key_of(student: Student) -> str:
    """Another one for another machine, or another file of the student."""
    status = student.path.stat()
    return f"{student.name} {status.st_size} {status.st_mtime_ns} {platform.node()}"
