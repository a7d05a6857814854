"""`imdn-kd zoo`; what `publish` does is tested in tests/training/test_publish.py."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import yaml

from imdn_kd import zoo
from imdn_kd.archs import IMDN_RTC
from imdn_kd.evaluation import speed
from imdn_kd.evaluation import student_times as times
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import load_model
from imdn_kd.utils.extras import how_to_install
from tests.cli.run import run
from tests.fake_set import picture
from tests.training.small_runs import content, make_data, merged, with_validation
from tests.zoo.small_zoo import make_zoo


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.setattr(times, "user_cache_path", lambda _: tmp_path / "cache")
    return make_zoo(tmp_path)


def test_list_shows_size_figures_teachers_and_use(folder, capfd):
    result = run(capfd, "zoo", "list")
    sizes = {
        channels: sum(each.numel() for each in IMDN_RTC(num_feat=channels, num_block=1, upscale=2).parameters())
        for channels in (8, 4)
    }

    assert (result.code, result.err) == (0, "")
    assert "| Student | Scale | Params | kB | ms | Set5 | Set14 | Teacher | Used as |" in result.out
    both = f"{round((folder / 'big_x2.safetensors').stat().st_size / 1000)} | - | 37.125 / 0.9581 | 32.500 / 0.9100"
    assert f"| big_x2 | x2 | {sizes[8]:,} | {both} | IMDN_x2.pth | default |" in result.out
    assert re.search(rf"\| small_x2 \| x2 \| {sizes[4]:,} \| \d+ \| - \| 37.125 .* \| - \| fast \|", result.out)
    assert "37.125 / 0.9581 | - | - | default, fast |" in result.out


def test_list_as_json(folder, capfd):
    result = run(capfd, "zoo", "list", "--json")
    students = json.loads(result.out)["students"]

    assert [each["name"] for each in students] == ["big_x2", "small_x2", "only_x4"]
    assert [(each["default"], each["fast"]) for each in students] == [(True, False), (False, True), (True, True)]
    assert students[0]["figures"]["Set14"] == {"psnr": 32.5, "ssim": 0.91}
    assert students[0]["file"] == str(folder / "big_x2.safetensors")


def test_times_are_measured_once_and_remembered_for_the_file(folder, capfd, monkeypatch):
    def measured():
        return [each["milliseconds"] for each in json.loads(run(capfd, "zoo", "list", "--json").out)["students"]]

    monkeypatch.setattr(speed, "RESULT", (24, 32))
    assert measured() == [None] * 3
    assert run(capfd, "zoo", "list", "--time", "-q") == (0, "", "")
    assert all(each > 0 for each in measured())
    (folder / "small_x2.safetensors").touch()
    assert [each is None for each in measured()] == [False, True, False]
    times.times_file().write_text("[1]")
    assert measured() == [None] * 3


def test_an_empty_zoo_is_said(folder, capfd):
    (folder / "index.json").write_text("[]")
    result = run(capfd, "zoo", "list")

    assert result.code == 0
    assert "No student ships with this version yet." in result.out
    assert json.loads(run(capfd, "zoo", "list", "--json").out) == {"students": []}


@pytest.mark.usefixtures("folder")
def test_card_prints_that_of_a_student_or_a_file(folder, capfd):
    assert run(capfd, "zoo", "card", "small_x2").out == "# small_x2\n"
    assert run(capfd, "zoo", "card", folder / "small_x2.safetensors").out == "# small_x2\n"


def test_what_cannot_be_shown_is_one_line(folder, capfd):
    unknown = run(capfd, "zoo", "card", "imdn_x9")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.err.startswith("imdn-kd: imdn_x9: no such model file, nor a student of the zoo (there: big_x2,")
    (folder / "small_x2.safetensors").write_bytes(b"\0" * 100)
    damaged = run(capfd, "zoo", "list")
    assert (damaged.code, damaged.err.count("\n")) == (2, 1)
    assert "small_x2.safetensors: is no" in damaged.err
    (folder / "small_x2.safetensors").unlink()
    assert "small_x2.safetensors: cannot read it" in run(capfd, "zoo", "list").err


@pytest.mark.processes
def test_list_and_card_need_neither_torch_nor_the_training_extra(folder):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'accelerate', 'safetensors')))\n"
        "import pathlib; from imdn_kd import zoo; from imdn_kd.cli import app\n"
        f"zoo.FOLDER = pathlib.Path({str(folder)!r})\n"
        "app(['zoo', 'list'], standalone_mode=False); app(['zoo', 'card', 'big_x2'], standalone_mode=False)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("# big_x2\n")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with data and an option file, whose paths are relative."""
    folder = make_data(tmp_path_factory.mktemp("workplace"))
    write_image(folder / "tested" / "HR" / "5.png", Picture(picture((40, 36), 5)))
    whole = merged(content(folder), with_validation(folder, select_on="held_out"))
    whole = merged(whole, {"name": "tiny_x2", "datasets": {"test": {"name": "tested", "dataroot_gt": "tested"}}})
    (folder / "tiny_x2.yml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return folder


def test_from_a_run_to_a_student(workplace, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(workplace)
    notes, to = tmp_path / "notes.md", tmp_path / "students"
    notes.write_text("From a camera.\n", encoding="utf-8")
    assert run(capfd, "train", "-opt", "tiny_x2.yml", "--root", tmp_path).code == 0
    words = ("zoo", "publish", "-opt", "tiny_x2.yml", "--root", tmp_path, "--to", to)
    first = run(capfd, *words, "--notes", notes)

    assert (first.code, first.err) == (0, "")
    assert "| bicubic | x2 | tested |" in first.out
    assert "| tiny_x2 | x2 | held_out |" in first.out
    psnr = zoo.record(to / "tiny_x2.safetensors")["selection"]["psnr"]
    said = f"the run has {psnr:.3f} dB on held_out"
    assert first.out.endswith(f"{to / 'tiny_x2.safetensors'}: published; {said}\n")
    assert "From a camera." in run(capfd, "zoo", "card", to / "tiny_x2.safetensors").out
    again = run(capfd, *words)
    assert again.code == 0
    assert again.out.endswith(f"{to / 'tiny_x2.safetensors'}: kept; {said}, the student that was there {psnr:.3f}\n")
    assert load_model(to / "tiny_x2.safetensors").training["updates"] == 12


def test_publish_goes_into_the_zoo_of_the_package_by_default(workplace, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    monkeypatch.chdir(workplace)
    assert run(capfd, "train", "-opt", "tiny_x2.yml", "--root", tmp_path, "--set", "train.total_iter=4").code == 0
    assert run(capfd, "zoo", "publish", "-opt", "tiny_x2.yml", "--root", tmp_path).code == 0
    assert [(student.name, student.fast) for student in zoo.students()] == [("tiny_x2", True)]
    assert "| tiny_x2 | x2 |" in run(capfd, "zoo", "list").out


def test_publish_says_what_is_missing(workplace, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(workplace)
    absent = run(capfd, "zoo", "publish", "-opt", "tiny_x2.yml", "--root", tmp_path)
    assert (absent.code, absent.out, absent.err.count("\n")) == (2, "", 1)
    assert f"{tmp_path / 'tiny_x2'}: there is no such run" in absent.err
    notes = run(capfd, "zoo", "publish", "-opt", "tiny_x2.yml", "--notes", tmp_path / "none.md")
    assert (notes.code, "none.md: cannot read it" in notes.err) == (2, True)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else found(name))
    bare = run(capfd, "zoo", "publish", "-opt", "tiny_x2.yml")
    assert bare.err == f"imdn-kd: training needs packages that are not installed; {how_to_install('train')}\n"
