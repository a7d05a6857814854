"""Watching the operators that PyTorch runs."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base of modes, without what PyTorch does so that a mode is not compiled: it imports its compiler, for seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # private to PyTorch; versions without it do not import anything either
        return False
