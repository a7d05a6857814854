"""Where the first value came from that is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def find_first_nonfinite(network: nn.Module, lq: Tensor, gt: Tensor, losses: Mapping[str, Tensor]) -> str:
    """Say in one line what is the first thing that is not finite, in the order in which an iteration makes them.

    These are the batch, the weights, the outputs of the modules, the losses and the gradients. For the outputs the
    network runs again, in its mode and without gradients; its buffers, its hooks and the state of the random numbers
    stay as they are. Call it under the autocast of the training: half precision may be the cause.

    Args:
        network: as it was in the iteration, not wrapped for several processes. The gradients of its parameters, if
            there are any, are those of the iteration.
        lq: the input, N x C x H x W, on the device of the network.
        gt: the ground truth.
        losses: the terms of the loss by name, scalars.
    """
    return (
        _in_batch({"lq": lq, "gt": gt})
        or _in_weights(network)
        or _in_outputs(network, lq)
        or _in_losses(losses)
        or _in_gradients(network)
        or "batch, weights, outputs, losses and gradients are all finite when the network runs again"
    )


def _in_batch(batch: Mapping[str, Tensor]) -> str:
    for name, images in batch.items():
        if flaw := _flaw(images):
            index = next(index for index, image in enumerate(images) if _flaw(image))
            return f"the input batch is not finite: {name} has {flaw}, first in image {index} of the batch"
    return ""


def _in_weights(network: nn.Module) -> str:
    for name, parameter in network.named_parameters():
        if flaw := _flaw(parameter):
            return f"the weight {name!r} is not finite: it has {flaw}"
    for name, buffer in network.named_buffers():
        # Infinite ones may be meant: masks.
        if buffer.isnan().any():
            return f"the buffer {name!r} is not finite: it has {_flaw(buffer)}"
    return ""


def _in_outputs(network: nn.Module, lq: Tensor) -> str:
    found: list[str] = []
    inputs_were_finite: list[bool] = []  # of the modules that are running, the innermost last

    def before(module: nn.Module, args: Any, keywords: Any) -> None:  # noqa: ANN401 - whatever modules take
        # Now, since a module may work in place.
        inputs_were_finite.append(not _first_flaw((args, keywords)))

    def after(module: nn.Module, args: Any, keywords: Any, output: Any) -> None:  # noqa: ANN401
        was_finite = inputs_were_finite.pop()
        if not found and (flaw := _first_flaw(output)):
            name = repr(paths[module]) if paths[module] else "the network"
            whence = "its input is finite" if was_finite else "its input is not finite either, so look at what makes it"
            found.append(f"the output of {name} ({type(module).__name__}) is not finite: it has {flaw}; {whence}")

    paths = {module: path for path, module in network.named_modules()}
    handles = []
    # Training may go on after this: layers must not learn from this run, nor use up random numbers.
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    devices = [lq.device] if lq.device.type == "cuda" else []
    try:
        for module in paths:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        with torch.no_grad(), torch.random.fork_rng(devices):
            functional_call(network, buffers, (lq,))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _in_losses(losses: Mapping[str, Tensor]) -> str:
    wrong = [f"{name} is {float(loss.detach())}" for name, loss in losses.items() if _flaw(loss)]
    return f"the loss is not finite, though the output of the network is: {', '.join(wrong)}" if wrong else ""


def _in_gradients(network: nn.Module) -> str:
    wrong = [(name, flaw) for name, p in network.named_parameters() if p.grad is not None and (flaw := _flaw(p.grad))]
    if not wrong:
        return ""
    # Gradients are made from the output backwards, and most networks register their parts in order.
    name, flaw = wrong[-1]
    others = f"; {len(wrong) - 1} other parameters have such gradients too" if len(wrong) > 1 else ""
    return f"the gradient of {name!r} is not finite, though the loss is: it has {flaw}{others}"


def _first_flaw(value: Any) -> str:  # noqa: ANN401 - whatever modules take and give
    return next(filter(None, map(_flaw, _tensors(value))), "")


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _tensors(part)


def _flaw(tensor: Tensor) -> str:
    """What is wrong with the values of a tensor; empty if nothing is."""
    finite = int(torch.isfinite(tensor).sum())
    if finite == tensor.numel():
        return ""
    nan = int(torch.isnan(tensor).sum())
    infinite = tensor.numel() - finite - nan
    counts = " and ".join(f"{count} {word}" for count, word in ((nan, "NaN"), (infinite, "infinite")) if count)
    return f"{counts} among {tensor.numel()} values of {str(tensor.dtype).removeprefix('torch.')}"
