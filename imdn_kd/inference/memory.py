"""Free memory, and the peak memory of a computation."""

from __future__ import annotations

import ctypes
import re
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from imdn_kd.utils.dispatch import DispatchMode

# Of PyTorch's allocators, ONNX Runtime, the C++ library, CUDA's and Apple's libraries, and oneDNN, which names what it
# did not get: a "primitive descriptor" that cannot be created is another matter.
_OUT_OF_MEMORY = re.compile(
    r"not enough memory|(can't|cannot|failed to) allocate memory|out of memory|bad_alloc|_ALLOC_FAILED"
    r"|could not create a (primitive|memory object)\s*$",
    re.IGNORECASE,
)


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`; on the CPU also within the limit of a container (cgroup v2)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, max(0, int(limit) - used))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation failed. PyTorch has no exception type for it on the CPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def trim_heap() -> None:
    """Give back to the system what the C library holds free, where that is glibc: it keeps pieces of every size."""
    with suppress(OSError, AttributeError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory(DispatchMode):
    """Counts the bytes of the tensors made inside a `with` block that are alive at the same time.

    Work space inside an operator is not seen. Attribute `peak`: the largest count, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._alive = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        before = {_storage_id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _storage_id(leaf) not in before:
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        key, storage = _storage_id(tensor), tensor.untyped_storage()
        if key in self._seen:
            return
        size = storage.nbytes()
        self._alive += size
        self.peak = max(self.peak, self._alive)

        def gone(_: object) -> None:
            if self._seen.pop(key, None) is not None:
                self._alive -= size

        self._seen[key] = weakref.ref(storage, gone)


def _storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
