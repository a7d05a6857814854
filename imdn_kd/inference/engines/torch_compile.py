"""torch.compile, https://docs.pytorch.org/docs/stable/torch.compiler.html, which needs a C++ compiler."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import torch

from imdn_kd.errors import InputError
from imdn_kd.inference.engines.base import Array, Engine, Graph, Program


class Runtime(Engine):
    """See `Engine`. It has as many threads as PyTorch, and takes up to a minute to compile in each process."""

    tried_by_auto = False

    @classmethod
    def version(cls) -> str:
        """See `Engine.version`."""
        return str(torch.__version__)

    def load(self, program: Program, threads: int) -> Graph:
        """See `Engine.load`. It compiles when it is first run: once for all sizes."""
        _check_compiler()
        module: Any = torch.compile(program.module, dynamic=True)

        def run(arrays: list[Array]) -> list[Array]:
            with torch.no_grad():
                results = module(*map(torch.from_numpy, arrays))
            return [result.numpy() for result in (results if isinstance(results, tuple) else (results,))]

        return run


def _check_compiler() -> None:
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        raise InputError(
            f"engine 'torch-compile' needs the C++ compiler {compiler}; install it, name another one in CXX, or use "
            "the engine 'torch'",
            code="engine.no-compiler",
        )
