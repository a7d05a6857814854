"""The help of the commands, and completion in shells."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from imdn_kd.cli import app
from tests.cli.run import run


def walk(command=None, path=()):
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    for name, each in (inner or {}).items():
        yield from walk(each, (*path, name))


doctor = import_module("imdn_kd.cli.doctor")  # in the package, the command has this name
STUDENTS = ["imdn_rtc_x2", "imdn_rtc_x3", "imdn_rtc_x4"]
COMMANDS = {" ".join(path): command for path, command in walk()}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_examples_that_it_takes(name):
    examples = re.findall(r"^imdn-kd .*", COMMANDS[name].help, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])[1:]
        assert words[: len(name.split())] == name.split()
        COMMANDS[name].make_context(name, words[len(name.split()) :])


def test_doctor_names_every_extra_of_the_package():
    text = (Path(__file__).resolve().parents[2] / "setup.py").read_text(encoding="utf-8")
    extras = re.search(r"extras_require=\{(.*?)\}", text, re.DOTALL)[1]
    assert set(re.findall(r'"(\w+)":', extras)) == set(doctor.EXTRAS)


def test_doctor_says_what_is_there_and_what_to_install(capfd, monkeypatch):
    there = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "matplotlib" else there(name))
    found = json.loads(run(capfd, "doctor", "--no-test", "--json").out)
    assert found["extras"]["study"]["missing"] == ["matplotlib"]
    assert found["engines"]["torch"]["installed"]
    assert found["devices"][-1] == "cpu"
    assert "imdn_rtc_x2" in found["zoo"]["students"]
    result = run(capfd, "doctor")
    assert (result.code, result.err) == (0, "")
    assert 'study (figures of studies): without matplotlib; pip install ".[study]"' in result.out
    assert re.search(
        r"^speed: imdn_rtc_x2 makes 1280x720 px in \d+ ms, \S+ MP/s, by torch on ", result.out, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        *(("imdn-kd ups", ["upscale"]), ("imdn-kd zoo l", ["list"]), ("imdn-kd train --chec", ["--check"])),
        *((f"imdn-kd {words} imdn_rtc_x", STUDENTS) for words in ("upscale --model", "benchmark -m", "compare -m")),
        *((f"imdn-kd {words} imdn_rtc_x", STUDENTS) for words in ("profile --model", "export", "zoo card")),
        ("imdn-kd upscale --model experiments/", []),
    ],
)
def test_shells_complete_commands_options_and_students(capfd, monkeypatch, typed, expected):
    for name, value in {
        "_IMDN_KD_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }.items():
        monkeypatch.setenv(name, value)
    assert run(capfd).out.split() == expected


def test_the_script_for_a_shell_asks_this_command(capfd, monkeypatch):
    monkeypatch.setenv("_IMDN_KD_COMPLETE", "source_zsh")
    assert "_IMDN_KD_COMPLETE=complete_zsh" in run(capfd).out
