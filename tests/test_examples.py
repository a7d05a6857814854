"""The programs in examples/, run as a user does."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from imdn_kd.archs import IMDN
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from tests.fake_set import picture

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_upscale_a_folder(tmp_path, monkeypatch, capsys):
    save_model(tmp_path / "tiny.safetensors", ModelFile(IMDN(num_feat=8, num_block=1, upscale=2)))
    (tmp_path / "in").mkdir()
    Image.fromarray(picture((12, 16))).save(tmp_path / "in" / "a.jpg")
    Image.new("RGBA", (9, 7)).save(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "c.png").write_text("no picture")
    words = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tmp_path / "tiny.safetensors"), "--scale", "2"]
    monkeypatch.setattr(sys, "argv", ["upscale_a_folder.py", *words])

    runpy.run_path(str(EXAMPLES / "upscale_a_folder.py"), run_name="__main__")

    assert {path.name: Image.open(path).size for path in (tmp_path / "out").iterdir()} == {
        "a.png": (32, 24),
        "b.png": (18, 14),
    }
    assert "c.png: left out" in capsys.readouterr().out


def test_distil_in_your_own_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    runpy.run_path(str(EXAMPLES / "distil_in_your_own_loop.py"), run_name="__main__")

    *iterations, last = capsys.readouterr().out.splitlines()
    assert len(iterations) == 20
    assert all({"l_gt", "l_teacher", "l_feature"} <= set(line.split()) for line in iterations)
    assert "student.safetensors" in last
    assert load_model("student.safetensors").network.info.scale == 2


@pytest.mark.slow
@pytest.mark.processes
def test_distil_your_own_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = (EXAMPLES / "distil_your_own_network.yml").read_text().replace("total_iter: 200", "total_iter: 4")
    for name in ("distil_your_own_network.py", "my_networks.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    (tmp_path / "distil_your_own_network.yml").write_text(short)

    called = subprocess.run([sys.executable, "distil_your_own_network.py"], capture_output=True, text=True)

    assert called.returncode == 0, called.stderr
    assert "l_edge" in called.stderr
    assert "| own_network |" in called.stdout


NOTEBOOK = json.loads((EXAMPLES / "distil.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_holds_no_results():
    assert CELLS
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)
    assert set(NOTEBOOK["metadata"]) == {"kernelspec", "language_info"}


@pytest.mark.slow
def test_the_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}

    # The cells are Python alone, so they need no kernel.
    for number, cell in enumerate(CELLS):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)

    scores = names["scores"]
    assert scores["bicubic"] < min(scores["alone"], scores["distilled"]) < scores["teacher"]
    assert load_model("student.safetensors").network.info.scale == 2
