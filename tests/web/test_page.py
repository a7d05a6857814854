"""The static page: what is written, and what is refused."""

from __future__ import annotations

import json

import pytest

from imdn_kd import zoo
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.web.page import TILE, _check_model, write_page
from imdn_kd.web.runtime import FILES
from tests.cli.run import run
from tests.refused import refused
from tests.web.pages import files, network


def test_a_page_holds_what_it_needs_and_says_what_it_is(package, tmp_path):
    pytest.importorskip("onnxruntime")
    model = ModelFile(network(), card="# <b>\n\n## Data and licences\n\nCC0 & <i>\nfree.\n\n## Limits\n\nmany")
    made = write_page(model, tmp_path / "page", name="<s>", runtime=package)

    assert made.bytes == sum(path.stat().st_size for path in (tmp_path / "page").rglob("*") if path.is_file())
    assert {f"runtime/{name}" for name in (*FILES.values(), "LICENSE.txt")} == {
        name for name in files(tmp_path / "page") if name.startswith("runtime/")
    }
    assert (
        json.loads((tmp_path / "page/model.json").read_text()).items()
        >= {
            **{"name": "<s>", "scale": 2, "channels": 3, "value_range": 1.0, "size_multiple": 1, "min_size": 1},
            **{"overlap": 4, "tile": TILE},
        }.items()
    )
    text = (tmp_path / "page/index.html").read_text()
    assert all(part in text for part in ("&lt;s&gt;", "CC0 &amp; &lt;i&gt; free.", "onnxruntime-web 9.9.9"))
    assert "many" not in text
    assert "$" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


@pytest.mark.parametrize("target", [".", "../inside", ".."])
def test_the_current_folder_is_not_replaced(target, package, tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with refused("web.current-folder"):
        write_page(ModelFile(network()), target, name="any", runtime=package)
    assert [*(tmp_path / "inside").iterdir()] == []


def test_only_a_page_is_replaced_and_only_if_asked(package, tmp_path):
    pytest.importorskip("onnxruntime")
    page, model = tmp_path / "page", ModelFile(network())
    page.mkdir()
    write_page(model, page, name="first", runtime=package)
    with refused("file.exists"):
        write_page(model, page, name="second", runtime=package)
    (page / "left over").touch()
    write_page(model, page, name="third", runtime=package, overwrite=True)
    assert json.loads((page / "model.json").read_text())["name"] == "third"
    assert (page / "left over").exists()  # it may be how the host is configured
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.json").write_text("[]")
    for target in (other, other / "model.json"):
        with refused("file.exists"):
            write_page(model, target, name="x", runtime=package, overwrite=True)
    assert files(other) == {"model.json"}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"type": "IMDN", "num_feat": 8, "num_block": 1}, "web.cannot-tile"),
        ({"type": "Plain", "num_in_ch": 4}, "web.channels"),
        ({"type": "IMDN_AS", "num_feat": 8, "num_block": 1}, "web.cannot-tile"),
    ],
)
def test_networks_that_a_page_cannot_run_are_refused(spec, code, package, tmp_path):
    with refused(code):
        write_page(ModelFile(ARCHS.build(spec)), tmp_path / "page", name="x", runtime=package)
    assert not [*tmp_path.iterdir()]


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "imdn.safetensors", ModelFile(ARCHS.build({"type": "IMDN", "num_feat": 8, "num_block": 1})))
    for options in (["--to", "web"], ["--to", "web", "--int8", "--images", "x"], ["--to", "onnx", "--runtime", "x"]):
        done = run(capfd, "export", "imdn.safetensors", *options, "-o", "page")
        assert done.code == 2
        assert len(done.err.strip().splitlines()) == 1
    assert files(tmp_path) == {"imdn.safetensors"}


@pytest.mark.parametrize("student", [each.name for each in zoo.students()])
def test_every_student_of_the_zoo_can_go(student):
    """As docs/browser.md says."""
    _check_model(load_model(student).network.info, student)
