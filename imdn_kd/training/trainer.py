"""The training loop, from any state to the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from filelock import BaseFileLock
from torch import Tensor, nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.archs.quantize import quantize, ranges_of, without_ranges
from imdn_kd.archs.reparam import collapsed_weights, expand
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.data.patches import Batch
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT
from imdn_kd.errors import InputError
from imdn_kd.evaluation.benchmark import BICUBIC, INPUT, SetScore
from imdn_kd.training import distributed as launch
from imdn_kd.training.best_checkpoint import BestCheckpointTracker
from imdn_kd.training.calibration import calibrate
from imdn_kd.training.checkpoint import State, save_state, save_weights
from imdn_kd.training.log import LossAverager, TrainLog
from imdn_kd.training.nonfinite import find_first_nonfinite
from imdn_kd.training.optim import OptimState, make_ema
from imdn_kd.training.references import below_bicubic
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.train_setup import TrainSetup
from imdn_kd.training.setup.warnings import length_warnings
from imdn_kd.training.signals import TIME_UP, Deadline, GracefulStop
from imdn_kd.training.update import StepResult, TrainStep
from imdn_kd.training.validation import StoppedError

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

LENGTH_KNOWN = 0.05
"""Part of the time after which the length of a run that the clock ends is estimated."""

_DAMAGE = 1000  # among the numbers of signals


class DivergedError(RuntimeError):
    """Gradients are not finite any more; the message says where that begins."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended, and what it results in.

    Attributes:
        step: iterations done.
        signal: the one that ended it early, if one did.
        best: for each metric, the best value on the sets that weights were selected on (their mean), and its step.
        test: scores of the selected weights on the test sets; empty if it ended early.
        bicubic: scores of bicubic interpolation on these.
        below_bicubic: a line for each data set on which the result is worse than bicubic interpolation.
        model: the model file with these weights.
        time_up: whether its deadline ended it early.
    """

    step: int
    signal: int | None
    best: Mapping[str, Mapping[str, float]]
    test: Sequence[SetScore]
    model: Path
    time_up: bool = False
    bicubic: Sequence[SetScore] = ()
    below_bicubic: Sequence[str] = ()


class Trainer:
    """Trains a network as an option file asks for.

    Args:
        options: of the run.
        setup: what these name, opened.
        folder: of the run; it exists.
        accelerator: device, precision and processes.
        lock: of the folder, given back when the run ends.
        deadline: when it passes, the run ends as at a signal; None: there is none.
        on_step: called after each iteration with their number, the losses of the last line of the log, and the learning
            rate.
    """

    def __init__(
        self,
        options: TrainOptions,
        setup: TrainSetup,
        folder: RunFolder,
        accelerator: Accelerator,
        *,
        lock: BaseFileLock | None = None,
        deadline: Deadline | None = None,
        on_step: Callable[[int, Mapping[str, float], float], None] = lambda step, losses, rate: None,
    ) -> None:
        self.options, self.setup, self.folder, self.accelerator = options, setup, folder, accelerator
        self._on_step, self._lock, self._deadline = on_step, lock, deadline
        train, device, state = options.train, accelerator.device, setup.state
        network: SRNetwork = setup.network.train()
        if train.quantize is not None:
            ranges = calibrate(setup.loader, network, train.quantize) if state is None else ranges_of(state.network)
            quantize(network, ranges)
        # Accelerate puts mixed precision into the network's own forward: copies are to be made before that.
        self._tracker = BestCheckpointTracker(network, options, folder, accelerator, state)
        self._parameters = sum(parameter.numel() for parameter in network.parameters())
        if train.reparam is not None:
            expand(
                network,
                width=train.reparam.width,
                edge_operators=train.reparam.edge_operators,
                seed=options.manual_seed,
            )
        if state is not None:
            network.load_state_dict(state.network)
        if train.channels_last:
            network.to(memory_format=torch.channels_last)
        self.ema = make_ema(network, train.ema_decay, device) if train.ema_decay else None
        if train.compile:
            network.compile()
        self.network = network
        if state is not None:
            if self.ema is not None and state.ema is not None:
                self.ema.load_state_dict(state.ema)
            if accelerator.scaler is not None and state.scaler is not None:
                accelerator.scaler.load_state_dict(state.scaler)
        self.distiller = setup.distiller.to(device)
        self.distiller.student = accelerator.prepare_model(network)
        self.optims = {STUDENT: self._optim_state(STUDENT, network)}
        for name, module in self.distiller.trainable_modules().items():
            if state is not None:
                module.load_state_dict(state.others[name]["weights"])
            self.optims[name] = self._optim_state(name, module)
        self._train_step = TrainStep(
            self.distiller, self.optims, accelerator, seed=options.manual_seed, grad_clip=train.grad_clip
        )
        self.step = 0 if state is None else state.step
        self._validated = 0 if state is None else state.validated
        self._skipped = 0 if state is None else state.skipped
        self._losses = LossAverager(None if state is None else state.window)
        self._norms: Mapping[str, float] = {}
        self._recent: Mapping[str, float] = {}
        self._bicubic: list[SetScore] | None = None
        self._scores: list[SetScore] = []
        self._length_told = deadline is None or not train.is_open
        self._loader = setup.loader.share(accelerator.process_index, accelerator.num_processes)

    def _optim_state(self, name: str, module: nn.Module) -> OptimState:
        train, state = self.options.train, self.setup.state
        optim = {STUDENT: train.optim_g, ADAPTERS: train.optim_a or train.optim_g, CRITIC: train.optim_d}[name]
        before = None
        if state is not None:
            before = state.optimizer if name == STUDENT else state.others[name]["optimizer"]
        return OptimState(
            module,
            (optim.type, optim.settings()),
            self.setup.lr_schedules[name],
            self.accelerator,
            state=before,
            wrapped=name == STUDENT,
        )

    def run(self) -> TrainResult:
        """Train to the end, or until a signal comes or the deadline passes: then the state is saved first.

        Raises:
            DivergedError: too many iterations in a row had to be skipped.
            InputError: a file cannot be read or written any more.
        """
        options, total = self.options, self.options.train.total_iter
        with ExitStack() as stack:
            if self._lock is not None:
                stack.callback(self._lock.release)
            self._interrupt = stack.enter_context(GracefulStop(self._deadline))
            log = self._in_main(self._open_log)
            self._log = None if log is None else stack.enter_context(log)
            self._introduce()
            self._begin_clock()
            self._start = self._now(), self.step
            validated = self._validated
            stopped = not self._validate_if_due()
            if self.step == total and self._validated > validated:
                # It was stopped in this validation before; from now on it is complete.
                self._save()
            iterations = self._loader.batches(self.step, total, self.accelerator.device)
            while self.step < total and not stopped:
                batches = self._next(iterations)
                stopped = batches is None
                if batches is not None:
                    self._update(batches)
                    self._tell_length()
                    if self.step % options.logger.print_freq == 0 or self.step == total:
                        self._write_losses()
                    stopped = not self._validate_if_due()
                if self.step % options.logger.save_checkpoint_freq == 0 or self.step == total or stopped:
                    self._save()
            return self._end(self._highest(self._interrupt.reason) if stopped else 0)

    def iterations_in(self, seconds: float) -> int:
        """How many iterations fit a time, at the mean speed of the run since it began or was resumed."""
        begin, step = self._start
        return int(seconds * (self.step - step) / max(self._now() - begin, 1e-9))

    def score(
        self, sets: Sequence[ImageSet], on_image: Callable[[int], None], *, save: Path | None = None
    ) -> list[SetScore]:
        """Score the weights as they are now; see `validate`."""
        self._tracker.take(self._weights())
        return self._tracker.score(sets, on_image, save=save)

    def _introduce(self) -> None:
        """Say at the head of the log what is trained, on what, and what the user should know of the options."""
        options, accelerator = self.options, self.accelerator
        logger.info(
            "%s x%d with %s parameters, on %d images, in %d process%s on %s in %s, from iteration %s %s",
            *(options.network_g.type, options.scale, f"{self._parameters:,}", len(self.setup.loader.images)),
            *(accelerator.num_processes, "es" if accelerator.num_processes > 1 else "", accelerator.device.type),
            *(options.train.precision, f"{self.step:,}"),
            "until time is up" if options.train.is_open else f"to {options.train.total_iter:,}",
        )
        for line in self.setup.warnings:
            logger.info("%s", line)
        if len(self.distiller.terms) > 1:
            logger.info(
                "of each loss: its mean and, in brackets, its share of the sum; norms of the gradients are in %s",
                self.folder.metrics.name,
            )

    def _next(self, iterations: Iterator[list[Batch]]) -> list[Batch] | None:
        """The batches of the next iteration; None if any of the processes is to end.

        What was trained is saved before an image that is damaged ends the run.
        """
        batches, damage = None, None
        try:
            batches = next(iterations)
        except InputError as error:
            damage = error
        news = self._highest(_DAMAGE if damage is not None else self._stop_reason())
        if news == _DAMAGE:
            self._save()
            logger.info("saved at iteration %s", f"{self.step:,}")
            launch.run_on_all_ranks(lambda: _raise(damage))
        return None if news else batches

    def _stop_reason(self) -> int:
        """What ends the run now; a deadline lets it make one iteration at least."""
        reason = self._interrupt.reason
        return 0 if reason == TIME_UP and self.step == self._start[1] else reason

    def _now(self) -> float:
        return time.perf_counter() if self._deadline is None else self._deadline.clock()

    def _highest(self, number: int) -> int:
        """The highest of the numbers that the processes give; all of them must ask."""
        if self.accelerator.num_processes == 1:
            return number
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def _update(self, batches: Sequence[Batch]) -> None:
        """Make one iteration, and give up if too many in a row were skipped."""
        # Compiled networks free on the way back what the next way back would need.
        norms = (self.step + 1) % self.options.logger.print_freq == 0 and not self.options.train.compile
        update = self._train_step.run(batches, self.step, norms=norms)
        self._skipped = self._skipped + 1 if update.failed else 0
        if self._skipped >= self.options.train.max_skipped:
            self._give_up(batches, update)
        self.step += 1
        if self.ema is not None and STUDENT in update.taken:
            self.ema.update_parameters(self.network)
        if update.failed:
            whose = "its" if STUDENT in update.failed else f"the {update.failed[0]}'s"
            logger.warning("iteration %s was skipped: %s gradients are not finite", f"{self.step:,}", whose)
        else:
            self._losses.add(update.losses)
            self._norms = update.norms
        self._on_step(self.step, self._recent, self.optims[STUDENT].lr)

    def _give_up(self, batches: Sequence[Batch], update: StepResult) -> None:
        where = self._why_not_finite(batches, update.losses)
        if STUDENT not in update.failed:
            where = f"those of the {' and '.join(update.failed)}, whose learning rate may be too high"
        row = f"{self._skipped} in a row had gradients that are not finite"
        problem = f"stopped before iteration {self.step + 1:,}: {row}; {where}"
        if self.accelerator.is_main_process:
            logger.error("%s", problem)
        raise DivergedError(problem)

    def _why_not_finite(self, batches: Sequence[Batch], losses: Mapping[str, Tensor]) -> str:
        """What is said by the process in which it began; the others have its gradients too."""
        lq, gt = (torch.cat([batch[plane] for batch in batches]) for plane in ("lq", "gt"))
        mine = find_first_nonfinite(self.network, lq, gt, losses)
        here = not all(bool(torch.isfinite(loss)) for loss in losses.values())
        found = launch.all_gather_object((here, mine))
        return next((why for here, why in found if here), found[0][1])

    def _tell_length(self) -> None:
        """Once the speed is known, say about how long a run is that the clock ends, and what is too long for it."""
        if self._length_told or self._deadline is None:
            return
        left = self._deadline.left
        if self._now() - self._start[0] < LENGTH_KNOWN * (self._now() - self._start[0] + left):
            return
        self._length_told = True
        length = self.step + self.iterations_in(left + self._deadline.kept)
        logger.info("about %s iterations fit the time", f"{length:,}")
        for line in length_warnings(self.options, length):
            logger.warning("%s", line)

    def _write_losses(self) -> None:
        self._recent = self._losses.take(self.accelerator)
        seconds, iterations = time.perf_counter() - self._clock, self.step - self._clock_step
        speed = iterations / seconds
        if self._log is not None and self._recent:
            train = self.options.train
            left = None if train.is_open else (train.total_iter - self.step) / speed
            rate = self.optims[STUDENT].lr
            self._log.losses(self.step, self._recent, self._norms, rate=rate, speed=speed, left=left)
            self._norms = {}
        self._begin_clock()

    def _begin_clock(self) -> None:
        self._clock, self._clock_step = time.perf_counter(), self.step

    def _validate_if_due(self) -> bool:
        """Score the network if it is time; False if the run is to end meanwhile, so that it is not finished."""
        val, step = self.options.val, self.step
        due = val is not None and (step % val.val_freq == 0 or step == self.options.train.total_iter)
        if val is None or not due or not self.setup.val or self._validated >= step:
            return True
        folder = self.folder.visualization / str(step) if val.save_img else None
        try:
            scores = self.score(self.setup.val, self._look_up, save=folder)
            if self._bicubic is None:
                self._bicubic = self._tracker.score_bicubic(self.setup.val, self._look_up)
        except StoppedError:
            return False
        if self._log is not None:
            self._log.scores(step, scores, self._bicubic, self.setup.teacher)
        self._scores = scores
        launch.run_on_all_ranks(lambda: self._tracker.keep_best(step, scores))
        self._validated = step
        self._begin_clock()
        return True

    def _look_up(self, _: int) -> None:
        """Between two images, leave validation if the run is to end."""
        if self._stop_reason():
            raise StoppedError

    def _weights(self) -> dict[str, Tensor]:
        """The weights that count, as they are saved: the averaged ones if there are any."""
        return collapsed_weights(self.network if self.ema is None else self.ema.module)

    def _save(self) -> None:
        """Write a state, the weights of this iteration, and the model file of the latest ones."""
        window = self._losses.state(self.accelerator)
        self._in_main(lambda: self._write(window))

    def _write(self, window: dict[str, Any]) -> None:
        if self._skipped and not all(value.isfinite().all() for value in self.network.parameters()):
            logger.warning("nothing is saved at iteration %s: weights are not finite", f"{self.step:,}")
            return
        scaler = self.accelerator.scaler
        state = State(
            step=self.step,
            options=self.options.model_dump(mode="json"),
            network=self.network.state_dict(),
            optimizer=self.optims[STUDENT].optimizer.state_dict(),
            ema=None if self.ema is None else self.ema.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            others={
                name: {"weights": optim.module.state_dict(), "optimizer": optim.optimizer.state_dict()}
                for name, optim in self.optims.items()
                if name != STUDENT
            },
            best=self._tracker.best,
            teacher={} if self.setup.teacher is None else vars(self.setup.teacher).copy(),
            validated=self._validated,
            skipped=self._skipped,
            window=window,
        )
        averaged = None if self.ema is None else without_ranges(self._weights())
        own = without_ranges(collapsed_weights(self.network))
        save_weights(self.folder.models, self.step, own, averaged)
        self._tracker.take(self._weights())
        self._tracker.keep_latest(self.step)
        # Last, since it says that everything else is there.
        save_state(self.folder.states, state, keep_last=self.options.logger.keep_last)

    def _end(self, stopped_by: int) -> TrainResult:
        """Test the selected weights, if training is complete."""
        test, bicubic = list[SetScore](), list[SetScore]()
        if not stopped_by and self.setup.test:
            try:
                test = self._tracker.score_selected(self.setup.test, self._look_up)
                bicubic = self._tracker.score_bicubic(self.setup.test, self._look_up)
            except StoppedError:
                stopped_by = self._highest(self._interrupt.reason)
            else:
                if self._log is not None:
                    self._log.scores(self.step, test, bicubic, final=True)
        time_up = stopped_by == TIME_UP
        signal = stopped_by if stopped_by and not time_up else None
        name = INPUT if self.options.scale == 1 else BICUBIC
        below = () if stopped_by else tuple(below_bicubic(self._figures(test, bicubic), name))
        best, model = self._tracker.best, self._tracker.selected
        return TrainResult(self.step, signal, best, test, model, time_up, bicubic, below)

    def _figures(self, test: Sequence[SetScore], bicubic: Sequence[SetScore]) -> Iterator[tuple[str, float, float]]:
        """Data set, PSNR of the student that the run results in, and of bicubic interpolation."""
        best, val = self._tracker.best.get("psnr"), self._bicubic or ()
        names = [] if self.options.val is None else self.options.val.selection
        if best is not None and val:
            yield " and ".join(names), best["value"], fmean(score.psnr for score in val if score.data in names)
        scores = zip((*(() if best else self._scores), *test), (*(() if best else val), *bicubic), strict=True)
        yield from ((score.data, score.psnr, other.psnr) for score, other in scores)

    def _in_main(self, make: Callable[[], Result]) -> Result | None:
        """Do something in the main process, while the others wait; if it cannot be done, all of them end."""
        return launch.run_on_all_ranks(make if self.accelerator.is_main_process else lambda: None)

    def _open_log(self) -> TrainLog:
        options = self.options
        return TrainLog(self.folder, options.name, options.logger, step=self.step, validated=self._validated)


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
