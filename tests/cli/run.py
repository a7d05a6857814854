"""Calling the command line in this process."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from imdn_kd.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Run `imdn-kd ARGUMENTS` and return the exit code and what was printed, also by C libraries."""
    capfd.readouterr()
    before = sys.argv
    sys.argv = ["imdn-kd", *(str(argument) for argument in arguments)]
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        sys.argv = before
    out, err = capfd.readouterr()
    return Result(int(caught.value.code or 0), out, err)
