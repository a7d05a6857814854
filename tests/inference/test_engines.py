"""Engines against PyTorch: every network, every way of cropping, and how one is chosen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from imdn_kd.archs import SRNetwork
from imdn_kd.archs.wrapping import wrap
from imdn_kd.inference.cropping import AdaptiveCropping
from imdn_kd.inference.engines import base, choice, remembered, torch_compile, trial
from imdn_kd.inference.engines.base import Array, Engine, Graph, Program
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.registry import ARCHS
from tests.cli.run import run
from tests.fake_set import picture
from tests.inference.test_cropping import lively, random_image
from tests.refused import refused

RUNTIMES = ("onnxruntime", "openvino", "ncnn")


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Choices are remembered elsewhere than in the user's folder."""
    monkeypatch.setattr(remembered, "user_cache_path", lambda _: tmp_path / "cache")
    return remembered.memory_file()


def runtime(name: str) -> base.Engine:
    pytest.importorskip(name)
    return base.find_engine(name)


NETWORKS = {
    "IMDN": {"num_feat": 16, "num_block": 2, "upscale": 2},
    "IMDN_AS": {"num_feat": 16, "num_block": 2},
    "IMDN_RTC": {"num_feat": 8, "num_block": 2, "upscale": 3},
    "IMDN_RTE": {},
    "Plain": {"num_feat": 8, "num_block": 2, "upscale": 4},
}


def test_there_is_a_network_of_every_class():
    assert set(NETWORKS) == {name for name in ARCHS if name[0].isupper()}


SHORT = {name: {**options, "num_block": 1} if "num_block" in options else options for name, options in NETWORKS.items()}
CASES = [(engine, name) for engine in RUNTIMES for name in SHORT if engine != "ncnn" or name in ("IMDN", "Plain")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def cropping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AdaptiveCropping:
    """Every network in exact crops, those that pool in segments; ncnn, which takes long to convert, has one of each."""
    engine, name = request.param
    torch.manual_seed(0)
    network = lively(ARCHS.build({"type": name, **SHORT[name]}).eval())
    return AdaptiveCropping(network, engine=runtime(engine), scratch=tmp_path_factory.mktemp("scratch"))


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop_size=st.none() | st.integers(8, 40),
    memory=st.integers(2**16, 2**22),
)
@example(size=(46, 37), crop_size=20, memory=2**30)
@example(size=(46, 37), crop_size=None, memory=2**30)
@example(size=(46, 37), crop_size=None, memory=2**30)  # the second time in a graph for this size
def test_every_network_has_its_result_in_all_crops(cropping, size, crop_size, memory):
    image = random_image(*size)
    whole = AdaptiveCropping(cropping.network, mode="whole")(image)
    cropping._crop_size, cropping._memory = crop_size, memory
    assert (cropping(image) - whole).abs().max() <= 1e-4 * max(1, whole.abs().max())


@pytest.mark.parametrize("crops", [{}, {"crop_size": 16}])
@pytest.mark.parametrize("engine", RUNTIMES)
def test_upscaler(engine, crops):
    """Pixels of uint8 go through the graph as they are; those of other types do not."""
    runtime(engine)
    image = picture((30, 41))
    ours, theirs = (Upscaler("plain_m_x2", engine=name, device="cpu", **crops) for name in (engine, "torch"))
    difference = np.abs(ours(image).astype(int) - theirs(image))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    image = image.astype(np.uint16) * 257
    assert np.abs(ours(image).astype(int) - theirs(image)).max() <= 7  # 1e-4 of the range


class Fake(Engine):
    """An engine that computes with PyTorch and adds `error`; each run takes `seconds` of the fake clock."""

    def __init__(self, clock: list[float], seconds: float, error: float = 0) -> None:
        super().__init__()
        self._clock, self._seconds, self._error = clock, seconds, error
        self.loads = 0

    def version(self) -> str:
        return "1"

    def load(self, program: Program, threads: int) -> Graph:
        self.loads += 1

        def graph(arrays: list[Array]) -> list[Array]:
            now = self._clock[0]
            with torch.no_grad():
                result = program.module(*map(torch.from_numpy, arrays)).numpy()
            self._clock[0] = now + self._seconds
            return [result if result.dtype == np.uint8 else result + np.float32(self._error)]

        return graph


