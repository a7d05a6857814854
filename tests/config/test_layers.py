from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ConfigDict, Field

from imdn_kd.config.options import Options, merged_options, read_options
from imdn_kd.config.yaml import Document, dump_yaml
from tests.cli.run import run
from tests.config.test_options import JSON, ROOT
from tests.refused import refused


class Optim(Options):
    """An optimiser."""

    model_config = ConfigDict(extra="allow")

    type: str
    lr: float = Field(gt=0)


class Train(Options):
    """A run."""

    name: str
    steps: list[int] = Field(default_factory=list)
    optim: Optim | None = None


def write(folder: Path, **files: str) -> Path:
    """Write `NAME.yml` for each of the files; returns the path of the first."""
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)
    return folder / f"{next(iter(files))}.yml"


BASE = "steps: [1, 2]\noptim:\n  type: Adam\n  lr: 1e-3\n  betas: [0.9, 0.99]\n"


def test_sections_are_merged_and_other_values_replaced(tmp_path):
    path = write(tmp_path, own="_base_: base.yml\nname: a\nsteps: [3]\noptim:\n  lr: 2e-3\n", base=BASE)
    options = read_options(path, Train)
    assert (options.name, options.steps) == ("a", [3])
    assert options.optim.model_dump() == {"type": "Adam", "lr": 2e-3, "betas": [0.9, 0.99]}


def test_later_bases_take_precedence_and_the_file_itself_over_all(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", two="_base_: ../base.yml\nname: two\noptim: {lr: 2}\n", three="name: three\n")
    path = write(tmp_path, own="_base_: [deep/two.yml, deep/three.yml]\noptim: {eps: 1}\n", base=BASE)
    assert merged_options(path) == {
        "steps": [1, 2],
        "optim": {"type": "Adam", "lr": 2, "betas": [0.9, 0.99], "eps": 1},
        "name": "three",
    }
    assert merged_options(path, ["optim.lr=5"])["optim"]["lr"] == 5


def test_a_path_is_seen_from_the_file_that_names_it(tmp_path, monkeypatch):
    path = write(tmp_path, own="_base_: base.yml\nname: a\n", base=BASE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_options(path, Train).steps == [1, 2]


def test_inherited_keys_can_be_dropped_or_given_anew(tmp_path):
    text = "_base_: base.yml\nname: a\n_drop_: [steps]\noptim:\n  _drop_: [betas]\n"
    assert merged_options(write(tmp_path, own=text, base=BASE)) == {
        "optim": {"type": "Adam", "lr": 1e-3},
        "name": "a",
    }
    anew = "_base_: base.yml\nname: a\n_drop_: [optim]\noptim: {type: SGD, lr: 1}\n"
    assert merged_options(write(tmp_path, own=anew, base=BASE))["optim"] == {"type": "SGD", "lr": 1}


def test_nothing_is_asked_of_a_file_without_base(tmp_path):
    with refused("options.unknown-key"):
        read_options(write(tmp_path, own="name: a\n_drop_: [steps]\n"), Train)


WRONG = [
    ("options.unreadable-file", "own.yml, line 2: _base_: {}/b.yml: cannot read it", "\n_base_: b.yml", None),
    ("options.base-wrong-type", "own.yml, line 1: _base_: give the path", "_base_: 3", None),
    ("options.base-cycle", "own.yml, line 1: _base_: {}/own.yml inherits from itself", "_base_: own.yml", None),
    ("options.base-cycle", "b.yml, line 1: _base_: {}/own.yml inherits from", "_base_: b.yml", "_base_: own.yml"),
    ("options.not-yaml", "b.yml, line 1: is not plain YAML", "_base_: b.yml", "a: ["),
    ("options.empty-file", "b.yml: holds no options", "_base_: b.yml", ""),
    ("options.drop-unknown", "own.yml, line 2: _drop_: 'x' is not", "_base_: b.yml\n_drop_: [x]", "y: 1"),
    ("options.drop-wrong-type", "own.yml, line 2: _drop_: give a list", "_base_: b.yml\n_drop_: y", "y: 1"),
    ("options.duplicate-key", "b.yml, line 2: 'name' is given twice", "_base_: b.yml", "name: a\nname: b"),
]


@pytest.mark.parametrize(("code", "line", "own", "base"), WRONG)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path, code, line, own, base):
    with refused(code) as caught:
        read_options(write(tmp_path, own=own, **({} if base is None else {"b": base})), Train)
    (said,) = caught.value.lines
    assert said.startswith(f"{tmp_path}/{line.format(tmp_path)}")


def test_faults_are_told_where_they_stand(tmp_path):
    own = "_base_: base.yml\noptim:\n  lr: x\nsteps: [1]\nnme: a\n"
    with refused("options.wrong-type") as caught:
        read_options(write(tmp_path, own=own, base="steps: x\noptim:\n  type: 3\n  lr: 2\n"), Train)
    assert caught.value.lines == (
        f"{tmp_path}/own.yml, line 3: optim.lr: is to be a number",
        f"{tmp_path}/own.yml, line 5: no option is called 'nme'; did you mean 'name'?",
        f"{tmp_path}/base.yml, line 3: optim.type: is to be text",
    )


@given(JSON)
def test_yaml_is_read_as_it_was_written(value):
    assert Document(dump_yaml({"value": value}), str).content == {"value": value}


@pytest.mark.parametrize("text", ["1e5", "on", "0x1F", "1:30", "~", "", "2e-4", "- a", "a: b", "#", "'", "\n", "010"])
def test_text_stays_text(text):
    assert Document(dump_yaml([text]), str).content == [text]


def test_show_prints_what_a_file_comes_to(capfd, tmp_path):
    path = write(tmp_path, own="_base_: base.yml\nname: a\n", base=BASE)
    result = run(capfd, "options", "show", path, "--set", "optim.lr=5e-4")
    assert (result.code, result.err) == (0, "")
    shown: Any = Document(result.out, str).content
    assert shown == merged_options(path, ["optim.lr=5e-4"])
    assert (tmp_path / "again.yml").write_text(result.out)
    assert merged_options(tmp_path / "again.yml") == shown
    assert run(capfd, "options", "show", tmp_path / "none.yml").code == 2


@pytest.mark.parametrize("path", sorted((ROOT / "options").rglob("*.yml")), ids=lambda path: path.stem)
def test_shipped_files_are_two_levels_deep_at_most(path):
    for base in bases(path):
        for deeper in bases(base):
            assert not bases(deeper)


def bases(path: Path) -> list[Path]:
    found = Document(path.read_text(), str).content.get("_base_", [])
    return [path.parent / name for name in ([found] if isinstance(found, str) else found)]
