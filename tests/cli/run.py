"""Calling the command line in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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


@contextmanager
def started(*arguments: object, **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    """`imdn-kd ARGUMENTS` in a process of its own, which does not outlive the test; its error stream can be read."""
    command = [sys.executable, "-m", "imdn_kd", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **keywords) as process:
        try:
            yield process
        finally:
            process.kill()
