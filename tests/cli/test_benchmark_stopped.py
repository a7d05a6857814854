"""`imdn-kd benchmark` that is stopped, and called again."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from imdn_kd.archs.imdn import IMDN_RTC
from imdn_kd.evaluation import benchmark, score_log
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.cli.run import run as run_command
from tests.fake_set import make_set

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

COMMAND = ("-m", "tiny.safetensors", "first", "second", "--device", "cpu")


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Call `imdn-kd benchmark` in a folder with a model and two sets of two images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(score_log, "log_folder", lambda: tmp_path / "cache")
    save_model("tiny.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=2)))
    for name in ("first", "second"):
        make_set(tmp_path / name, lr="LRbicx2", size=(24, 26))
    return partial(run_command, capfd, "benchmark")


@pytest.fixture
def measured(monkeypatch):
    """Names of images as they are measured; `stop_at[0]` is the number of that at which `stop_at[1]` is sent."""
    names, enlarge = [], benchmark._measure

    def measure(sr, hr, pair, scale, protocol):
        if measured.stop_at and len(names) == measured.stop_at[0]:
            os.kill(os.getpid(), measured.stop_at[1])
        names.append(pair.hr)
        return enlarge(sr, hr, pair, scale, protocol)

    class measured:  # noqa: N801 - one of it
        stop_at: tuple[int, int] | None = None

        @staticmethod
        def taken() -> list[Path]:
            found = [*names]
            names.clear()
            return found

    monkeypatch.setattr(benchmark, "_measure", measure)
    return measured


def timeless(data):
    """A report without times."""
    if isinstance(data, dict):
        return {key: timeless(value) for key, value in data.items() if key != "seconds"}
    return [timeless(value) for value in data] if isinstance(data, list) else data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_measured_is_reported_and_not_measured_again(run, measured, tmp_path, number):
    measured.stop_at = 3, number
    code, output, errors = run(*COMMAND, "-o", "scores.json")
    assert code == 128 + number
    assert errors == "imdn-kd: stopped, 1 of 4 images left; the same command goes on there\n"
    assert "| second | 1 of 2 |" in output
    assert "Stopped: 1 of 4 images" in output
    part = json.loads(Path("scores.json").read_text())
    measured.stop_at = None
    measured.taken()
    code, output, errors = run(*COMMAND, "-o", "scores.json", "--json")
    assert (code, len(measured.taken())) == (0, 1)
    assert errors.startswith("imdn-kd: going on: 3 of 4 images")
    assert json.loads(output) == json.loads(Path("scores.json").read_text())
    assert list((tmp_path / "cache").iterdir()) == []
    whole = json.loads(run(*COMMAND, "--json").out)
    assert len(measured.taken()) == 4
    assert timeless(json.loads(output)) == timeless(whole)
    assert (part["left"], [score["left"] for score in part["scores"]]) == (1, [0, 1])
    assert timeless(part["scores"][0]) == timeless(whole["scores"][0])
    assert timeless(part["scores"][1]["images"]) == timeless(whole["scores"][1]["images"][:1])


def test_stopped_at_every_image(run, measured):
    """Nothing is measured twice; before the first image, a report that is there stays."""
    arguments = (*COMMAND, "--save", "kept", "--explain", "-o", "scores.md")
    whole = json.loads(run(*COMMAND, "--save", "other", "--explain", "--json").out)
    by_protocol = len(measured.taken()) // 4
    Path("scores.md").write_text("before")
    measured.stop_at = 0, signal.SIGINT
    assert run(*arguments) == (130, "", "imdn-kd: stopped, 4 of 4 images left; the same command goes on there\n")
    assert Path("scores.md").read_text() == "before"
    measured.taken()
    measured.stop_at = by_protocol, signal.SIGINT
    for left in (3, 2, 1):
        code, output, errors = run(*arguments)
        assert (code, len(measured.taken())) == (130, by_protocol)
        assert f"stopped, {left} of 4 images left" in errors
        assert Path("scores.md").read_text() == output
    code, output, _ = run(*arguments, "--json")
    assert (code, len(measured.taken())) == (0, by_protocol)
    assert timeless(json.loads(output)) == timeless(whole)
    assert {path.name: path.read_bytes() for path in Path("kept").rglob("*.png")} == {
        path.name: path.read_bytes() for path in Path("other").rglob("*.png")
    }


def test_an_unwritable_cache_does_not_stop_a_benchmark(run, measured, tmp_path):
    (tmp_path / "cache").write_text("a file")
    measured.stop_at = 1, signal.SIGINT
    assert run(*COMMAND)[::2] == (130, "imdn-kd: stopped, 3 of 4 images left; nothing is kept\n")
    measured.stop_at = None
    assert run(*COMMAND).code == 0
