"""Exported files against PyTorch, run by their own runtimes, and as models."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from imdn_kd.archs.adopted import adopt
from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.inference.export import formats, job
from imdn_kd.inference.export.job import export_model
from imdn_kd.inference.export.parity import SIZES
from imdn_kd.inference.graph_file import open_model
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.inference.weights import load_weights
from imdn_kd.registry import ARCHS
from tests.cli.run import run
from tests.fake_set import picture
from tests.inference.test_cropping import lively, random_image
from tests.inference.test_engines import NETWORKS
from tests.integrations.test_spandrel import loaded
from tests.refused import refused

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "ncnn": ".param", "torchscript": ".pt", "pt2": ".pt2"}


def needs(name: str) -> None:
    """Skip where the packages of a format are not installed."""
    for package in formats.import_module(f"imdn_kd.inference.export.{name}").PACKAGES:
        pytest.importorskip(package)


def exported(network: SRNetwork, name: str, folder: Path, **options: object) -> job.Export:
    needs(name)
    return export_model(ModelFile(network), name, folder / f"model{SUFFIXES[name]}", name="model", **options)


@pytest.fixture(scope="module")
def plain() -> SRNetwork:
    torch.manual_seed(0)
    return lively(ARCHS.build({"type": "Plain", "num_feat": 4, "num_block": 1, "upscale": 2}).eval())


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def graph(request: pytest.FixtureRequest, plain: SRNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file that can be given as a model."""
    return exported(plain, request.param, tmp_path_factory.mktemp(request.param)).files[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_itself_in_onnx(name, tmp_path):
    needs("onnx")
    import onnx
    import onnxruntime

    network = lively(ARCHS.build({"type": name, **NETWORKS[name]}).eval())
    made = exported(network, "onnx", tmp_path)
    assert len({each.size for each in made.parity.sizes}) == SIZES >= 20
    assert made.parity.sizes[0].size == (network.info.min_size, network.info.min_size)
    content = made.files[0].read_bytes()
    session = onnxruntime.InferenceSession(content)
    image = torch.cat([random_image(24, 32), random_image(24, 32).flip(3)])
    with torch.no_grad():
        expected = network(image).numpy()
    (found,) = session.run(["sr"], {"image": image.numpy()})
    assert np.abs(found - expected).max() <= 1e-4
    said = session.get_modelmeta().custom_metadata_map
    assert said == made.metadata
    info = network.info
    assert (said["scale"], said["value_range"], said["colours"]) == (str(info.scale), "1", "RGB")
    assert (said["size_multiple"], said["min_size"]) == (str(info.size_multiple), str(info.min_size))
    assert int(said["receptive_radius"]) == info.receptive_radius
    shuffles = [node for node in onnx.load_from_string(content).graph.node if node.op_type == "DepthToSpace"]
    assert {bytes(node.attribute[1].s) for node in shuffles} <= {b"CRD"}, "the order of nn.PixelShuffle"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Compact", "ESRGAN", "RCAN", "SPAN", "SwinIR"])
def test_networks_of_spandrel_are_themselves_in_onnx(name, tmp_path):
    if find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    made = exported(loaded(name, tmp_path), "onnx", tmp_path)
    assert len(made.parity.sizes) == SIZES
    assert made.metadata["receptive_radius"] == ""
    assert open_model(made.files[0]).network.info.receptive_radius is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "ncnn", "torchscript", "pt2"])
def test_networks_that_pool_globally_are_themselves_in_every_format(name, tmp_path):
    network = lively(ARCHS.build({"type": "IMDN", "num_feat": 8, "num_block": 1, "upscale": 2}).eval())
    made = exported(network, name, tmp_path)
    form = formats.find_format(name)
    assert [file.suffix for file in made.files] == list(form.SUFFIXES)
    assert made.bytes == sum(file.stat().st_size for file in made.files)
    assert form.read_metadata(made.files[0]) == made.metadata
    assert made.metadata["global_pooling"] == "yes"
    assert list(tmp_path.iterdir()) == unordered(made.files)
    image = random_image(17, 30)
    with torch.no_grad():
        expected = network(image).numpy()
    assert np.abs(form.load(made.files[0], 1)(image.numpy()) - expected).max() <= 1e-4