@pytest.fixture
def network() -> SRNetwork:
    return ARCHS.build({"type": "plain_t", "upscale": 2}).eval()


@pytest.fixture
def fakes(network: SRNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Fake]]:
    """Engines by name, to be filled by a test; PyTorch takes 1 s of the fake clock for a network."""
    clock, engines = [0.0], {}
    monkeypatch.setattr(choice, "find_engine", lambda name, _: engines[name])
    monkeypatch.setattr(choice, "engine_kind", engines.__getitem__)
    monkeypatch.setattr(choice, "installed", lambda: ("torch", *engines))
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[0])
    hook = network.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 1))
    yield {"engines": engines, "clock": clock}
    hook.remove()


def make(fakes, **settings):
    """Engines with (seconds, error) each."""
    for name, (seconds, error) in settings.items():
        fakes["engines"][name] = Fake(fakes["clock"], seconds, error)


@pytest.mark.parametrize(
    ("engines", "chosen"),
    [
        ({"a": (0.5, 0), "b": (0.3, 0)}, "b"),
        ({"a": (0.5, 5e-5), "b": (0.3, 2e-4)}, "a"),  # the fastest is wrong
        ({"a": (0.5, float("nan"))}, None),
        ({"a": (0.99, 0)}, None),  # not worth it
        ({"a": (2, 0)}, None),
        ({}, None),
    ],
)
def test_the_fastest_that_is_right_is_taken(network, fakes, engines, chosen):
    make(fakes, **engines)
    found = choice.choose_engine("auto", network, network.info)
    assert found is (fakes["engines"][chosen] if chosen else None)


def test_a_choice_is_remembered_for_the_weights_and_the_versions(network, fakes, memory, monkeypatch):
    make(fakes, a=(0.5, 0))
    engine = fakes["engines"]["a"]
    loads = (engine.loads for _ in itertools.count())
    for _ in range(2):
        assert choice.choose_engine("auto", network, network.info) is engine
        assert next(loads) == 2  # of floats and of pixels
    with torch.no_grad():
        network.tail.weight[0, 0, 0, 0] += 1
    make(fakes, a=(0.5, 0))
    engine = fakes["engines"]["a"]
    choice.choose_engine("auto", network, network.info)
    assert engine.loads == 2
    monkeypatch.setattr(Fake, "version", lambda _: "2")
    choice.choose_engine("auto", network, network.info)
    assert engine.loads == 4
    remembered.forget()
    choice.choose_engine("auto", network, network.info)
    assert engine.loads == 6
    for number, damage in enumerate(("{", "[]", '{"key": 1}'), 4):  # measured again, and whole afterwards
        memory.write_text(damage.replace("key", next(iter(json.loads(memory.read_text())))))
        choice.choose_engine("auto", network, network.info)
        choice.choose_engine("auto", network, network.info)
        assert engine.loads == 2 * number


def test_a_cache_that_cannot_be_written_does_no_harm(network, fakes, memory):
    memory.parent.write_text("a file where the folder should be")
    make(fakes, a=(0.5, 0))
    for loads in (2, 4):
        assert choice.choose_engine("auto", network, network.info) is fakes["engines"]["a"]
        assert fakes["engines"]["a"].loads == loads


def test_an_engine_that_fails_is_passed_over(network, fakes, monkeypatch):
    make(fakes, a=(0.1, 0), b=(0.5, 0))
    monkeypatch.setattr(
        fakes["engines"]["a"], "load", lambda *_: (_ for _ in ()).throw(RuntimeError("no such operator"))
    )
    assert choice.choose_engine("auto", network, network.info) is fakes["engines"]["b"]
    with refused("engine.cannot-run"):
        choice.choose_engine("a", network, network.info)


def test_networks_of_unknown_receptive_field_stay_with_torch(fakes):
    network = wrap(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)))
    make_info = network.info.__class__(scale=2, receptive_radius=None)
    fakes["engines"]["a"] = None
    assert choice.choose_engine("auto", network, make_info) is None


def test_an_engine_with_another_result_is_refused(network, fakes):
    make(fakes, a=(0.5, 1e-3))
    with refused("engine.wrong-result"):
        choice.choose_engine("a", network, network.info)


