"""Networks whose way depends on the values of the image: an exported graph holds the one way of its sample."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from imdn_kd.errors import InputError
from imdn_kd.utils.dispatch import DispatchMode

_TELL = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
"""Operations that make numbers of Python out of tensors."""

_TORCH = str(Path(torch.__file__).parent)


def check_values_are_free(network: nn.Module, image: Tensor) -> None:
    """Refuse a network that makes Python numbers of an image, as for a branch; sizes of tensors are no matter.

    Args:
        network: in evaluation mode on the CPU.
        image: one that it takes, N x C x H x W.

    Raises:
        InputError: `export.value-dependent`; it says where.
    """
    with torch.no_grad(), _Following(type(network).__name__, image):
        network(image)


class _Following(DispatchMode):
    """Follows what is computed from a tensor, by the memory in which it lies."""

    def __init__(self, name: str, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._followed: dict[int, weakref.ref[Any]] = {}
        self._follow(image)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        follows = any(_key(tensor) in self._followed for tensor in given)
        if follows and func in _TELL:
            raise InputError(
                f"{self._name} cannot be exported: what it does depends on the values of the image ({_place()}), and a "
                "file holds one way for all images; compute with tensors there (torch.where instead of a branch)",
                code="export.value-dependent",
            )
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result) if follows else ():
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return result

    def _follow(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key not in self._followed:
            self._followed[key] = weakref.ref(tensor.untyped_storage(), lambda _: self._followed.pop(key, None))


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _place() -> str:
    """The line outside PyTorch that asked for a number."""
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith((_TORCH, __file__))]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line}"
