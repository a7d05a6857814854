"""Processes that train together: how they find each other, and how they agree."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import distributed

from imdn_kd.errors import InputError

Launcher = Literal["none", "pytorch", "slurm"]
Result = TypeVar("Result")

_SPLIT = {"FSDP": "fsdp", "DEEPSPEED": "deepspeed", "MEGATRON_LM": "megatron_lm"}


@contextmanager
def processes(launcher: Launcher) -> Iterator[None]:
    """Join the other processes, if there are any, for all that is done in the block.

    Args:
        launcher: see `prepare_environment`.

    Raises:
        InputError: see `prepare_environment`; or the others cannot be found.
    """
    prepare_environment(launcher)
    if world_size() > 1 and not distributed.is_initialized():
        gpus = torch.cuda.is_available() and distributed.is_nccl_available()
        try:
            # Gloo is there in any case: what processes agree on does not come from the GPU.
            distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
        except (distributed.DistError, ValueError) as error:
            place = ":".join(os.environ.get(f"MASTER_{part}", "?") for part in ("ADDR", "PORT"))
            raise InputError(
                f"cannot join {world_size()} processes at {place} ({_first_line(error)}); start all of them, "
                "and set MASTER_PORT to a port that is free there",
                code="launch.cannot-join",
            ) from error
    try:
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
            # A thread of Gloo may be waiting for Python's lock to release what it has sent last. If Python ended before
            # that, the process would be aborted.
            time.sleep(0.1)


def prepare_environment(launcher: Launcher) -> None:
    """Make sure that this process knows its place among all that train together.

    Args:
        launcher: `none`: alone, or as `accelerate launch` or `torchrun` say. `pytorch`: as `torchrun` says; an error if
            it was not used. `slurm`: as the variables of a Slurm step say, with a task for each GPU.

    Raises:
        InputError: the launcher has left no word, or asks for what is not done here.
    """
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise InputError(
            "--launcher pytorch needs processes started by torchrun, as in: "
            "torchrun --nproc_per_node 4 -m imdn_kd train -opt FILE --launcher pytorch",
            code="launch.no-torchrun",
        )
    if launcher == "slurm":
        os.environ.update(_slurm())
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for mode, option in _SPLIT.items():
        if os.environ.get(f"ACCELERATE_USE_{mode}", "false").lower() == "true":
            raise InputError(
                f"accelerate is set up for {mode}, which splits networks too large for one GPU; these are small: "
                f"leave out --use_{option}, and run accelerate config again if there is a configuration that has it",
                code="launch.unsupported",
            )


def rank() -> int:
    """Number of this process, 0 where it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes there are, those included that have not joined yet."""
    return distributed.get_world_size() if distributed.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def check_device(device: torch.device) -> None:
    """See whether there is a device for this process.

    Raises:
        InputError: there are more processes on this machine than GPUs.
    """
    if device.type == "cpu":
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    # Apple's GPUs cannot train with others.
    there = torch.cuda.device_count() if device.type == "cuda" else int(world_size() == 1)
    if local >= there:
        raise InputError(
            f"there is no GPU for process {local + 1} on this machine, which has {there} that can be used; start as "
            "many processes as there are GPUs, or set num_gpu: 0 to train on CPUs",
            code="launch.no-gpu",
        )


def all_gather_object(value: Result) -> list[Result]:
    """Return what each process has given, by their numbers; all of them must call this, and wait for each other."""
    if world_size() == 1 or not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def run_on_all_ranks(make: Callable[[], Result]) -> Result:
    """Do something that has to succeed in all processes before any of them goes on.

    Args:
        make: what is to be done; it must not call `all_gather_object` or this.

    Returns:
        What it gave in this process.

    Raises:
        InputError: it was raised in at least one of them. In the main process it has all lines, in the others none: so
            they end as well, but everything is said once.
    """
    if world_size() == 1:
        return make()
    problems, code = None, ""
    try:
        made = make()
    except InputError as error:
        problems, code = error.lines, error.code
    found = all_gather_object((socket.gethostname(), problems))
    if all(lines is None for _, lines in found):
        return made
    code = next(filter(None, all_gather_object(code)))
    raise InputError(*(_merged(found) if rank() == 0 else ()), code=code)


def assert_same_on_ranks(what: str, value: object, advice: str) -> None:
    """Make sure that all processes have the same.

    Args:
        what: its name.
        value: compared with that of the main process.
        advice: what to do if they differ.

    Raises:
        InputError: as `run_on_all_ranks`.
    """
    mains = all_gather_object(value)[0]

    def check() -> None:
        if value != mains:
            raise InputError(f"{what} is not the same as in process 0; {advice}", code="launch.ranks-differ")

    run_on_all_ranks(check)


def _merged(found: list[tuple[str, tuple[str, ...] | None]]) -> Iterator[str]:
    """Each line once, and where it comes from unless that is everywhere."""
    wheres: dict[str, list[str]] = {}
    for number, (host, lines) in enumerate(found):
        for line in lines or ():
            wheres.setdefault(line, []).append(f"{number} on {host}")
    for line, where in wheres.items():
        several = "es" if len(where) > 1 else ""
        yield line if len(where) == len(found) else f"{line} (process{several} {', '.join(where)})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()


def _slurm() -> dict[str, str]:
    try:
        task, tasks, local = (os.environ[f"SLURM_{name}"] for name in ("PROCID", "NTASKS", "LOCALID"))
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise InputError(
            f"--launcher slurm needs a Slurm step ({error.args[0]} is not set), as in: "
            "srun --ntasks-per-node 4 imdn-kd train -opt FILE --launcher slurm",
            code="launch.no-slurm",
        ) from error
    # With --gpus-per-task, a task sees its own GPU alone, and as the first one.
    local = "0" if torch.cuda.device_count() == 1 else local
    return {
        "RANK": task,
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": local,
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or _first_node(nodes),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or _port(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK", "1"),
    }


def _port() -> str:
    """A port that other jobs on the same node do not take, below those that systems give to anyone who asks."""
    job, step = (int(os.environ.get(f"SLURM_{name}", "0")) for name in ("JOB_ID", "STEP_ID"))
    return str(20000 + (job + 1009 * step) % 10000)


def _first_node(nodes: str) -> str:
    """The first name in a list such as `node[3-5,9]`, which Slurm's own tool takes apart."""
    if not set(nodes) & set("[,"):
        return nodes
    if shutil.which("scontrol") is None:
        raise InputError(
            "--launcher slurm needs scontrol to find the first node; set MASTER_ADDR to its name",
            code="launch.no-slurm",
        )
    command = ["scontrol", "show", "hostnames", nodes]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if result.returncode or not result.stdout.split():
        raise InputError(
            f"scontrol does not know the nodes {nodes!r}; set MASTER_ADDR to the name of the first one",
            code="launch.no-slurm",
        )
    return result.stdout.split()[0]
