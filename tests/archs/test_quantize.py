from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from imdn_kd.archs.quantize import QuantizedConv2d, observe_ranges, quantizable, quantize, ranges_of, without_ranges
from imdn_kd.inference.engines.graphs import to_onnx
from imdn_kd.registry import ARCHS
from tests.refused import refused

NAMES = [name for name in ARCHS if name.islower() and not name.endswith("_l")]


def images_for(network: nn.Module, count: int = 2) -> list[torch.Tensor]:
    side = max(12, 4 * network.info.size_multiple)
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((1, network.info.num_in_ch, side, side + 4), generator=generator) for _ in range(count)]


def in_8_bits(network: nn.Module) -> nn.Module:
    return quantize(copy.deepcopy(network), observe_ranges(network, images_for(network), quantizable(network)))


def reference(x: np.ndarray, kernel: np.ndarray, low: float, high: float) -> np.ndarray:
    """A convolution without padding of integers, as an int8 runtime computes it: 1 x I x H x W, O x I x k x k."""
    step = (high - low) / 255
    zero = round(-low / step)
    codes = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int64) - zero
    steps = np.abs(kernel).max((1, 2, 3)) / 127
    taps = np.rint(kernel / steps[:, None, None, None]).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes[0], kernel.shape[2:], (1, 2))
    return np.einsum("ihwyx,oiyx->ohw", windows, taps) * step * steps[:, None, None]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.3, 0.8), (-2.0, 0.0)])
def test_results_are_those_of_whole_numbers(low, high):
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 5, 3, bias=False)
    network = quantize(nn.Sequential(convolution), {"0": (low, high)})
    x = 3 * torch.rand(1, 4, 9, 8) - 1.5  # beyond the range as well
    expected = reference(x.numpy().astype(np.float64), convolution.weight.detach().numpy(), low, high)
    assert np.abs(network(x)[0].detach().numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_every_network_runs_in_8_bits_near_its_own_results(name):
    torch.manual_seed(0)
    network = ARCHS.build({"type": name}).eval()
    quantised, image = in_8_bits(network), images_for(network)[0]
    with torch.no_grad():
        difference = (quantised(image) - network(image)).abs()
    assert difference.max() > 0 and difference.mean() < 0.02
    assert without_ranges(quantised.state_dict()).keys() == network.state_dict().keys()
    assert [path for path, module in quantised.named_modules() if isinstance(module, QuantizedConv2d)] == list(
        ranges_of(quantised.state_dict())
    )


def test_a_flat_picture_stays_flat_in_plain_networks():
    network = ARCHS.build({"type": "plain_t"}).eval()
    with torch.no_grad():
        sr = in_8_bits(network)(torch.full((1, 3, 6, 7), 100 / 255))
    assert sr.unique().numel() == 1


def test_ranges_hold_zero_and_every_extreme_and_leave_out_the_image():
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 1, 1], [2, 0, 0]])[..., None, None])
    images = [torch.full((1, 3, 2, 2), 0.5), torch.full((1, 3, 2, 2), 0.25)]
    assert observe_ranges(network, images, ["0", "1"]) == {"1": (0, 1.5)}


def test_attention_on_single_pixels_stays_in_floating_point():
    quantised = in_8_bits(ARCHS.build({"type": "IMDN", "num_feat": 16, "num_block": 1}).eval())
    found = list(ranges_of(quantised.state_dict()))
    assert "IMDB1.c5" in found and not any("cca" in path for path in found)


def test_layers_that_stay_in_floating_point_are_named_by_their_path_or_one_around():
    network = ARCHS.build({"type": "plain_t"})
    assert quantizable(network) == [*(f"body.{number}.0" for number in range(5)), "tail"]
    assert quantizable(network, ["body.0", "body.1.0"]) == ["body.2.0", "body.3.0", "body.4.0", "tail"]
    with refused("quantize.unknown-layer"):
        quantizable(network, ["head.1.0"])
    with refused("quantize.nothing"):
        quantizable(network, ["body", "tail"])


def test_all_weights_learn_through_the_rounding():
    torch.manual_seed(0)
    network = in_8_bits(ARCHS.build({"type": "plain_t"}))
    network(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(each.grad.abs().sum() > 0 for each in network.parameters())


def test_autocast_rounds_neither_steps_nor_ranges():
    network = quantize(nn.Sequential(nn.Conv2d(2, 2, 1)), {"0": (0.0, 1.0)})
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(torch.rand(1, 2, 3, 3))).all()


@pytest.mark.parametrize("name", ["plain_t", "imdn_rtc"])
def test_onnx_runtime_computes_the_same_in_integers(name):
    """As the format says it; the fused kernels of processors without VNNI saturate sums of two products."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = in_8_bits(ARCHS.build({"type": name}).eval())
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    image = images_for(network)[0]
    onnx = to_onnx(network, [image], inputs=["image"], outputs=["sr"])
    session = runtime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        assert np.abs(found - network(image).numpy()).max() <= 1 / 255
