"""Processes that train together: where a process learns how many there are, and which one it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal

from imdn_kd.errors import InputError

Launcher = Literal["none", "pytorch", "slurm"]

PORT = "29500"


def prepare_environment(launcher: Launcher) -> None:
    """Make sure that this process knows its place among all that train together.

    Args:
        launcher: `none`: alone, or as `accelerate launch` or `torchrun` say. `pytorch`: as `torchrun` says; an error if
            it was not used. `slurm`: as the variables of a Slurm step say, with a task for each GPU.

    Raises:
        InputError: the launcher has left no word.
    """
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise InputError(
            "--launcher pytorch needs processes started by torchrun, as in: "
            "torchrun --nproc_per_node 4 -m imdn_kd train -opt FILE --launcher pytorch"
        )
    if launcher == "slurm":
        os.environ.update(_slurm())


def rank() -> int:
    """Number of this process, 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def _slurm() -> dict[str, str]:
    try:
        task, tasks, local = (os.environ[f"SLURM_{name}"] for name in ("PROCID", "NTASKS", "LOCALID"))
        nodes = os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise InputError(
            f"--launcher slurm needs a Slurm step ({error.args[0]} is not set), as in: "
            "srun --ntasks-per-node 4 imdn-kd train -opt FILE --launcher slurm"
        ) from error
    return {
        "RANK": task,
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": local,
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or _first_node(nodes),
        "MASTER_PORT": os.environ.get("MASTER_PORT", PORT),
    }


def _first_node(nodes: str) -> str:
    """The first name in a list such as `node[3-5,9]`, which Slurm's own tool takes apart."""
    if shutil.which("scontrol") is None:
        raise InputError("--launcher slurm needs scontrol to find the first node; set MASTER_ADDR to its name")
    command = ["scontrol", "show", "hostnames", nodes]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if result.returncode or not result.stdout.split():
        raise InputError(f"scontrol does not know the nodes {nodes!r}; set MASTER_ADDR to the name of the first one")
    return result.stdout.split()[0]