class unordered:  # noqa: N801 - reads as a word
    """Equal to what has the same elements."""

    def __init__(self, items: object) -> None:
        self._items = set(items)

    def __eq__(self, other: object) -> bool:
        return self._items == set(other)


@pytest.mark.slow
def test_sizes_that_a_program_refuses_are_said(tmp_path):
    network = ARCHS.build({"type": "IMDN_AS", "num_feat": 4, "num_block": 1}).eval()  # halves its features twice
    made = exported(network, "pt2", tmp_path)
    smallest = int(made.metadata["min_size"])
    assert smallest > network.info.min_size
    program = torch.export.load(made.files[0]).module()
    program(torch.rand(1, 3, smallest, smallest))
    with pytest.raises(AssertionError):
        program(torch.rand(1, 3, smallest - network.info.size_multiple, smallest))


class Decomposed(nn.Module):
    def forward(self, image):
        side = min(image.shape[2:])
        values, _ = torch.linalg.eigh(image[..., :side, :side])
        return nn.functional.interpolate(image, scale_factor=2) + values.mean()


class Branching(nn.Module):
    def forward(self, image):
        if image.mean() > 2:
            image = image * 2
        return nn.functional.interpolate(image, scale_factor=2)


class Sized(nn.Module):
    """Traced, it does for images of all sizes what it does for the sample's."""

    def forward(self, image):
        large = nn.functional.interpolate(image, scale_factor=2)
        return large if int(image.shape[2]) < 64 else large * 1.001


