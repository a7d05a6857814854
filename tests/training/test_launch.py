from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from imdn_kd.errors import InputError
from imdn_kd.training.launch import prepare_environment, rank
from tests.cli.run import run

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "distributed.md").read_text(encoding="utf-8")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODELIST": "node[3-4]"}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Neither torchrun nor Slurm; what is set is taken back."""
    for name in (*NAMES, *SLURM):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def fake_scontrol(folder, text):
    script = folder / "scontrol"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)


def test_alone_nothing_is_needed():
    prepare_environment("none")
    assert rank() == 0


def test_pytorch_needs_torchrun(monkeypatch):
    with pytest.raises(InputError, match="torchrun"):
        prepare_environment("pytorch")
    monkeypatch.setenv("RANK", "3")
    prepare_environment("pytorch")
    assert rank() == 3


def test_slurm_tells_each_task_its_place(monkeypatch, environment):
    fake_scontrol(environment, '[ "$3" = "node[3-4]" ] && echo node3 && echo node4')
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    prepare_environment("slurm")

    assert [os.environ[name] for name in NAMES] == ["5", "8", "1", "node3", "29500"]


def test_what_is_set_overrules_what_is_found(monkeypatch):
    for name, value in {**SLURM, "MASTER_ADDR": "here", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)
    prepare_environment("slurm")

    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("here", "1234")


def test_slurm_without_a_step_or_without_scontrol(monkeypatch, environment):
    with pytest.raises(InputError, match="SLURM_PROCID is not set"):
        prepare_environment("slurm")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="set MASTER_ADDR"):
        prepare_environment("slurm")
    fake_scontrol(environment, "exit 1")
    with pytest.raises(InputError, match="does not know the nodes"):
        prepare_environment("slurm")


def test_a_launcher_that_was_not_used_is_one_line(capfd, tmp_path):
    result = run(capfd, "train", "-opt", tmp_path / "none.yml", "--launcher", "pytorch")
    assert (result.code, result.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("line", re.findall(r"^    ((?:torchrun|accelerate|srun) .*)$", GUIDE, re.MULTILINE))
def test_commands_of_the_guide_can_be_parsed(line, capfd, tmp_path):
    words = shlex.split(line)
    words = words[words.index("imdn-kd" if "imdn-kd" in words else "imdn_kd") + 1 :]
    words[words.index("-opt") + 1] = str(tmp_path / "none.yml")
    result = run(capfd, *[word if word not in ("pytorch", "slurm") else "none" for word in words])

    assert "none.yml: cannot read it" in result.err
