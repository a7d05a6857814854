"""Whatever a file is called: its name does not steer the terminal, and does not end the command."""

from __future__ import annotations

import os
import re
import sys
import unicodedata

import pytest

from imdn_kd.cli.screen import say
from imdn_kd.image.io import Picture, write_image
from tests.cli.run import run
from tests.fake_set import picture

BAD = "a\x1b[31m\x07\u202e\n"
SHOWN = r"a\x1b[31m\x07\u202e"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="such names are not possible there")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of a bad name with a damaged image of such a name, and a readable one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"{BAD}set"
    folder.mkdir()
    (folder / f"{BAD}x.png").write_bytes(b"damaged")
    write_image(folder / "good.png", Picture(picture((24, 24))))
    (tmp_path / f"{BAD}.yml").write_text(f"name: 3\n{'a' * 3}: 1\n")
    return tmp_path


COMMANDS = {
    "upscale a folder": ("upscale", f"{BAD}set", "-o", f"{BAD}out"),
    "upscale a file": ("upscale", f"{BAD}set/{BAD}x.png", "-o", "out"),
    "upscale to a file in the way": ("upscale", f"{BAD}set/good.png", "-o", f"{BAD}set/{BAD}x.png"),
    "a model": ("upscale", f"{BAD}set/good.png", "-o", "out", "--model", f"{BAD}set/{BAD}x.png"),
    "no such file": ("upscale", f"{BAD}set/{BAD}", "-o", "out"),
    "benchmark": ("benchmark", "--model", "bicubic", "--scale", 2, "--data", f"{BAD}set"),
    "prepare": ("prepare", "folder", f"{BAD}set", "--scale", 2),
    "prepare and say so": ("prepare", "folder", f"{BAD}set", "--scale", 2, "--output", f"{BAD}.store"),
    "verify": ("verify", f"{BAD}set"),
    "card": ("zoo", "card", f"{BAD}set"),
    "option file": ("train", "-opt", f"{BAD}.yml"),
    "no option file": ("train", "-opt", f"{BAD}no.yml"),
    "usage": ("upscale", "--crop", f"{BAD}", "a.png", "-o", "b"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_names_do_not_steer_the_terminal(words, place, capfd):
    result = run(capfd, *words)
    said = result.out + result.err
    assert SHOWN in said
    steering = {letter for letter in said if unicodedata.category(letter) in ("Cc", "Cf", "Cs")} - {"\n"}
    assert not steering
    assert all(re.match("imdn-kd: |[{}|#~ ]|$", line) for line in result.err.splitlines()), result.err


@pytest.mark.skipif(sys.platform != "linux", reason="file systems that take bytes that are not text")
def test_names_that_are_not_text_are_shown(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff\xfe.png")
    write_image(tmp_path / "in" / name, Picture(picture((12, 12))))
    report = run(capfd, "upscale", "in", "-o", "out")
    assert (report.code, report.err) == (0, "")
    assert (tmp_path / "out" / name).is_file()
    (tmp_path / "in" / name).write_bytes(b"damaged")
    result = run(capfd, "upscale", "in", "-o", "other")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(r"imdn-kd: in/\udcff\udcfe.png: ")


def test_letters_that_an_output_has_no_code_for_are_escaped(capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stdout), "encoding", "ascii", raising=False)
    say("Bär 日")
    assert capsys.readouterr().out == "B\\xe4r \\u65e5\n"


def test_values_of_the_command_line_are_told_in_plain_words(capfd):
    for words, said in {
        ("prepare", "sample", "--scale", "two"): "is to be a number, not 'two'.",
        ("upscale", "a.png", "-o", "b", "--quality", "0"): "is to be at least 1, not",
        ("prepare", "sample", "--scale", "5.555"): "scale is 5.555; give a factor",
    }.items():
        result = run(capfd, *words)
        assert result.code == 2
        assert said in result.err
        assert "Input" not in result.err
