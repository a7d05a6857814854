"""Optimisers by name, and the course of their learning rate as pure functions of the update."""

from __future__ import annotations

import difflib
import inspect
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imdn_kd.errors import InputError
from imdn_kd.training.muon import Muon

Factor = Callable[[int], float]
"""From how many updates have been made, 0 before the first, to the factor of the base rate for the next one."""

UNFIT = {
    "LBFGS": "it runs the network several times in an update",
    "SparseAdam": "it takes sparse gradients only",
}
"""Optimisers of PyTorch that cannot train here, and why."""


def optimizers() -> dict[str, type[Optimizer]]:
    """The optimisers that can be used, by name: those of `torch.optim`, but Muon, which is ours."""
    found = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer and name not in UNFIT
    }
    return found | {"Muon": Muon}


def check_optimizer(type: str, keywords: Mapping[str, Any]) -> None:
    """Check an optimiser and its options without a network, on the CPU.

    Args:
        type: its name, see `optimizers`.
        keywords: its options, as `lr`; lists stand for tuples.

    Raises:
        InputError: no such optimiser, one that cannot be used here, an option that it does not take, or a value that
            it cannot use.
    """
    accepted = _options_of(type)
    for key in keywords:
        if key not in accepted:
            hint = _hint(key, accepted, "it takes")
            raise InputError(f"the optimiser {type!r} has no option {key!r}; {hint}")
    # `capturable` is for GPUs alone.
    _try(type, [torch.zeros(1)], {key: value for key, value in keywords.items() if key != "capturable"})


def make_optimizer(parameters: Iterable[Tensor], type: str, **keywords: Any) -> Optimizer:  # noqa: ANN401 - as in torch
    """Return an optimiser; its groups hold their base rate as `initial_lr`.

    It is `fused` where there is such a version of it for the devices of the parameters, which is faster; `fused` or
    `foreach` among the options overrule this.

    Args:
        parameters: what it changes, on the devices where they will be trained.
        type: its name, see `optimizers`.
        keywords: its options; lists stand for tuples.

    Raises:
        InputError: as in `check_optimizer`, or there are no parameters.
    """
    check_optimizer(type, keywords)
    tensors = list(parameters)
    if not tensors:
        raise InputError("the network has no parameters to train; choose another one")
    if "fused" in _options_of(type) and keywords.keys().isdisjoint({"fused", "foreach"}):
        # Which devices and types have one differs between optimisers and between versions of PyTorch.
        with suppress(InputError):
            fused = {**keywords, "fused": True}
            _try(type, tensors, fused)
            return _build(type, tensors, fused)
    _try(type, tensors, keywords)
    return _build(type, tensors, keywords)


def constant() -> Factor:
    """The base rate throughout."""
    return lambda step: 1.0


def multistep(
    milestones: Sequence[int],
    gamma: float = 0.1,
    restarts: Sequence[int] = (0,),
    restart_weights: Sequence[float] = (1,),
) -> Factor:
    """A rate that is multiplied at milestones: MultiStepRestartLR of BasicSR, which it also calls MultiStepLR.

    Args:
        milestones: numbers of updates, ascending, at which the rate is multiplied by `gamma`; twice, where one is given
            twice. One that is also a restart counts as the restart only.
        gamma: positive.
        restarts: numbers of updates, ascending, at which the rate goes back to the base rate.
        restart_weights: times this, one for each restart; positive.

    Raises:
        InputError: values that are not as described.
    """
    milestones, restarts, weights = list(milestones), list(restarts), list(restart_weights)
    _check_ascending("milestones", milestones)
    _check_ascending("restarts", restarts)
    if len(set(restarts)) < len(restarts):
        raise InputError(f"restarts are {_listed(restarts)}; give each of them once")
    _check_positive("gamma", [gamma])
    _check_positive("restart_weights", weights)
    _check_lengths("restarts", restarts, weights)

    def factor(step: int) -> float:
        begun = bisect_right(restarts, step)
        start, weight = (restarts[begun - 1], weights[begun - 1]) if begun else (-1, 1.0)
        passed = bisect_right(milestones, step) - bisect_right(milestones, start)
        return float(weight * gamma**passed)

    return factor