@pytest.mark.parametrize(
    ("network", "name", "code", "told"),
    [
        (Decomposed, "onnx", "engine.cannot-export", "linalg_eigh"),
        (Decomposed, "ncnn", "engine.cannot-export", "eigh"),
        (Branching, "onnx", "export.value-dependent", "if image.mean() > 2:"),
        (Branching, "torchscript", "export.value-dependent", "if image.mean() > 2:"),
        (Sized, "torchscript", "export.parity", "px"),
    ],
)
def test_what_cannot_be_exported_says_why_and_leaves_nothing(network, name, code, told, tmp_path, capfd):
    adopted = adopt(network().eval(), {"type": "mine"}, ModelInfo(scale=2))
    with refused(code) as caught:
        exported(adopted, name, tmp_path)
    (line,) = caught.value.lines
    assert told in line
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_another_result_replaces_nothing(plain, tmp_path, error, monkeypatch):
    form = formats.find_format("torchscript")
    (tmp_path / "model.pt").write_text("old")
    load = form.load
    monkeypatch.setattr(
        form, "load", lambda path, threads: lambda image: load(path, threads)(image) + np.float32(error)
    )
    with refused("export.parity"):
        exported(plain, "torchscript", tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert (tmp_path / "model.pt").read_text() == "old"


def test_files_of_one_export_appear_together_or_not_at_all(tmp_path, monkeypatch):
    made = [tmp_path / name for name in ("a.xml", "a.bin")]
    targets = [tmp_path / "out" / path.name for path in made]
    for path in made:
        path.write_text("new")
    replaced = []

    def failing(self: Path, target: Path) -> Path:
        replaced.append(target)
        if len(replaced) == 2:
            raise OSError(28, "No space left on device")
        return Path.rename(self, target)

    with monkeypatch.context() as patched, refused("file.cannot-write"):
        patched.setattr(Path, "replace", failing)
        job._publish(made, targets, overwrite=True)
    assert replaced == targets[::-1]  # what names the others comes last
    assert list((tmp_path / "out").iterdir()) == []
    job._publish(made, targets, overwrite=False)
    assert [target.read_text() for target in targets] == ["new", "new"]
    with refused("file.exists"):
        job._publish(made, targets, overwrite=False)
    assert list((tmp_path / "out").iterdir()) == unordered(targets)


def test_names_and_packages_are_checked_before_the_work(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "check_values_are_free", lambda *_: pytest.fail("the work has begun"))
    with refused("export.suffix"):
        export_model(ModelFile(plain), "torchscript", tmp_path / "a.onnx", name="a")
    (tmp_path / "model.pt").touch()
    with refused("file.exists"):
        exported(plain, "torchscript", tmp_path)
    (tmp_path / "b.pt").mkdir()
    with refused("file.exists"):
        export_model(ModelFile(plain), "torchscript", tmp_path / "b.pt", name="b", overwrite=True)
    with refused("export.unknown-format"):
        export_model(ModelFile(plain), "tensorrt", tmp_path / "a.trt", name="a")
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    with refused("export.not-installed") as caught:
        export_model(ModelFile(plain), "ncnn", tmp_path / "a.param", name="a")
    assert "pnnx" in str(caught.value)


def test_a_file_is_a_model(graph, plain):
    image = picture((37, 41))
    expected = Upscaler(plain, engine="torch", device="cpu")(image).astype(int)
    for options in ({}, {"crop_size": 16}, {"crop": "local", "crop_size": 16}, {"crop": "whole"}):
        assert np.abs(Upscaler(graph, device="cpu", **options)(image) - expected).max() <= 1
    model = open_model(graph)
    assert model.network.info == plain.info
    names = {f"{open_model(path).network}" for path in (graph, graph)}
    assert len(names) == 1


def test_a_file_runs_as_it_is(graph):
    for options in ({"engine": "torch"}, {"engine": open_model(graph).network.runtime}):
        Upscaler(graph, device="cpu", **options)
    with refused("engine.exported"):
        Upscaler(graph, device="cpu", precision="bf16")
    with refused("model.other-network"):
        Upscaler(graph, device="cpu", arch={"type": "imdn"})
    for read in (load_model, lambda path: load_weights(nn.Conv2d(3, 3, 3), path)):
        with refused("model.is-graph"):
            read(graph)


def test_damaged_files_and_those_of_others(graph, tmp_path):
    content = graph.read_bytes()
    if graph.suffix == ".onnx":
        import onnx

        model = onnx.load_from_string(content)
        del model.metadata_props[:]
        foreign = model.SerializeToString()
    else:
        (tmp_path / "model.bin").write_bytes(graph.with_suffix(".bin").read_bytes())
        foreign = content.replace(b"imdn_kd.export.1", b"another.format.9")
    path = tmp_path / graph.name
    path.write_bytes(foreign)
    with refused("export.foreign"):
        open_model(path)
    path.write_bytes(content[: len(content) // 2])
    with refused("model.damaged"):
        open_model(path)


def test_command(tmp_path, capfd, plain, monkeypatch):
    needs("onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("imdn_kd.cli.progress._LINE_EVERY", math.inf)  # of which a slow machine prints lines
    save_model("mine.safetensors", ModelFile(plain, value_range=255))
    (tmp_path / "photos").mkdir()
    for number, mode in enumerate(["RGB", "L", "RGBA", "P", "I;16", "CMYK"]):
        suffix = "jpg" if mode == "CMYK" else "png"
        image = Image.fromarray(picture((3 + 40 * (number % 2), 2 + 30 * number)))
        wanted = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else None
        (wanted or image.convert(mode)).save(f"photos/{number}.{suffix}")
    shown = run(capfd, "export", "mine.safetensors", "--to", "onnx", "-o", "a.onnx", "--images", "photos", "--json")
    assert (shown.code, shown.err) == (0, "")
    report = json.loads(shown.out)
    assert (report["files"], report["images"], report["metadata"]["name"]) == (["a.onnx"], "photos", "mine")
    assert report["metadata"]["value_range"] == "255"
    assert report["difference"] <= 1e-4
    assert len(report["sizes"]) == SIZES
    shown = run(capfd, "export", "mine.safetensors", "--to", "onnx", "-o", "a.onnx")
    assert (shown.code, shown.err.count("\n")) == (2, 1)
    shown = run(capfd, "upscale", "photos/0.png", "-o", "large.png", "--model", "a.onnx")
    assert (shown.code, shown.err) == (0, "")
    assert Image.open("large.png").size == (4, 6)
    (tmp_path / "set").mkdir()
    Image.fromarray(picture((30, 40))).save("set/a.png")
    shown = run(capfd, "benchmark", "--model", "a.onnx", "--model", "mine.safetensors", "--data", "set", "--json")
    assert shown.err == ""
    both = [score["psnr"] for score in json.loads(shown.out)["scores"]]
    assert both[0] == pytest.approx(both[1], abs=0.01)
