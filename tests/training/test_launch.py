from __future__ import annotations

import os
import re
import shlex
import socket
from pathlib import Path

import pytest
import torch
import typer
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState, PartialState
from torch.distributed.run import get_args_parser

from imdn_kd.cli import app
from imdn_kd.training import distributed as launch
from imdn_kd.training.run import prepare
from tests.cli.run import run
from tests.refused import refused
from tests.training.small_runs import small_options

GUIDE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text(encoding="utf-8")
OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
JOB = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODELIST": "gpu[3-4]"}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Task 5 of a Slurm job, with a `scontrol` that writes down how it was called."""
    for name in [name for name in os.environ if name in OURS or name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nprintf "gpu3\\ngpu4\\n"\n')
    tool.chmod(0o755)
    os.environ["PATH"] = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    return tmp_path


def places():
    return {name: os.environ.get(name) for name in OURS}


def test_a_slurm_task_knows_its_place(slurm):
    launch.prepare_environment("slurm")

    assert places() == {
        **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"},
        **{"MASTER_ADDR": "gpu3", "MASTER_PORT": "20000", "OMP_NUM_THREADS": "1"},
    }
    assert (slurm / "asked").read_text() == "show hostnames gpu[3-4]\n"


def test_a_slurm_task_that_sees_one_gpu_takes_the_first(slurm, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    launch.prepare_environment("slurm")

    assert places()["LOCAL_RANK"] == "0"


def test_what_is_set_already_counts(slurm):
    os.environ |= {"MASTER_ADDR": "here", "MASTER_PORT": "1234", "OMP_NUM_THREADS": "3"}
    launch.prepare_environment("slurm")

    assert {"here", "1234", "3"} <= set(places().values())
    assert not (slurm / "asked").exists()


def test_the_nodes_and_threads_of_the_step_count(slurm):
    os.environ |= {"SLURM_STEP_NODELIST": "gpu7", "SLURM_CPUS_PER_TASK": "6"}
    launch.prepare_environment("slurm")

    assert (places()["MASTER_ADDR"], places()["OMP_NUM_THREADS"]) == ("gpu7", "6")


def test_jobs_and_steps_have_ports_of_their_own(slurm):
    ports = set()
    for job, step in (("88123456", "0"), ("88123456", "1"), ("88123457", "0"), ("88123464", "0")):
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        os.environ |= {"SLURM_JOB_ID": job, "SLURM_STEP_ID": step}
        launch.prepare_environment("slurm")
        ports.add(int(places()["MASTER_PORT"]))

    assert len(ports) == 4
    assert all(20000 <= port < 30000 for port in ports)


@pytest.mark.parametrize("missing", list(JOB))
def test_outside_a_slurm_step_the_command_is_named(slurm, missing):
    del os.environ[missing]
    with refused("launch.no-slurm"):
        launch.prepare_environment("slurm")


@pytest.mark.parametrize("tool", ["exit 1", "exit 0"])
def test_nodes_that_scontrol_does_not_know(slurm, tool):
    (slurm / "bin" / "scontrol").write_text(f"#!/bin/sh\n{tool}\n")
    with refused("launch.no-slurm"):
        launch.prepare_environment("slurm")


def test_without_scontrol(slurm):
    os.environ["PATH"] = ""
    with refused("launch.no-slurm"):
        launch.prepare_environment("slurm")


def test_launcher_pytorch_needs_torchrun(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    result = run(capfd, "train", "-opt", tmp_path / "run.yml", "--launcher", "pytorch")

    assert result.code == 2
    assert re.fullmatch(r"imdn-kd: --launcher pytorch needs .* torchrun --nproc_per_node 4 .*\n", result.err)


@pytest.mark.parametrize("mode", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_accelerate_is_not_to_split_the_network(monkeypatch, mode):
    monkeypatch.setenv(f"ACCELERATE_USE_{mode}", "true")
    with refused("launch.unsupported"):
        launch.prepare_environment("none")


def test_a_port_that_is_taken(monkeypatch):
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        port = str(place.getsockname()[1])
        for name, value in zip(OURS, ("0", "2", "0", "127.0.0.1", port, "1"), strict=True):
            monkeypatch.setenv(name, value)
        with refused("launch.cannot-join"):  # noqa: SIM117
            with launch.processes("pytorch"):
                pass


def test_places_that_are_not_complete(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with refused("launch.cannot-join"), launch.processes("none"):
        pass


@pytest.mark.parametrize(
    ("device", "gpus", "local", "fits"),
    [
        *[("cpu", 0, 7, True), ("cuda", 2, 1, True), ("cuda", 2, 2, False)],
        *[("mps", 0, 0, False)],
    ],
)
def test_there_is_a_gpu_for_each_process_of_a_machine(monkeypatch, device, gpus, local, fits):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if fits:
        launch.check_device(torch.device(device))
    else:
        with refused("launch.no-gpu"):
            launch.check_device(torch.device(device))


def test_processes_that_cannot_train_together_do_not_train_apart(data, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "world_size", lambda: 2)
    with refused("launch.not-joined"):
        prepare(small_options(data), root=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_inherit_the_device_of_the_one_before(data, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True).device = torch.device("meta")
    trainer = prepare(small_options(data), root=tmp_path)

    assert trainer.accelerator.device.type == "cpu"


def test_what_accelerate_launch_sets_does_not_add_to_the_option_file(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    accelerator = prepare(small_options(data), root=tmp_path).accelerator

    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert accelerator.state.dynamo_plugin.backend.value == "NO"


def commands():
    """The commands of the guide, without the lines that are not ours."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", GUIDE, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.search(r"(^| )(imdn-kd|-m imdn_kd) ", line) and not line.startswith("#")]


def test_the_guide_has_commands():
    assert len(commands()) >= 6


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_guide_have_options_that_exist(command):
    words = shlex.split(command)
    start = words.index("imdn_kd") if "imdn_kd" in words else words.index("imdn-kd")
    launcher, (name, *arguments) = words[:start], words[start + 1 :]
    ours = typer.main.get_command(app).commands[name]
    assert ours.make_context(name, arguments).params["options"].suffix == ".yml"
    if launcher[:1] == ["torchrun"]:
        found = get_args_parser().parse_args([*launcher[1:], "imdn_kd"])
        assert found.module
    elif launcher[:2] == ["accelerate", "launch"]:
        assert launch_command_parser().parse_args([*launcher[2:], "imdn_kd"]).module
    else:
        assert launcher in ([], ["srun", "--kill-on-bad-exit=1"])