def test_values_that_are_not_numbers_at_one_size_only_are_another_result(network, fakes, monkeypatch):
    make(fakes, a=(0.5, 0))
    engine = fakes["engines"]["a"]
    plain = engine.load

    def load(program, threads):
        graph = plain(program, threads)
        return lambda arrays: [graph(arrays)[0] * (np.nan if arrays[0].shape[2:] == trial.SIDES[1] else 1)]

    monkeypatch.setattr(engine, "load", load)
    with refused("engine.wrong-result"):
        choice.choose_engine("a", network, network.info)


def test_engines_that_are_not_there(monkeypatch):
    with refused("engine.unknown"):
        Upscaler(engine="tensorrt", device="cpu", precision="fp32")  # before a network is loaded
    monkeypatch.setattr(base, "find_spec", lambda _: None)
    with refused("engine.not-installed"):
        Upscaler("imdn_rtc_x2", engine="openvino", device="cpu", precision="fp32")
    assert Upscaler("imdn_rtc_x2", engine="auto", device="cpu", precision="fp32")(picture((8, 9))).shape == (16, 18, 3)


def test_precisions_that_an_engine_has_not(monkeypatch):
    for engine in ("torch", "auto"):
        with refused("inference.precision"):
            Upscaler("imdn_rtc_x2", engine=engine, device="cpu", precision="fp16")
    Upscaler("imdn_rtc_x2", engine="auto", device="cpu", precision="bf16")
    runtime("onnxruntime")
    with refused("engine.precision"):
        Upscaler("imdn_rtc_x2", engine="onnxruntime", device="cpu", precision="bf16")


def test_what_onnx_has_no_operator_for(network):
    class Sorted(nn.Module):
        def forward(self, image):
            values, _ = torch.linalg.eigh(image[..., : min(image.shape[2:]), : min(image.shape[2:])])
            return nn.functional.interpolate(image, scale_factor=2) + values.mean()

    pytest.importorskip("onnxruntime")
    with refused("engine.cannot-export"):
        choice.choose_engine("onnxruntime", Sorted(), network.info)


@pytest.mark.slow
def test_torch_compile(network, monkeypatch):
    """Without its compiler, which takes long: the rest is the same."""
    monkeypatch.setattr(torch_compile.torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch_compile.shutil, "which", str)
    assert choice.choose_engine("torch-compile", network, network.info)
    monkeypatch.setattr(torch_compile.shutil, "which", lambda _: None)
    with refused("engine.no-compiler"):
        choice.choose_engine("torch-compile", network, network.info)


def test_the_engine_that_is_chosen_is_said(network, fakes, caplog):
    caplog.set_level("INFO")
    choice.choose_engine("auto", network, network.info)
    assert "deploy" in caplog.text
    make(fakes, swift=(0.1, 0))
    choice.choose_engine("auto", network, network.info)
    assert "swift" in caplog.text.splitlines()[-1]


class Halves(Fake):
    """An engine that computes in fp16, and rounds to it."""

    @classmethod
    def precisions(cls):
        return ("fp32", "fp16")


def test_reduced_precision(network, fakes):
    """PyTorch has no fp16 on the CPU; an engine that has may be further from the result than in fp32, to a limit."""
    make(fakes, a=(0.1, 0))
    with refused("inference.precision"):
        choice.choose_engine("auto", network, network.info, precision="fp16")
    fakes["engines"]["b"] = Halves(fakes["clock"], 2, 5e-3)
    assert choice.choose_engine("auto", network, network.info, precision="fp16") is fakes["engines"]["b"]
    assert choice.choose_engine("auto", network, network.info) is fakes["engines"]["a"]
    fakes["engines"]["c"] = Halves(fakes["clock"], 1, 5e-2)
    del fakes["engines"]["b"]
    with refused("engine.wrong-result"):
        choice.choose_engine("c", network, network.info, precision="fp16")


def test_command(capfd, memory, monkeypatch):
    shown = run(capfd, "engines")
    assert (shown.code, shown.err) == (0, "")
    assert [line.partition(" ")[0].rstrip(":") for line in shown.out.splitlines()] == list(base.NAMES)
    shown = run(capfd, "engines", "--model", "plain_m_x2")
    assert "plain_m_x2: " in shown.out
    assert "torch: " in shown.out
    assert memory.exists()
    assert f"{memory}: cleared" in run(capfd, "engines", "--clear").out
    assert not memory.exists()
