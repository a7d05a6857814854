from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import imdn_kd
from imdn_kd.config.json_schema import json_schema
from imdn_kd.config.reference import reference
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.distill.reference import OF_ALL_TERMS
from imdn_kd.evaluation.schema import BenchmarkOptions
from imdn_kd.evaluation.study.schema import StudyOptions
from imdn_kd.registry import LOSS_TERMS, LOSSES
from tests.cli.run import run


@pytest.mark.parametrize(
    ("kind", "schema", "command"),
    [
        ("test", BenchmarkOptions, "benchmark"),
        ("prepare", PrepareOptions, "prepare"),
        ("study", StudyOptions, "study"),
    ],
)
def test_schema_and_docs(capfd, kind, schema, command):
    result = run(capfd, "options", "schema", kind)
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == json_schema(schema)
    result = run(capfd, "options", "docs", kind)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"# Option files of `imdn-kd {command}`\n\n{reference(schema)}"


def test_training_is_what_is_meant_otherwise(capfd):
    assert json.loads(run(capfd, "options", "schema").out)["title"] == "TrainOptions"
    assert run(capfd, "options", "docs").out.startswith("# Option files of `imdn-kd train`\n")
    assert "| `lr` |" in run(capfd, "options", "docs", "train").out


def test_objectives_are_described_with_all_their_options(capfd):
    result = run(capfd, "options", "objectives")
    assert (result.code, result.err) == (0, "")
    for registry in (LOSSES, LOSS_TERMS):
        for name in registry:
            part = result.out.partition(f"### `{name}`\n")[2].partition("\n#")[0]
            options = [key for key in inspect.signature(registry.get(name)).parameters if key not in OF_ALL_TERMS]
            assert re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) == options, name
            assert len(part.strip()) > 10


def test_help_says_how_editors_find_the_schema(capfd):
    result = run(capfd, "options", "schema", "--help")
    assert result.code == 0
    assert "# yaml-language-server: $schema=" in result.out
    assert "docs" in run(capfd, "options", "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("schema", "pictures"), "'train', 'test', 'prepare'"), (("draw",), "No such command 'draw'")],
)
def test_errors_are_one_line(capfd, arguments, message):
    result = run(capfd, "options", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err


def test_every_problem_of_a_file_is_a_line_of_its_own(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").write_text("source: sample\nscales: [2]\nmanual_seed: -1\n")
    result = run(capfd, "prepare", "-opt", "mine.yml")
    assert result == (
        2,
        "",
        "imdn-kd: mine.yml, line 2: no option is called 'scales'; did you mean 'scale'?\n"
        "imdn-kd: mine.yml, line 3: manual_seed: is to be at least 0\n",
    )


WITHOUT_TORCH = """
import sys
from imdn_kd.cli import app, main
names = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]
calls = [["--version"], ["--help"], *([name, "--help"] for name in [*names, "zoo", "options"])]
calls += [["options", what, kind] for what in ("docs", "schema") for kind in ("train", "test", "prepare", "study")]
calls += [["options", "show", "options/distill/pairwise.yml"]]
for call in calls:
    sys.argv = ["imdn-kd", *call]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, call
    heavy = {"torch", "numpy", "PIL", "scipy"} & sys.modules.keys()
    assert not heavy, (call, heavy)
"""


@pytest.mark.processes
def test_help_version_and_options_import_no_torch():
    command = [sys.executable, "-c", WITHOUT_TORCH]
    called = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (called.returncode, called.stderr) == (0, "")
    assert called.stdout.startswith(f"imdn-kd {imdn_kd.__version__}\n")


@pytest.mark.processes
def test_the_module_is_the_command(capfd):
    command = [sys.executable, "-m", "imdn_kd", "options", "docs", "prepare"]
    called = subprocess.run(command, capture_output=True, text=True)
    assert (called.returncode, called.stderr) == (0, "")
    assert called.stdout == run(capfd, "options", "docs", "prepare").out
    assert subprocess.run([*command[:4], "none"], capture_output=True).returncode == 2
