"""`imdn-kd train`."""

from __future__ import annotations

import os
import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import say

if TYPE_CHECKING:
    from imdn_kd.data.base import ImagePairs


class Launcher(str, Enum):
    """Values of `imdn_kd.training.distributed.Launcher`, repeated here since the command line must not import it."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"


_CHECK_SECONDS = 60
_CHECK = (
    "Say what is wrong or has no effect, each loss term's share of the first loss, the size of networks and data, and "
    "about how long training takes; then stop. Reads training images, at random and for a minute at most; those in a "
    "store have imdn-kd verify."
)


def train(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Instead of what the file says, as train.optim_g.lr=1e-4."),
    ] = None,
    auto_resume: Annotated[
        bool, typer.Option("--auto_resume", "--auto-resume", help="Resume from the newest state of the run.")
    ] = False,
    launcher: Annotated[
        Launcher, typer.Option(help="Who started the processes; none: alone, accelerate launch, or torchrun.")
    ] = Launcher.none,
    root: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("experiments"),
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="Train about so long: the learning rate is constant, and decays in the last fifth of the time. With "
            "--auto_resume, one more such segment of the run, or the rest of one that was stopped.",
        ),
    ] = None,
    imports: opt.Imports = None,
    check: Annotated[bool, typer.Option("--check", help=_CHECK)] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train a network as an option file says, in the words of BasicSR.

    Ctrl-C saves and says how to resume. Leaves a folder in --root: models, states, curves, the log.

    imdn-kd train -opt options/train/imdn_rtc_x2.yml
    """
    from imdn_kd.cli import training

    deadline = None if minutes is None else training.deadline_in(minutes)
    training.check_installed()
    from imdn_kd.training import distributed as launch
    from imdn_kd.training import run
    from imdn_kd.training.run_folder import RunFolder
    from imdn_kd.training.setup.read_file import read_train_options
    from imdn_kd.training.setup.resume import open_state
    from imdn_kd.training.timed import next_segment

    with launch.processes(launcher.value):
        launch.run_on_all_ranks(lambda: opt.import_own(imports))
        content = launch.run_on_all_ranks(lambda: read_train_options(options, overrides or ()))
        if imports:  # recorded in the run
            content = content.model_copy(update={"imports": [*(content.imports or []), *imports]})
        if check:
            if deadline is not None:
                folder = RunFolder(root / content.name)
                content = launch.run_on_all_ranks(
                    lambda: next_segment(content, open_state(content, folder, auto_resume=auto_resume))
                )
            read = _read_images if launch.rank() == 0 else None
            setup = launch.run_on_all_ranks(
                lambda: run.check(content, root=root, auto_resume=auto_resume, read_images=read)
            )
            if launch.rank() == 0:
                measured = [line for line in (run.cache_saving(setup), run.first_shares(setup)) if line]
                lines = [*setup.warnings, *measured, *run.forecast(content, setup)]
                if not auto_resume and (root / content.name).exists():
                    lines.append(f"{root / content.name}: is there already, and is kept under another name")
                say("\n".join([*lines, f"{options}: can be trained"]))
            return
        trained = training.run_training(
            content, root=root, auto_resume=auto_resume, deadline=deadline, again=_again, quiet=quiet
        )
    training.report(trained, _again, quiet=quiet)


def _read_images(images: ImagePairs) -> str:
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.data.read_check import read_pairs

    total = len(images)
    with FileProgress(total) as progress:
        read = read_pairs(images, seconds=_CHECK_SECONDS, on_pair=progress.at)
    if read == total:
        return f"all {total:,} pairs were read"
    return f"{read:,} of {total:,} pairs were read in {_CHECK_SECONDS} seconds; of the others only sizes were compared"


def _again() -> str:
    """The command that resumes."""
    if "RANK" in os.environ:
        return "the same command with --auto_resume"
    words = [word for word in sys.argv[1:] if word not in ("--auto_resume", "--auto-resume")]
    return shlex.join(["imdn-kd", *words, "--auto_resume"])
