"""Networks and their segments, run by an engine in the place of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo, Segment, Statistics
from imdn_kd.inference.engines.base import Engine, Graph
from imdn_kd.inference.engines.graphs import to_onnx
from imdn_kd.inference.tiles import round_up

_SAMPLE_SIDE = 32


class CompiledNetwork:
    """A network in fp32 on the CPU and the graphs that an engine makes of it, each when it is first run.

    Args:
        engine: that runs.
        network: from N x C x H x W to N x C x sH x sW, in evaluation mode.
        info: of the network.
        segments: of the network, if it is run over crops; see `SRNetwork.segments`.
    """

    def __init__(self, engine: Engine, network: nn.Module, info: ModelInfo, segments: Sequence[Segment] = ()) -> None:
        self._engine, self._network, self._info, self._parts = engine, network, info, segments

    def __call__(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W."""
        return torch.cat([_run(self._whole, [one])[0] for one in image[:, None]])

    @property
    def segments(self) -> list[Segment]:
        """The segments, run by the engine."""
        return [
            Segment(part.reads, self._runner(number), part.receptive_radius, part.global_stat)
            for number, part in enumerate(self._parts)
        ]

    def onnx(self) -> bytes:
        """The graph of the whole network, its input `image` and its output `sr`."""
        return to_onnx(self._network, [self._sample()], inputs=["image"], outputs=["sr"])

    @cached_property
    def _whole(self) -> Graph:
        return self._engine.load(self.onnx(), torch.get_num_threads())

    @cached_property
    def _graphs(self) -> list[tuple[Graph, list[str]]]:
        """A graph for each segment, and the names of what comes out."""
        if len(self._parts) == 1:
            return [(self._whole, ["sr"])]
        features, statistics, graphs = {"image": self._sample()}, None, []
        for part in self._parts:
            samples = [features[name] for name in part.reads]
            with torch.no_grad():
                outputs = part.run({name: features[name] for name in part.reads}, statistics)
            inputs = [*part.reads, *(("mean", "std") if statistics else ())]
            onnx = to_onnx(
                _SegmentModule(self._network, part, list(outputs)),
                [*samples, *(statistics or ())],
                inputs=inputs,
                # A name for an input and an output would be one value.
                outputs=[f"{name}_out" for name in outputs],
            )
            graphs.append((self._engine.load(onnx, torch.get_num_threads()), list(outputs)))
            features |= outputs
            if part.global_stat:
                feature = outputs[part.global_stat]
                statistics = Statistics(feature.mean((2, 3), keepdim=True), feature.std((2, 3), keepdim=True))
            else:
                statistics = None
        return graphs

    def _runner(self, number: int) -> Callable[[Mapping[str, Tensor], Statistics | None], dict[str, Tensor]]:
        def run(features: Mapping[str, Tensor], statistics: Statistics | None) -> dict[str, Tensor]:
            graph, names = self._graphs[number]
            inputs = [features[name] for name in self._parts[number].reads]
            return dict(zip(names, _run(graph, [*inputs, *(statistics or ())]), strict=True))

        return run

    def _sample(self) -> Tensor:
        step = self._info.size_multiple
        side = round_up(max(_SAMPLE_SIDE, self._info.min_size), step)
        return torch.rand((1, self._info.num_in_ch, side, side + step))


class _SegmentModule(nn.Module):
    """A segment as a module, which holds the network so that its parameters are known."""

    def __init__(self, network: nn.Module, segment: Segment, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network, self._segment, self._outputs = network, segment, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self._segment.reads)
        statistics = Statistics(*tensors[count:]) if len(tensors) > count else None
        results = self._segment.run(dict(zip(self._segment.reads, tensors, strict=False)), statistics)
        return tuple(results[name] for name in self._outputs)


def _run(graph: Graph, tensors: Sequence[Tensor]) -> list[Tensor]:
    try:
        arrays = graph([tensor.contiguous().numpy() for tensor in tensors])
    except Exception as error:
        # Those of ONNX Runtime are of no standard kind; callers look for those of PyTorch.
        raise RuntimeError(str(error)) from error
    return [torch.from_numpy(array) for array in arrays]
