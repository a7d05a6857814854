from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from imdn_kd.archs.imdn import IMDN_RTC
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.cli.run import run as run_command


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Call `imdn-kd profile` in a folder with a model; returns (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "tiny.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=2)))
    return partial(run_command, capfd, "profile")


def test_table_of_the_paper(run):
    code, output, errors = run("--arch", "imdn", "--scale", "4", "--runs", "0")
    assert (code, errors) == (0, "")
    assert "| imdn | x4 | 1280x720 | 715,176 | 40.89 | 107.8 |" in output


def test_models_and_architectures(run):
    arguments = ("-m", "tiny.safetensors", "-a", "imdn_rtc", "--size", "32x16", "--size", "64x32", "--runs", "2")
    code, output, errors = run(*arguments, "--device", "cpu", "--json", "-o", "costs.md")
    assert (code, errors) == (0, "")
    found = json.loads(output)["profiles"]
    assert [(one["name"], one["output_size"]) for one in found] == [
        ("tiny", [16, 32]),
        ("tiny", [32, 64]),
        ("imdn_rtc", [16, 32]),
        ("imdn_rtc", [32, 64]),
    ]
    assert all(len(one["timing"]["seconds"]) == 2 for one in found)
    assert "| tiny | x2 | 32x16 |" in Path("costs.md").read_text()


def test_input_size(run):
    code, output, _ = run("-a", "imdn_s", "-s", "3", "--input-size", "20x10", "--runs", "0")
    assert code == 0
    assert "| imdn_s | x3 | 60x30 |" in output


def test_help(run):
    code, output, _ = run("--help")
    assert code == 0
    for option in ("--model", "--arch", "--size", "--input-size", "--runs", "--json"):
        assert option in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to profile"),
        (["-m", "none.pth"], "none.pth: no such model file"),
        (["-a", "imdn_x"], "did you mean 'imdn_s'"),
        (["-a", "imdn_rte", "-s", "3"], "enlarges by 2, not by 3"),
        (["-a", "imdn_s", "--size", "big"], "is not a size"),
        (["-a", "imdn_s", "--size", "0x10"], "from 1x1"),
        (["-a", "imdn_s", "--size", "9999999999x9999999999"], "from 1x1"),
        (["-a", "imdn_s", "--size", "9x9", "--input-size", "9x9"], "exclude each other"),
        (["-a", "imdn_s", "--size", "9x9", "--device", "abacus"], "cannot be used here"),
        (["-a", "imdn_s", "-o", "costs.csv"], ".md or .json"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