def cosine_restarts(
    periods: Sequence[int], restart_weights: Sequence[float] = (1,), eta_min_ratio: float = 0.0
) -> Factor:
    """A rate that falls along half a cosine, again and again: CosineAnnealingRestartLR of BasicSR.

    A period ends with its last update: the rate is lowest there, and the next update begins the next period. After the
    last period the rate stays at its end, where that of BasicSR fails.

    Args:
        periods: how many updates each fall takes, positive.
        restart_weights: height of each fall, one for each period; positive.
        eta_min_ratio: where each fall ends: the lowest rate / the base rate, 0 to 1.

    Raises:
        InputError: values that are not as described.
    """
    periods, weights = list(periods), list(restart_weights)
    if not periods:
        raise InputError("periods are missing; give at least one")
    _check_positive("periods", periods)
    _check_positive("restart_weights", weights)
    _check_lengths("periods", periods, weights)
    if not 0 <= eta_min_ratio <= 1:
        raise InputError(f"the lowest rate is {eta_min_ratio} of the base rate; give one between 0 and the base rate")
    ends = list(accumulate(periods))

    def factor(step: int) -> float:
        index = min(bisect_left(ends, step), len(ends) - 1)
        left = max(ends[index] - step, 0) / periods[index]
        return eta_min_ratio + weights[index] * (1 - eta_min_ratio) * (1 - math.cos(math.pi * left)) / 2

    return factor


def warm_up(factor: Factor, warmup_iter: int) -> Factor:
    """Let the rate rise linearly before it follows `factor`, as BasicSR does.

    Update i, from 1, is made with the base rate times i / `warmup_iter` as long as i < `warmup_iter`. (In BasicSR a
    multi-step rate stays at the last value of the warm-up until it restarts; here it does not.)

    Args:
        factor: the course without warm-up; it is counted from the beginning of the warm-up.
        warmup_iter: 0 or less is no warm-up.
    """
    return lambda step: (step + 1) / warmup_iter if step + 1 < warmup_iter else factor(step)


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its base rate, `initial_lr`, times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def restore(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimiser, but leave its settings (rates, betas, ...) as they are now.

    Args:
        optimizer: of `make_optimizer`, for parameters of the same shapes.
        state: its `state_dict()`, whose tensors it may go on to use.
    """
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _options_of(name: str) -> list[str]:
    known = optimizers()
    if name in UNFIT:
        raise InputError(f"the optimiser {name!r} cannot be used: {UNFIT[name]}; choose from {', '.join(known)}")
    if name not in known:
        raise InputError(f"no optimiser is called {name!r}; {_hint(name, known, 'known')}")
    return [option for option in inspect.signature(known[name]).parameters if option != "params"]


def _hint(word: str, known: Iterable[str], otherwise: str) -> str:
    names = list(known)
    alike = [name for name in names if name.casefold() == word.casefold()]
    near = alike or difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise}: {', '.join(names)}"


def _build(name: str, parameters: list[Tensor], keywords: Mapping[str, Any]) -> Optimizer:
    options: dict[str, Any] = {
        key: _tuple(value) if isinstance(value, list) else value for key, value in keywords.items()
    }
    optimizer = optimizers()[name](parameters, **options)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    # PyTorch refuses `betas: [0, 0.9]`, since 0 is no float.
    fractions = any(isinstance(value, float) for value in values)
    return tuple(float(value) if fractions and type(value) is int else value for value in values)


def _try(name: str, parameters: Sequence[Tensor], keywords: Mapping[str, Any]) -> None:
    """Make one update of stand-ins: some values and devices are refused only then."""
    kinds = {(parameter.device, parameter.dtype) for parameter in parameters}
    shapes = ((1, 1, 1, 1), (1,))
    stand_ins = [nn.Parameter(torch.zeros(s, device=device, dtype=dtype)) for device, dtype in kinds for s in shapes]
    for stand_in in stand_ins:
        stand_in.grad = torch.ones_like(stand_in)
    try:
        _build(name, list(stand_ins), keywords).step()
        if not all(torch.isfinite(stand_in).all() for stand_in in stand_ins):
            raise ValueError("weights become infinite")
    except Exception as error:
        given = ", ".join(f"{key}: {value}" for key, value in keywords.items())
        reason = " ".join(str(error).split())
        raise InputError(
            f"the optimiser {name!r} cannot be used with {given} ({reason}); correct the values"
        ) from error


def _check_ascending(name: str, values: Sequence[int]) -> None:
    if any(value < 0 for value in values) or any(a > b for a, b in pairwise(values)):
        raise InputError(f"{name} are {_listed(values)}; give numbers of updates from 0, in ascending order")


def _check_positive(name: str, values: Sequence[float]) -> None:
    if not all(0 < value < math.inf for value in values):
        raise InputError(f"{name}: {_listed(values)}; give positive numbers")


def _check_lengths(name: str, values: Sequence[int], weights: Sequence[float]) -> None:
    if len(values) != len(weights):
        raise InputError(f"there are {len(values)} {name} and {len(weights)} restart_weights; give one for each")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(map(str, values)) or "none"
