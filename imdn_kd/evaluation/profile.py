"""Costs of a network: parameters, multi-adds, activations, time and memory."""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imdn_kd.archs.base import SRNetwork
from imdn_kd.errors import InputError
from imdn_kd.image.io import MAX_PIXELS
from imdn_kd.inference.device import Precision, choose_device, choose_dtype
from imdn_kd.inference.memory import PeakMemory, is_out_of_memory
from imdn_kd.inference.sizes import Size
from imdn_kd.inference.tiles import round_up
from imdn_kd.registry import ARCHS
from imdn_kd.utils.dispatch import DispatchMode


@dataclass(frozen=True)
class Counts:
    """Counts that follow from the network and the image size alone.

    Attributes:
        parameters: number of trainable values.
        multi_adds: multiplications with an addition, of all convolutions and matrix products: half of what
            `torch.utils.flop_counter` counts. Biases, activations and poolings are not counted, as in papers.
        activations: elements of the outputs of all convolutions, as in the NTIRE challenges on efficient
            super-resolution (https://arxiv.org/abs/2205.05675).
        convolutions: their number.
    """

    parameters: int
    multi_adds: int
    activations: int
    convolutions: int


@dataclass(frozen=True)
class Timing:
    """Measured time and memory.

    Attributes:
        seconds: of each run after the warm-up.
        peak_bytes: the most that was allocated at the same time in one run, less weights and input. On a GPU what
            PyTorch's allocator gave out; on the CPU the tensors, without the work space inside operators.
        run: precision, device, threads and version of PyTorch.
    """

    seconds: tuple[float, ...]
    peak_bytes: int
    run: str

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile, seconds."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Profile:
    """The costs of one network at one size.

    Attributes:
        name: of the network.
        scale: scale of the network; 1 for one that takes an image enlarged beforehand.
        input_size: (height, width) of the input, px.
        output_size: (height, width) of the result, px.
        counts: see `Counts`.
        timing: see `Timing`; None if nothing was run.
    """

    name: str
    scale: int
    input_size: Size
    output_size: Size
    counts: Counts
    timing: Timing | None


def build_arch(spec: str | Mapping[str, Any], scale: int | None = None) -> SRNetwork:
    """Build a network of the registry by name or `{"type": name, **options}`, with random weights.

    Raises:
        InputError: no such network, or it cannot have that factor.
    """
    spec = {"type": spec} if isinstance(spec, str) else spec
    name = spec["type"]
    takes_scale = "upscale" in inspect.signature(ARCHS.get(name)).parameters
    network: SRNetwork = ARCHS.build({**({"upscale": scale} if scale and takes_scale else {}), **spec})
    if scale is not None and network.info.scale not in (1, scale):
        raise InputError(
            f"{name} enlarges by {network.info.scale}, not by {scale}; leave the scale out", code="profile.scale"
        )
    return network


