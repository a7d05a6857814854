"""The log of a run: a text file, losses and scores as JSON lines, curves for TensorBoard or Weights & Biases."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from torch import Tensor

from imdn_kd.evaluation.benchmark import SetScore
from imdn_kd.training.references import TeacherScore, beside
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import LoggerOptions
from imdn_kd.utils.progress_log import ProgressLog
from imdn_kd.utils.text import PrintableFormatter

logger = logging.getLogger(__name__)


class TrainLog:
    """Logs what happens from an iteration on; what an interrupted run wrote beyond it is taken back.

    To be used in a `with` block, by one process.

    Args:
        folder: of the run.
        name: of the run.
        options: what is wanted.
        step: iterations done.
        validated: the last iteration whose validation was finished.
    """

    def __init__(self, folder: RunFolder, name: str, options: LoggerOptions, *, step: int, validated: int) -> None:
        self._progress_log = ProgressLog(folder.metrics, "train")
        self._progress_log.cut(sum(_happened(record, step, validated) for record in self._progress_log.records))
        self._trackers = _trackers(folder.path, name, options, step)
        stamp = time.strftime("%Y%m%d_%H%M%S")
        self._file = logging.FileHandler(folder.path / f"train_{name}_{stamp}.log", encoding="utf-8")
        self._file.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s: %(message)s"))
        # The file is to have everything, also where nobody has asked for these messages on the screen.
        self._package = logging.getLogger("imdn_kd")
        self._level = self._package.level

    def __enter__(self) -> TrainLog:
        self._package.addHandler(self._file)
        self._package.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._package.removeHandler(self._file)
        self._package.setLevel(self._level)
        self._file.close()
        for tracker in self._trackers:
            tracker.finish()

    def losses(
        self,
        step: int,
        losses: Mapping[str, float],
        norms: Mapping[str, float],
        *,
        rate: float,
        speed: float,
        left: float | None,
    ) -> None:
        """Write down losses.

        Args:
            step: iterations done.
            losses: means since the last time, by name.
            norms: of the gradients of several losses in the last iteration, by name.
            rate: learning rate.
            speed: iterations a second.
            left: seconds that the rest will take; None if that is not known.
        """
        eta = "" if left is None else f" eta: {duration(left)},"
        total = sum(abs(losses[name]) for name in norms)
        shares = {name: abs(losses[name]) / total if total else 0.0 for name in norms}
        parts = {name: f" ({share:.0%})" for name, share in shares.items()}
        values = ", ".join(f"{name}: {value:.4e}{parts.get(name, '')}" for name, value in losses.items())
        logger.info("iter: %s, lr:(%.3e),%s %.2f it/s, %s", f"{step:,}", rate, eta, speed, values)
        record = {"step": step, "lr": rate, "losses": dict(losses)}
        curves = {f"losses/{name}": value for name, value in losses.items()}
        if norms:
            record |= {"shares": shares, "gradient_norms": dict(norms)}
            curves |= {f"shares/{name}": share for name, share in shares.items()}
            curves |= {f"gradient_norms/{name}": norm for name, norm in norms.items()}
        self._progress_log.add(record)
        self._track(step, {**curves, "lr": rate, "it_per_s": speed})

    def scores(
        self,
        step: int,
        scores: Sequence[SetScore],
        bicubic: Sequence[SetScore],
        teacher: TeacherScore | None = None,
        *,
        final: bool = False,
    ) -> None:
        """Write down scores of a validation, or of the test at the end, and beside them those of bicubic and teacher.

        Args:
            step: iterations done.
            scores: of the student.
            bicubic: of bicubic interpolation, on the same data sets.
            teacher: on one of them.
            final: whether it is the test.
        """
        kind, label = ("test", "test on") if final else ("scores", "validation on")
        for score, other in zip(scores, bicubic, strict=True):
            figures_of, others = (score.data, score.psnr, score.ssim), beside(score, other, teacher)
            logger.info("iter: %s, %s %s: %.3f dB, %.4f%s", f"{step:,}", label, *figures_of, others)
        figures = {score.data: {"psnr": score.psnr, "ssim": score.ssim} for score in scores}
        self._progress_log.add({"step": step, kind: figures})
        self._track(step, {f"{data}/{name}": value for data, both in figures.items() for name, value in both.items()})

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)


class LossAverager:
    """Sums losses where they are computed, without waiting for the device.

    Args:
        saved: what `state` gave.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        saved = saved or {}
        self._sums: dict[str, Tensor | float] = dict(saved.get("sums", {}))
        self._count: int = saved.get("count", 0)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of an iteration, by name; scalars."""
        for name, loss in losses.items():
            value = loss.detach()
            # MPS has no float64.
            value = value.cpu() if value.device.type == "mps" else value
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self._count += 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over all iterations and processes, and begin anew; empty if there were none."""
        means = {name: value / self._count for name, value in self._over_processes(accelerator).items()}
        self._sums, self._count = {}, 0
        return means

    def state(self, accelerator: Accelerator) -> dict[str, Any]:
        """What a new averager needs to resume; every process must ask for it."""
        self._sums = dict(self._over_processes(accelerator))
        return {"sums": dict(self._sums), "count": self._count}

    def _over_processes(self, accelerator: Accelerator) -> dict[str, float]:
        if not self._sums:
            return {}
        values = torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in self._sums.values()])
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values.to(accelerator.device), reduction="mean")
        return dict(zip(self._sums, values.tolist(), strict=True))


def missing_trackers(options: LoggerOptions) -> Iterator[str]:
    """One line for each thing to log to that is not installed."""
    if options.use_tb_logger and importlib.util.find_spec("tensorboard") is None:
        yield "use_tb_logger: tensorboard is not installed; pip install tensorboard, or set this to false"
    if options.wandb.project and importlib.util.find_spec("wandb") is None:
        yield "wandb.project: wandb is not installed; pip install wandb, or leave this out"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _happened(record: Mapping[str, Any], step: int, validated: int) -> bool:
    """Whether a record is of what a state has seen."""
    limit = step if "losses" in record else validated
    return bool(record["step"] <= limit) and "test" not in record


def _trackers(folder: Path, name: str, options: LoggerOptions, step: int) -> list[GeneralTracker]:
    trackers: list[GeneralTracker] = []
    if options.use_tb_logger:
        trackers.append(TensorBoardTracker("tb_logger", folder, purge_step=step + 1))
    if options.wandb.project:
        resume = {} if options.wandb.resume_id is None else {"id": options.wandb.resume_id, "resume": "allow"}
        trackers.append(WandBTracker(options.wandb.project, name=name, dir=str(folder), **resume))
    for tracker in trackers:
        tracker.start()
    return trackers
