"""Optimisers by name, the optimizer state of one trainable module, and the EMA of the weights."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imdn_kd.errors import InputError
from imdn_kd.training.muon import Muon
from imdn_kd.training.schedule import Factor

UNFIT = {
    "LBFGS": "it runs the network several times in an iteration",
    "SparseAdam": "it takes sparse gradients only",
}
"""Optimisers of PyTorch that cannot train here, and why."""


class OptimState:
    """One trainable module with its optimizer and learning rate schedule.

    Args:
        module: whose parameters are changed.
        optimizer: `type` and settings of an optimiser, see `optimizers`.
        lr_schedule: factor of its learning rate.
        accelerator: device, precision and processes.
        state: of its optimiser, to resume from.
        wrapped: whether processes exchange the gradients of this module while they are computed, as those of a module
            that is wrapped for it; otherwise they do before a step.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: tuple[str, Mapping[str, Any]],
        lr_schedule: Factor,
        accelerator: Accelerator,
        *,
        state: dict[str, Any] | None = None,
        wrapped: bool = False,
    ) -> None:
        self.module = module
        self._lr_schedule, self._accelerator, self._wrapped = lr_schedule, accelerator, wrapped
        kind, settings = optimizer
        made = make_optimizer(module.parameters(), kind, **settings)
        if state is not None:
            restore(made, state)
        self.optimizer = made

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self, step: int) -> None:
        """Set the learning rate for an iteration."""
        set_lrs(self.optimizer, self._lr_schedule(step))

    def gradients(self) -> list[Tensor]:
        """The gradients, the same in all processes, without the scale of fp16."""
        found = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if not self._wrapped and self._accelerator.num_processes > 1:
            # First, so that all processes find the same ones infinite.
            for gradient in found:
                gradient.copy_(self._accelerator.reduce(gradient, reduction="mean"))
        self._accelerator.unscale_gradients(self.optimizer)
        return found

    def take_step(self) -> None:
        """Change the weights by what `gradients` has given."""
        if self._accelerator.scaler is None:
            self.optimizer.step()
        else:
            self._accelerator.scaler.step(self.optimizer)


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
            raise InputError(f"the optimiser {type!r} has no option {key!r}; {hint}", code="optimizer.unknown-option")
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
        raise InputError("the network has no parameters to train; choose another one", code="optimizer.no-parameters")
    if "fused" in _options_of(type) and keywords.keys().isdisjoint({"fused", "foreach"}):
        # Which devices and types have one differs between optimisers and between versions of PyTorch.
        with suppress(InputError):
            fused = {**keywords, "fused": True}
            _try(type, tensors, fused)
            return _build(type, tensors, fused)
    _try(type, tensors, keywords)
    return _build(type, tensors, keywords)


def set_lrs(optimizer: Optimizer, factor: float) -> None:
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


def make_ema(network: nn.Module, decay: float, device: torch.device) -> AveragedModel:
    """Return a copy of a network whose parameters and buffers follow it: `decay` of the old, the rest of the new.

    The first `update_parameters` takes the weights as they are.

    Args:
        network: copied.
        decay: in [0, 1).
        device: where the average is kept.
    """
    return AveragedModel(network, device=device, multi_avg_fn=_average(decay), use_buffers=True)


def _options_of(name: str) -> list[str]:
    known = optimizers()
    if name in UNFIT:
        raise InputError(
            f"the optimiser {name!r} cannot be used: {UNFIT[name]}; choose from {', '.join(known)}",
            code="optimizer.unfit",
        )
    if name not in known:
        raise InputError(f"no optimiser is called {name!r}; {_hint(name, known, 'known')}", code="optimizer.unknown")
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
    """Make one iteration of stand-ins: some values and devices are refused only then."""
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
            f"the optimiser {name!r} cannot be used with {given} ({reason}); correct the values",
            code="optimizer.bad-value",
        ) from error


def _average(decay: float) -> Callable[[Any, Any, Any], None]:
    lerp = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def average(kept: list[Tensor], new: list[Tensor], count: Tensor | int) -> None:
        if kept[0].is_floating_point():
            lerp(kept, new, count)
            return
        # Whole numbers, as indices and counters, have no averages.
        for old, current in zip(kept, new, strict=True):
            old.copy_(current)

    return average
