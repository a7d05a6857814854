"""Models in 8 bits: calibrated after training, saved, exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from imdn_kd.archs.quantize import QuantizedConv2d, ranges_of
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.export.job import export_model
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.quantize.post_training import quantize_model
from imdn_kd.registry import ARCHS
from tests.cli.run import run
from tests.fake_set import picture
from tests.refused import refused

PHOTOGRAPHS = [picture((70, 80), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def model():
    return load_model("plain_m_x4")


@pytest.fixture(scope="module")
def in_8_bits(model):
    return quantize_model(model, PHOTOGRAPHS)


def test_the_original_stays_and_the_result_is_near(model, in_8_bits):
    image = torch.from_numpy(PHOTOGRAPHS[0].transpose(2, 0, 1)[None] / np.float32(255))
    with torch.no_grad():
        difference = (in_8_bits.network(image) - model.network(image)).abs()
    assert 0 < difference.mean() < 2 / 255
    assert not ranges_of(model.network.state_dict())
    assert list(ranges_of(in_8_bits.network.state_dict())) == [*(f"body.{number}.0" for number in range(6)), "tail"]
    assert quantize_model(in_8_bits, PHOTOGRAPHS) is in_8_bits


def test_layers_that_would_harm_the_result_stay_in_floating_point():
    network = ARCHS.build({"type": "plain_t"}).eval()
    with torch.no_grad():  # channels of very different size, of which one range serves the small ones badly
        network.body[2][0].weight[0] *= 300
        network.body[3][0].weight[:, 0] /= 300
        network.tail.weight *= 3
    kept = ranges_of(quantize_model(ModelFile(network), PHOTOGRAPHS).network.state_dict())
    assert "body.3.0" not in kept and {"body.0.0", "body.1.0"} <= kept.keys()


@pytest.mark.parametrize("photographs", [[], PHOTOGRAPHS[:1]], ids=["none", "tiny"])
def test_too_few_pixels_are_refused(model, photographs):
    with refused("quantize.too-few-pixels"):
        quantize_model(model, [photograph[:3, :2] for photograph in photographs])


def test_a_model_file_keeps_weights_and_ranges(in_8_bits, tmp_path):
    save_model(tmp_path / "a.safetensors", in_8_bits)
    again = load_model(tmp_path / "a.safetensors").network
    assert {key: value.tolist() for key, value in again.state_dict().items()} == {
        key: value.tolist() for key, value in in_8_bits.network.state_dict().items()
    }
    assert isinstance(again.tail, QuantizedConv2d)
    weights = load_file(tmp_path / "a.safetensors")
    assert weights.keys() == load_model("plain_m_x4").network.state_dict().keys()


@pytest.mark.parametrize(
    "ranges",
    ["[", "[]", '{"tail": 1}', '{"tail": [1, 2]}', '{"tail": [0, Infinity]}', '{"nose": [0, 1]}', '{"head.0": [0, 1]}'],
)
def test_damaged_ranges_are_refused(model, tmp_path, ranges):
    architecture = json.dumps(model.network.spec)
    path = tmp_path / "a.safetensors"
    save_file(model.network.state_dict(), path, {"architecture": architecture, "input_ranges": ranges})
    with refused("model.bad-metadata"):
        load_model(path)


@pytest.fixture(scope="module")
def exported(in_8_bits, model, tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("exported") / "a.onnx"
    export_model(in_8_bits, "onnx", path, name="a", photographs=PHOTOGRAPHS, reference=model.network)
    return path


def test_an_onnx_file_holds_int8_kernels_and_exactly_the_ranges(exported, in_8_bits):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(exported).graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    values |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"
    }
    kernels = [value for value in values.values() if value.dtype == np.int8 and value.ndim == 4]
    assert [value.shape[0] for value in kernels] == [32] * 6 + [48]
    steps = [values[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]
    ranges = ranges_of(in_8_bits.network.state_dict()).values()
    assert [float(step) for step in steps] == [float(np.float32(high - low) / np.float32(255)) for low, high in ranges]
    assert exported.stat().st_size < 120_000  # 280 thousand in fp32


def test_an_onnx_file_gives_the_results_of_pytorch(exported, in_8_bits):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    image = torch.rand(1, 3, 20, 24)
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        assert np.abs(found - in_8_bits.network(image).numpy()).max() <= 1 / 255
    assert session.get_modelmeta().custom_metadata_map["precision"] == "int8"


def test_a_loss_beyond_the_bound_is_refused(in_8_bits, model, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with refused("export.int8-loss"):
        export_model(
            in_8_bits, "onnx", tmp_path / "a.onnx", name="a", photographs=PHOTOGRAPHS, reference=model.network,
            least_psnr=90,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_the_command_line_measures_both(tmp_path, capfd):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for seed, pixels in enumerate(PHOTOGRAPHS):
        write_image(tmp_path / "photos" / f"{seed}.png", Picture(pixels))
    command = ("export", "plain_m_x4", "--to", "onnx", "-o", tmp_path / "a.onnx", "--int8")
    result = run(capfd, *command)
    assert result.code != 0 and "--images" in result.err
    result = run(capfd, *command, "--images", tmp_path / "photos", "--hr", tmp_path / "photos", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["metadata"]["precision"] == "int8" and report["psnr"] > 45
    assert "scores" in report
