"""Networks and their segments, run by an engine in the place of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo, Segment, Statistics
from imdn_kd.inference.engines.base import Engine, Graph, Program
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
        self._of_pixels: dict[float, Graph] = {}

    def __call__(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W."""
        return torch.cat([_run(self._whole, [one])[0] for one in image[:, None]])

    @property
    def takes_pixels(self) -> bool:
        """Whether `pixels` can be called."""
        return self._engine.takes_pixels

    def pixels(self, image: Tensor, white: float) -> Tensor:
        """Upscale an image 1 x C x H x W of uint8 to uint8, rounded half to even; the network has 0 to `white` for it.

        All is done in one pass of the graph, which is fastest where both lie in memory as H x W x C.
        """
        if white not in self._of_pixels:
            sample = (255 * self._sample()[0].permute(1, 2, 0)).byte()
            self._of_pixels[white] = self._load(_PixelModule(self._network, white), [sample], ["pixels"], ["sr"])
        return _run(self._of_pixels[white], [image[0].permute(1, 2, 0)])[0][None].permute(0, 3, 1, 2)

    @property
    def segments(self) -> list[Segment]:
        """The segments, run by the engine."""
        return [
            Segment(part.reads, self._runner(number), part.receptive_radius, part.global_stat)
            for number, part in enumerate(self._parts)
        ]

    @cached_property
    def _whole(self) -> Graph:
        return self._load(self._network, [self._sample()], ["image"], ["sr"])

    @cached_property
    def _graphs(self) -> list[tuple[Graph, list[str]]]:
        """A graph for each segment, and the names of what comes out."""
        features, statistics, graphs = {"image": self._sample()}, None, []
        for part in self._parts:
            samples = [features[name] for name in part.reads]
            with torch.no_grad():
                outputs = part.run({name: features[name] for name in part.reads}, statistics)
            graph = self._load(
                _SegmentModule(self._network, part, list(outputs)),
                [*samples, *(statistics or ())],
                [*part.reads, *(("mean", "std") if statistics else ())],
                # A name for an input and an output would be one value.
                [f"{name}_out" for name in outputs],
            )
            graphs.append((graph, list(outputs)))
            features |= outputs
            if part.global_stat:
                feature = outputs[part.global_stat]
                statistics = Statistics(feature.mean((2, 3), keepdim=True), feature.std((2, 3), keepdim=True))
            else:
                statistics = None
        return graphs

    def _load(self, module: nn.Module, samples: list[Tensor], inputs: list[str], outputs: list[str]) -> Graph:
        return self._engine.load(Program(module.eval(), samples, inputs, outputs), torch.get_num_threads())

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


class _PixelModule(nn.Module):
    """A network from images H x W x C of uint8 to such images."""

    def __init__(self, network: nn.Module, white: float) -> None:
        super().__init__()
        self.network, self._factor = network, white / 255

    def forward(self, pixels: Tensor) -> Tensor:
        sr = self.network(pixels.permute(2, 0, 1)[None].float() * self._factor) / self._factor
        levels: Tensor = sr.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)
        return levels


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