def count(network: SRNetwork, input_size: Size) -> Counts:
    """Count on PyTorch's `meta` device, which takes neither time nor memory, whatever the size (height, width)."""
    shadow = copy.deepcopy(network).eval().to("meta")
    image = torch.empty((1, network.info.num_in_ch, *input_size), device="meta")
    convolutions = _Convolutions()
    with torch.no_grad(), FlopCounterMode(display=False) as flops, convolutions:
        shadow(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Counts(parameters, flops.get_total_flops() // 2, convolutions.elements, convolutions.number)


def profile(
    networks: Mapping[str, SRNetwork],
    *,
    output_sizes: Sequence[Size] = ((720, 1280),),
    input_size: Size | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    runs: int = 10,
    threads: int | None = None,
    on_run: Callable[[], None] | None = None,
) -> list[Profile]:
    """Profile networks, one image at a time, whole, in the memory layout that `Upscaler` uses.

    The runs of different networks and sizes alternate, so that other load on the machine affects all of them alike.

    Args:
        networks: the networks by name.
        output_sizes: (height, width) of results in px; tables of papers use 720 x 1280. The input is smaller by the
            scale, rounded up to what the network takes.
        input_size: (height, width) of the input in px, instead of `output_sizes`.
        device: see `Upscaler`.
        precision: see `Upscaler`.
        runs: timed runs of each; 0 to count only.
        threads: of the CPU, 1 or more; by default what PyTorch is set to. On a busy machine,
            threads that wait for each other can take ten times as long as a single one.
        on_run: called after each of the (`runs` + 2) runs of each network and size, the first two being the warm-up.

    Returns:
        One profile per network and size, network by network.

    Raises:
        InputError: nothing to profile, an impossible size, device or precision, or too little memory.
    """
    if not networks:
        raise InputError("nothing to profile; name a model or an architecture", code="profile.nothing-to-do")
    if runs < 0:
        raise InputError(f"runs is {runs}; give how many runs to time, or 0 to count only", code="profile.runs")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; give 1 or more", code="profile.threads")
    wanted = [input_size] if input_size else list(output_sizes)
    for height, width in wanted:
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise InputError(
                f"a size of {width}x{height} px is not possible; give one from 1x1 to {MAX_PIXELS} px in all",
                code="profile.size",
            )
    cases = []
    for name, network in networks.items():
        info = network.info
        for size in wanted:
            sides = size if input_size else tuple(math.ceil(side / info.scale) for side in size)
            height, width = (round_up(max(side, info.min_size), info.size_multiple) for side in sides)
            cases.append((name, network, (height, width)))
    timings: list[Timing | None] = [None] * len(cases)
    if runs:
        with _threads(threads):
            timings = list(_time([(network, size) for _, network, size in cases], device, precision, runs, on_run))
    return [
        Profile(
            name,
            network.info.scale,
            (height, width),
            (height * network.info.scale, width * network.info.scale),
            count(network, (height, width)),
            timing,
        )
        for (name, network, (height, width)), timing in zip(cases, timings, strict=True)
    ]


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time(
    cases: Sequence[tuple[SRNetwork, Size]],
    device: str,
    precision: Precision,
    runs: int,
    on_run: Callable[[], None] | None,
) -> list[Timing]:
    chosen = choose_device(device)
    dtype = choose_dtype(precision, chosen)
    threads = f"{torch.get_num_threads()} threads, " if chosen.type == "cpu" else ""
    run = f"{str(dtype).removeprefix('torch.')} on {chosen} ({threads}PyTorch {torch.__version__})"
    prepared: dict[int, SRNetwork] = {}
    steps = []
    try:
        for network, size in cases:
            if id(network) not in prepared:
                own = copy.deepcopy(network).eval().to(chosen, dtype)
                prepared[id(network)] = own.to(memory_format=torch.channels_last)
            image = torch.rand((1, network.info.num_in_ch, *size), device=chosen, dtype=dtype)
            steps.append((prepared[id(network)], image.to(memory_format=torch.channels_last)))
        with torch.no_grad():
            peaks = [_peak_bytes(network, image, on_run) for network, image in steps]
            seconds: list[list[float]] = [[] for _ in steps]
            for number in range(runs + 1):
                for k, (network, image) in enumerate(steps):
                    took = _run(network, image)
                    # The run before was slowed by counting its memory; one more makes the warm-up.
                    if number:
                        seconds[k].append(took)
                    if on_run:
                        on_run()
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise InputError(
                "not enough memory to run a whole image of this size; give a smaller one", code="profile.no-memory"
            ) from error
        raise
    return [Timing(tuple(times), peak, run) for times, peak in zip(seconds, peaks, strict=True)]


def _run(network: SRNetwork, image: Tensor) -> float:
    _wait(image.device)
    start = time.perf_counter()
    network(image)
    _wait(image.device)
    return time.perf_counter() - start


def _peak_bytes(network: SRNetwork, image: Tensor, on_run: Callable[[], None] | None) -> int:
    if image.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(image.device)
        before = torch.cuda.memory_allocated(image.device)
        network(image)
        peak = torch.cuda.max_memory_allocated(image.device) - before
    else:
        with PeakMemory() as counter:
            network(image)
        peak = counter.peak
    if on_run:
        on_run()
    return peak


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class _Convolutions(DispatchMode):
    """Counts the convolutions run inside a `with` block, and the elements of their outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = self.elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        result = func(*args, **(kwargs or {}))
        if getattr(func, "overloadpacket", None) is torch.ops.aten.convolution:
            self.number += 1
            self.elements += result.numel()
        return result
