"""What a run will be: sizes of its networks, images, iterations, and about how long it takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from imdn_kd.data.patches import Batch
from imdn_kd.training.log import duration
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.train_setup import TrainSetup

_TIMED = 3
"""Iterations that are timed, of which the fastest counts: in the first one, more is done."""

_ENOUGH = 10.0
"""Seconds after which nothing further is timed."""


def describe_run(options: TrainOptions, setup: TrainSetup, device: torch.device) -> Iterator[str]:
    """Describe a run, a line each; its networks get gradients, and no more.

    Args:
        options: of the run.
        setup: of `imdn_kd.training.run.check`.
        device: where it is to run.
    """
    student = f"student: {options.network_g.type} x{options.scale}, {_parameters(setup.network)}"
    teachers = (f"teacher: {each.name}, {_parameters(each.network)}" for each in setup.distiller.teachers)
    yield "; ".join([student, *teachers])
    images = [f"{len(setup.loader.images):,} images for training"]
    images += [f"{len(each.pairs)} of {each.name} for validation" for each in setup.val]
    images += [f"{len(each.pairs)} of {each.name} for the test" for each in setup.test]
    yield ", ".join(images)
    begun = 0 if setup.state is None else setup.state.step
    seconds, cache = seconds_of_iteration(setup, begun, device), seconds_of_cache(setup, device)
    stages = options.datasets.train.stages()
    patches = ", then ".join(f"{stage.batch_size} patches of {stage.gt_size} px" for stage in stages)
    pace = f"of {patches}, {seconds:.2g} s each on {device.type} without validation"
    before = f", and {duration(cache)} before it for the teacher's outputs" if cache else ""
    if options.train.is_open:
        yield f"iterations: until time is up, {pace}{before}"
        return
    total = options.train.total_iter
    left = max(total - begun, 0)
    rest = f" ({left:,} are left)" if begun else ""
    yield f"{total:,} iterations{rest}, {pace}: about {duration(seconds * left)}{before}"


def _parameters(network: nn.Module) -> str:
    return f"{sum(each.numel() for each in network.parameters()):,} parameters"


def seconds_of_iteration(setup: TrainSetup, begun: int, device: torch.device) -> float:
    """Of the student's losses and gradients; the optimizer's part is small. Cached outputs are taken to be there."""
    distiller = setup.distiller.to(device).train()
    (batches, *_) = setup.loader.batches(begun, begun + 1, device)
    planes = [_with_cached(batch, distiller.cache_key) for batch in batches]

    def run(patches: slice) -> None:
        for batch in planes if patches.stop is None else planes[:1]:
            part = {name: plane[patches] for name, plane in batch.items()}
            losses = distiller.losses(distiller.run_student(part), begun)
            torch.stack([*losses.values()]).sum().backward()  # type: ignore[no-untyped-call]

    with torch.random.fork_rng([]):
        seconds = _seconds(run, sum(len(batch["lq"]) for batch in planes), device)
    distiller.zero_grad()
    return seconds


def _with_cached(batch: Batch, key: str | None) -> Batch:
    return batch if key is None or key in batch else {**batch, key: batch["gt"]}


def seconds_of_cache(setup: TrainSetup, device: torch.device) -> float:
    """Of the teachers, for all images, by that for a batch; 0 if their outputs are there or are not wanted."""
    if setup.cache is None or setup.cache.is_there or not setup.cache.planes:
        return 0.0
    ((batch, *_), *_) = setup.loader.batches(0, 1, device)
    lq = batch["lq"]

    def run(patches: slice) -> None:
        for teacher in setup.distiller.teachers:
            teacher(lq[patches])

    return _seconds(run, len(lq), device) * setup.cache.lr_pixels / (lq.numel() / lq.shape[1])


def _seconds(run: Callable[[slice], None], patches: int, device: torch.device) -> float:
    """Of a run on all patches; where that would take long, that on one of them, times their number."""
    alone = _fastest(lambda: run(slice(1)), device)
    return patches * alone if patches * alone > _ENOUGH else _fastest(lambda: run(slice(None)), device)


def _fastest(run: Callable[[], None], device: torch.device) -> float:
    found: list[float] = []
    while len(found) < _TIMED and sum(found) < _ENOUGH:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)
