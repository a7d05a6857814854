"""What was measured of engines on this machine, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import nn

from imdn_kd.errors import InputError
from imdn_kd.inference.fingerprint import fingerprint
from imdn_kd.utils.files import atomic_path

log = logging.getLogger("imdn_kd")


@dataclass(frozen=True)
class Choice:
    """The engine that is used for a network, and what was measured: seconds for an image by each engine."""

    engine: str
    seconds: dict[str, float]


def recall(key: str) -> Choice | None:
    """What is kept under `key`."""
    found = _read(memory_file()).get(key)
    return found and Choice(found["engine"], found["seconds"])


def keep(key: str, choice: Choice) -> None:
    """Keep `choice`, if the folder can be written."""
    try:
        known = _read(memory_file())
        with atomic_path(memory_file()) as path:
            path.write_text(json.dumps({**known, key: asdict(choice)}, indent=2))
    except (OSError, InputError) as error:
        log.debug("%s: the choice of the engine is not kept (%s)", memory_file(), error)


def forget() -> Path:
    """Remove what is kept of all networks; returns the file where it was."""
    path = memory_file()
    path.unlink(missing_ok=True)
    return path


def memory_file() -> Path:
    """Where choices are kept."""
    return user_cache_path("imdn_kd") / "engines.json"


def key_of(network: nn.Module, precision: str, measured: Sequence[str]) -> str:
    """A key for the weights, the machine, the threads, the precision and what was `measured` on which size."""
    machine = [platform.node(), platform.machine(), str(torch.get_num_threads()), torch.__version__]
    return hashlib.sha256(json.dumps([fingerprint(network), precision, machine, list(measured)]).encode()).hexdigest()[
        :32
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: entry for key, entry in content.items() if isinstance(entry, dict) and entry.keys() >= _ENTRY}


_ENTRY = {"engine", "seconds"}
