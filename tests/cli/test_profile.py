from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

from imdn_kd.archs.imdn import IMDN_RTC
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.basicsr_compat import needs_basicsr
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


@needs_basicsr
def test_networks_of_basicsr_by_type_and_by_option_file(run, tmp_path):
    spec = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 16, "upscale": 4}
    (tmp_path / "edsr_m.yml").write_text(yaml.safe_dump({"network_g": {"type": "EDSR", **spec}}))
    code, output, errors = run("--arch", f"EDSR: {json.dumps(spec)}", "-opt", "edsr_m.yml", "--runs", "0", "--json")
    assert (code, errors) == (0, "")
    # EDSR-M x4: 1.5 million parameters, 114 G multi-adds (Lim et al., CVPR Workshops 2017).
    counts = [profile["counts"] for profile in json.loads(output)["profiles"]]
    assert counts[0] == counts[1]
    assert counts[0]["parameters"] == 1_517_571
    assert counts[0]["multi_adds"] / 1e9 == pytest.approx(114.2, abs=0.3)


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
