"""What to do where packages of an extra are missing."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """Return the command that installs imdn_kd with an extra of its pyproject.toml."""
    return f'pip install ".[{extra}]" in the folder of imdn_kd'
