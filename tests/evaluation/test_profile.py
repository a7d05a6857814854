from __future__ import annotations

import dataclasses
import io
import json

import pytest
import torch
from rich.console import Console

from imdn_kd.archs.imdn import IMDN, IMDN_RTC
from imdn_kd.evaluation.profile import Timing, build_arch, count, profile
from imdn_kd.evaluation.report import report_profiles
from imdn_kd.registry import ARCHS
from tests.refused import refused


@pytest.mark.parametrize(
    ("scale", "parameters", "multi_adds"), [(2, 694_404, 158.8), (3, 703_059, 71.5), (4, 715_176, 40.9)]
)
def test_costs_of_the_paper(scale, parameters, multi_adds):
    """Hui et al. 2019, table 5, for a result of 1280x720."""
    (found,) = profile({"imdn": build_arch("imdn", scale)}, runs=0)
    assert found.counts.parameters == parameters
    assert round(found.counts.multi_adds / 1e9, 1) == multi_adds
    assert found.timing is None


def test_counts_by_hand():
    network = IMDN_RTC(num_feat=4, num_block=1, upscale=2)
    pixels = 5 * 7
    # (inputs, outputs, taps) of: head, four of the block and its fusion, fusion of all, tail.
    convolutions = [(3, 4, 9), (4, 4, 9), (3, 4, 9), (3, 4, 9), (3, 1, 9), (4, 4, 1), (4, 4, 1), (4, 12, 9)]
    found = count(network, (5, 7))
    assert found.convolutions == len(convolutions)
    assert found.multi_adds == pixels * sum(a * b * taps for a, b, taps in convolutions)
    assert found.activations == pixels * sum(b for _, b, _ in convolutions)
    assert found.parameters == sum(a * b * taps + b for a, b, taps in convolutions)


def test_activations_are_those_of_the_convolution_modules():
    """As the NTIRE challenges count them: by hooks on nn.Conv2d."""
    network = IMDN(num_feat=8, num_block=2, upscale=3)
    found = count(network, (9, 11))
    elements = 0

    def add(module: object, inputs: object, output: torch.Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        network(torch.rand(1, 3, 9, 11))
    assert found.activations == elements


@pytest.mark.parametrize("name", list(ARCHS))
def test_every_network_can_be_counted(name):
    found = count(build_arch(name), (64, 64))
    assert found.parameters > 0
    assert found.multi_adds > found.activations > 0


def test_sizes_suit_the_network():
    networks = {name: build_arch(name) for name in ("imdn_rtc", "imdn_rte", "imdn_as")}
    sizes = {
        found.name: (found.input_size, found.output_size)
        for found in profile(networks, output_sizes=[(90, 101)], runs=0)
    }
    assert sizes["imdn_rtc"] == ((45, 51), (90, 102))
    assert sizes["imdn_rte"] == ((46, 52), (92, 104))
    assert sizes["imdn_as"] == ((92, 104), (92, 104))
    (found,) = profile({"imdn": build_arch("imdn", 3)}, input_size=(5, 6), runs=0)
    assert (found.input_size, found.output_size) == ((5, 6), (15, 18))


def test_timing_and_memory():
    network = IMDN_RTC(num_feat=4, num_block=1, upscale=2)
    calls = []
    sizes = [(16, 24), (32, 48)]
    small, large = profile({"tiny": network}, output_sizes=sizes, device="cpu", runs=3, on_run=lambda: calls.append(0))
    assert len(calls) == 2 * (3 + 2)
    for found in (small, large):
        assert len(found.timing.seconds) == 3
        low, high = found.timing.quartiles
        assert 0 < low <= found.timing.median <= high
        assert found.timing.run.startswith("float32 on cpu (")
    # At least the tail and the result are there at the same time.
    assert small.timing.peak_bytes >= 2 * 16 * 24 * 3 * 4
    assert large.timing.peak_bytes == pytest.approx(4 * small.timing.peak_bytes, rel=0.1)
    assert next(network.parameters()).dtype == torch.float32


def test_threads_are_set_for_the_runs_only():
    before = torch.get_num_threads()
    seen = []
    sizes = [(16, 16)]
    network = IMDN_RTC(num_feat=4, num_block=1, upscale=2)
    network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    (found,) = profile({"tiny": network}, output_sizes=sizes, device="cpu", runs=1, threads=before + 1)
    assert f"{before + 1} threads" in found.timing.run
    assert seen[:3] == [before + 1] * 3
    assert torch.get_num_threads() == before


def test_precision():
    network = IMDN_RTC(num_feat=4, num_block=1, upscale=2)
    sizes = [(32, 48)]
    (full,) = profile({"tiny": network}, output_sizes=sizes, device="cpu", runs=1)
    (half,) = profile({"tiny": network}, output_sizes=sizes, device="cpu", runs=1, precision="bf16")
    assert half.timing.run.startswith("bfloat16 on cpu (")
    assert half.timing.peak_bytes == full.timing.peak_bytes / 2
    assert half.timing.quartiles == (half.timing.median, half.timing.median)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu():
    (found,) = profile({"tiny": build_arch("imdn_rtc")}, output_sizes=[(64, 64)], device="cuda", runs=2)
    assert found.timing.run.startswith("float32 on cuda")
    assert found.timing.peak_bytes > 0


def test_statistics():
    timing = Timing((5.0, 1.0, 2.0, 3.0, 4.0), 0, "")
    assert (timing.median, timing.quartiles) == (3, (2, 4))


def test_report():
    found = profile({"imdn_s": build_arch("imdn_s")}, output_sizes=[(16, 16)], device="cpu", runs=2)
    report = report_profiles(found)
    assert "| imdn_s | x4 | 16x16 | 186,732 |" in report.markdown()
    assert "2 runs in float32 on cpu" in report.markdown()
    data = json.loads(report.json())["profiles"][0]
    assert data["counts"]["parameters"] == 186_732
    assert len(data["timing"]["seconds"]) == 2
    assert "ms" not in report_profiles(profile({"imdn_s": build_arch("imdn_s")}, runs=0)).tables[0].columns


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: profile({}), "profile.nothing-to-do"),
        (lambda: profile({"a": build_arch("imdn_rtc")}, runs=-1), "profile.runs"),
        (lambda: profile({"a": build_arch("imdn_rtc")}, threads=0), "profile.threads"),
        (lambda: profile({"a": build_arch("imdn_rtc")}, output_sizes=[(0, 5)]), "profile.size"),
        (lambda: build_arch("imdn_rte", 4), "profile.scale"),
    ],
)
def test_errors(call, code):
    with refused(code):
        call()


def test_unknown_architecture():
    with refused("registry.unknown-name"):
        build_arch("imdm")


def test_rows_fit_a_terminal():
    """No digit is hidden or moved to another line at the usual 80 columns."""
    found = profile({"imdn_s": build_arch("imdn_s")}, output_sizes=[(16, 16)], device="cpu", runs=2)
    found = [dataclasses.replace(found[0], output_size=(720, 1280), timing=Timing((1.2341, 1.1), 2**30, "fp32 on cpu"))]
    console = Console(width=80, file=io.StringIO())
    table = report_profiles(found).tables[0]
    console.print(table.rich())
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line for line in lines if all(cell in line for cell in table.rows[0])]
