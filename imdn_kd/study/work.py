"""Makes the runs of a study that are missing; several processes may do so side by side."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import torch

from imdn_kd.errors import InputError, Problems
from imdn_kd.evaluation.study.folder import HR, RunResult, write_json
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import load_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.study.clock import CacheClock, UpdateClock
from imdn_kd.study.plan import Run, Study
from imdn_kd.training import run as training
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import PathOptions, TrainOptions
from imdn_kd.training.trainer import DivergedError, Trainer, TrainResult

logger = logging.getLogger(__name__)

WAIT = 2.0
"""Seconds after which runs that other processes make are looked at again."""

OnStep = Callable[[Run, int], None]


class StoppedError(Exception):
    """A signal ended a run, whose state is saved; `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def check_study(study: Study) -> list[str]:
    """Open everything that the arms name, and begin nothing.

    Returns:
        What the user should know of their options, a line each.

    Raises:
        InputError: with a line for everything that is wrong.
    """
    lines: list[str] = []
    study.check_unchanged()
    with Problems() as problems:
        for name, options in study.arms.items():
            with problems.at(f"arms.{name}"), _one_thread(options):
                if study.options.initial_arm(name):
                    # Its weights are still to come.
                    options = options.model_copy(update={"path": PathOptions()})
                setup = training.check(options, root=study.folder.runs)
                lines += [f"arms.{name}: {line}" for line in setup.warnings]
    return lines


def run_study(
    study: Study,
    on_step: OnStep = lambda run, step: None,
    on_end: Callable[[Run, RunResult], None] = lambda run, result: None,
) -> None:
    """Make the runs that are missing, one after the other; those of which another process has the lock are its own.

    Returns when all are complete, whoever made them. Killed at any moment, another call goes on there: a run resumes
    from its newest state and ends with the same bytes, and a run that is complete is not touched again. Runs on the CPU
    have one thread, whatever else runs, so that they come out the same.

    Args:
        study: see `read_study`; `check_study` tells what is wrong with it before.
        on_step: called after each iteration with the run and the iterations done.
        on_end: called after each run that was made here.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came; what was trained is saved.
        InputError: see `imdn_kd.training.run.prepare`.
    """
    waiting = False
    while missing := [run for run in study.runs() if study.folder.result(run.name) is None]:
        if not any(_take(study, run, on_step, on_end) for run in missing):
            if not waiting:
                logger.info("waiting for other processes: %s", ", ".join(run.name for run in missing))
            waiting = True
            _wait()
        else:
            waiting = False


def _take(study: Study, run: Run, on_step: OnStep, on_end: Callable[[Run, RunResult], None]) -> bool:
    """Make a run; False if that cannot be done now, since another process makes it, or one that it waits for."""
    with _locked(study.folder.lock_file(run.name)) as mine:
        if not mine:
            return False
        if study.folder.result(run.name) is not None:
            return True
        try:
            options = study.options_of(run)
        except InputError as error:
            if error.code not in ("study.not-measured", "study.no-weights"):
                raise
            result = RunResult(run.arm, run.seed, failed=str(error))
        else:
            if options is None:
                return False
            study.note(run.arm)
            try:
                with _one_thread(options):
                    result = _train(study, run, options, on_step)
            except InputError as error:
                if error.code == "store.in-use":
                    return False
                raise
        write_json(study.folder.result_file(run.name), result)
        on_end(run, result)
        return True


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock, if no other process does."""
    lock = filelock.FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise InputError(
            f"{path.parent}: cannot write there ({error.strerror}); choose another --root", code="run.cannot-write"
        ) from error
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def _one_thread(options: TrainOptions) -> Iterator[None]:
    """Let PyTorch have one thread on the CPU: results depend on their number."""
    before = torch.get_num_threads()
    if options.num_gpu == 0 or not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(study: Study, run: Run, options: TrainOptions, on_step: OnStep) -> RunResult:
    clock = UpdateClock(study.folder, run.name, options)
    caching = CacheClock(study.folder, run.arm)

    def at(step: int, losses: object, rate: float) -> None:
        clock.at(step)
        on_step(run, step)

    trainer = training.prepare(options, root=study.folder.runs, auto_resume=True, on_step=at, on_teaching=caching.at)
    if trainer.setup.cache is not None:
        caching.write(trainer.setup.cache.key)
    try:
        result = trainer.run()
    except DivergedError as error:
        return RunResult(run.arm, run.seed, updates=trainer.step, failed=" ".join(str(error).split()))
    finally:
        clock.write()
    if result.signal is not None:
        raise StoppedError(result.signal)
    if run.first:
        _keep_images(study, run, trainer, result)
    return _result(study, run, trainer, result)


def _result(study: Study, run: Run, trainer: Trainer, result: TrainResult) -> RunResult:
    reported = study.options.report
    scores, baseline = (
        {score.data: {image.name: (image.psnr, image.ssim) for image in score.images} for score in several}
        for several in (result.test, result.bicubic)
    )
    return RunResult(
        run.arm,
        run.seed,
        updates=result.step,
        selected_at=int(result.best["psnr"]["step"]),
        scores={name: scores[name] for name in reported},
        baseline={name: baseline[name] for name in reported},
        baseline_name=result.bicubic[0].model,
        curve=tuple(_curve(trainer.folder, study.options.select)),
        parameters=sum(weight.numel() for weight in load_model(result.model).network.parameters()),
    )


def _curve(folder: RunFolder, select: list[str]) -> Iterator[tuple[int, float]]:
    for line in folder.metrics.read_text(encoding="utf-8").splitlines()[1:]:
        record = json.loads(line)
        if "scores" in record:
            yield record["step"], sum(record["scores"][name]["psnr"] for name in select) / len(select)


def _keep_images(study: Study, run: Run, trainer: Trainer, result: TrainResult) -> None:
    """Write what the selected weights make of the reported images, and the ground truth once."""
    device = trainer.accelerator.device
    upscaler = Upscaler(load_model(result.model), device=str(device), precision="fp32", engine="torch")
    for images in (each for each in trainer.setup.test if each.name in study.options.report):
        for pair in images.pairs:
            hr, lr = images.load(pair)
            for arm, pixels in ((HR, hr), (run.arm, upscaler(lr, images.scale) if images.scale > 1 else upscaler(lr))):
                write_image(
                    study.folder.images / arm / images.name / f"{pair.name}.png", Picture(pixels), overwrite=True
                )


def _wait() -> None:
    time.sleep(WAIT)
