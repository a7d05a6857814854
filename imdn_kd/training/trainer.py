"""The training loop: one update after the other, from any state to the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from filelock import BaseFileLock
from torch import Tensor, nn

from imdn_kd.archs.network import SRNetwork
from imdn_kd.data.patches import Batch
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT, Distiller, Turn
from imdn_kd.distill.scene import Scene
from imdn_kd.errors import InputError
from imdn_kd.evaluation.benchmark import SetScore
from imdn_kd.training import launch
from imdn_kd.training.averaging import running_average
from imdn_kd.training.checkpoint import State, save_state, save_weights
from imdn_kd.training.diagnosis import why_not_finite
from imdn_kd.training.interrupt import Interrupt
from imdn_kd.training.judge import Judge
from imdn_kd.training.learner import Learner, norms_of_gradients
from imdn_kd.training.log import TrainLog
from imdn_kd.training.options import TrainOptions
from imdn_kd.training.plan import Plan
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.validation import StoppedError
from imdn_kd.training.window import LossWindow

Made = TypeVar("Made")

logger = logging.getLogger(__name__)

_DAMAGE = 1000  # among the numbers of signals


class DivergedError(RuntimeError):
    """Training cannot go on, since gradients are not finite any more; the message says where that begins."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: updates done.
        signal: what ended it early, if something did.
        best: for each metric, the best value on the set that weights were selected on, and its step.
        test: scores of the selected weights on the test sets; empty if it ended early.
        model: the model file with these weights.
    """

    step: int
    signal: int | None
    best: Mapping[str, Mapping[str, float]]
    test: Sequence[SetScore]
    model: Path


class Trainer:
    """Trains a network as an option file asks for.

    Args:
        options: of the run.
        plan: what these name, opened.
        folder: of the run; it exists.
        accelerator: device, precision and processes.
        lock: of the folder, given back when the run ends.
        on_step: called after each update with their number, the losses of the last line of the log, and the learning
            rate.
    """

    def __init__(
        self,
        options: TrainOptions,
        plan: Plan,
        folder: RunFolder,
        accelerator: Accelerator,
        *,
        lock: BaseFileLock | None = None,
        on_step: Callable[[int, Mapping[str, float], float], None] = lambda step, losses, rate: None,
    ) -> None:
        self.options, self.plan, self.folder, self.accelerator = options, plan, folder, accelerator
        self._on_step, self._lock = on_step, lock
        train, device, state = options.train, accelerator.device, plan.state
        network: SRNetwork = plan.network.train()
        if state is not None:
            network.load_state_dict(state.network)
        # Accelerate puts mixed precision into the network's own forward: copies are to be made before that.
        self._judge = Judge(network, options, folder, accelerator, state)
        if train.channels_last:
            network.to(memory_format=torch.channels_last)
        self.ema = running_average(network, train.ema_decay, device) if train.ema_decay else None
        if train.compile:
            network.compile()
        self.network = network
        if state is not None:
            if self.ema is not None and state.ema is not None:
                self.ema.load_state_dict(state.ema)
            if accelerator.scaler is not None and state.scaler is not None:
                accelerator.scaler.load_state_dict(state.scaler)
        lesson = plan.lesson.to(device)
        self.distiller = Distiller(accelerator.prepare_model(network), lesson, network)
        self.learners = {STUDENT: self._learner(STUDENT, network)}
        for name, module in lesson.learners().items():
            if state is not None:
                module.load_state_dict(state.others[name]["weights"])
            self.learners[name] = self._learner(name, module)
        self.step = 0 if state is None else state.step
        self._validated = 0 if state is None else state.validated
        self._skipped = 0 if state is None else state.skipped
        self._window = LossWindow(None if state is None else state.window)
        self._norms: Mapping[str, float] = {}
        self._recent: Mapping[str, float] = {}
        self._batches = plan.batches.share(accelerator.process_index, accelerator.num_processes)

    def _learner(self, name: str, module: nn.Module) -> Learner:
        train, state = self.options.train, self.plan.state
        optim = {STUDENT: train.optim_g, ADAPTERS: train.optim_a or train.optim_g, CRITIC: train.optim_d}[name]
        before = None
        if state is not None:
            before = state.optimizer if name == STUDENT else state.others[name]["optimizer"]
        return Learner(
            module,
            (optim.type, optim.settings()),
            self.plan.courses[name],
            self.accelerator,
            state=before,
            wrapped=name == STUDENT,
        )

    def run(self) -> Outcome:
        """Train to the end, or until a signal comes: then the state is saved first.

        Raises:
            DivergedError: too many updates in a row had to be skipped.
            InputError: a file cannot be read or written any more.
        """
        options, total = self.options, self.options.train.total_iter
        with ExitStack() as stack:
            if self._lock is not None:
                stack.callback(self._lock.release)
            self._interrupt = stack.enter_context(Interrupt())
            log = self._in_main(self._open_log)
            self._log = None if log is None else stack.enter_context(log)
            self._introduce()
            self._begin_clock()
            stopped = not self._validate_if_due()
            updates = self._batches.updates(self.step, total, self.accelerator.device)
            while self.step < total and not stopped:
                batches = self._next(updates)
                stopped = batches is None
                if batches is not None:
                    self._update(batches)
                    if self.step % options.logger.print_freq == 0 or self.step == total:
                        self._write_losses()
                    stopped = not self._validate_if_due()
                if self.step % options.logger.save_checkpoint_freq == 0 or self.step == total or stopped:
                    self._save()
            return self._end(self._highest(self._interrupt.received or 0) if stopped else None)

    def _introduce(self) -> None:
        """Say at the head of the log what is trained, on what, and what the user should know of the options."""
        options, accelerator = self.options, self.accelerator
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        logger.info(
            "%s x%d with %s parameters, on %d images, in %d process%s on %s in %s, from update %d to %d",
            *(options.network_g.type, options.scale, f"{parameters:,}", len(self.plan.batches.images)),
            *(accelerator.num_processes, "es" if accelerator.num_processes > 1 else "", accelerator.device.type),
            *(options.train.precision, self.step, options.train.total_iter),
        )
        for line in self.plan.notes:
            logger.info("%s", line)

    def _next(self, updates: Iterator[list[Batch]]) -> list[Batch] | None:
        """The batches of the next update; None if a signal has come to any of the processes.

        What was trained is saved before an image that is damaged ends the run.
        """
        batches, damage = None, None
        try:
            batches = next(updates)
        except InputError as error:
            damage = error
        news = self._highest(_DAMAGE if damage is not None else self._interrupt.received or 0)
        if news == _DAMAGE:
            self._save()
            logger.info("saved after update %d", self.step)
            launch.together(lambda: _raise(damage))
        return None if news else batches

    def _highest(self, number: int) -> int:
        """The highest of the numbers that the processes give; all of them must ask."""
        if self.accelerator.num_processes == 1:
            return number
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def _update(self, batches: Sequence[Batch]) -> None:
        """One update, over one or more batches: everyone that learns takes a step, in turn."""
        # Whatever is drawn inside networks and objectives depends on the update alone, as the patches do.
        torch.manual_seed(_seed_of(self.options.manual_seed, self.step, self.accelerator.process_index))
        losses: dict[str, Tensor] = {}
        scenes: list[Scene] = []
        finite = True
        for learner in self.learners.values():
            learner.begin(self.step)
        for turn in self.distiller.turns(self.step):
            found = self._losses(turn, batches, scenes)
            finite = self._step(turn) and finite
            losses |= found
            if not finite:
                break
        self._skipped = 0 if finite else self._skipped + 1
        if self._skipped >= self.options.train.max_skipped:
            self._give_up(batches, losses, turn)
        for learner in self.learners.values():
            learner.optimizer.zero_grad()
        self.step += 1
        if finite:
            if self.ema is not None:
                self.ema.update_parameters(self.network)
            self._window.add(losses)
        else:
            logger.warning("update %d was skipped: its gradients are not finite", self.step)
        self._on_step(self.step, self._recent, self.learners[STUDENT].rate)

    def _losses(self, turn: Turn, batches: Sequence[Batch], scenes: list[Scene]) -> dict[str, Tensor]:
        """Compute the losses of a turn and their gradients.

        What the student makes of the batches in its turn is kept in `scenes`, for the turns after it.
        """
        losses: dict[str, Tensor] = {}
        first = not scenes
        for number, batch in enumerate(batches, 1):
            # Processes need not exchange gradients before they are complete.
            alone = number < len(batches)
            with self.accelerator.no_sync(self.distiller.student) if alone else nullcontext():
                scene = self.distiller.look(batch) if first else scenes[number - 1]
                parts = {name: loss / len(batches) for name, loss in turn.losses(scene).items()}
                if first and not alone and self._shows_norms(parts):
                    self._norms = norms_of_gradients(parts, self.network)
                self.accelerator.backward(torch.stack(list(parts.values())).sum())
            if first:
                scenes.append(scene.let_go())
            losses = {name: losses[name] + part.detach() if losses else part.detach() for name, part in parts.items()}
        return losses

    def _shows_norms(self, losses: Mapping[str, Tensor]) -> bool:
        """Whether the line of the log that follows is to say what each loss would have changed."""
        # Compiled networks free on the way back what the next way back would need.
        due = (self.step + 1) % self.options.logger.print_freq == 0
        return due and len(losses) > 1 and not self.options.train.compile

    def _step(self, turn: Turn) -> bool:
        """Let the learners of a turn take their steps; False if none is taken, since gradients are not finite."""
        learners = [self.learners[name] for name in turn.learners]
        gradients = [learner.gradients() for learner in learners]
        norm = torch.nn.utils.get_total_norm([gradient for several in gradients for gradient in several])
        finite = bool(torch.isfinite(norm))
        clip = self.options.train.grad_clip
        if finite and clip is not None and STUDENT in turn.learners:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        for learner in learners:
            learner.end(finite=finite)
        return finite

    def _give_up(self, batches: Sequence[Batch], losses: Mapping[str, Tensor], turn: Turn) -> None:
        where = self._why_not_finite(batches, losses)
        if STUDENT not in turn.learners:
            where = f"those of the {' and '.join(turn.learners)}"
        row = f"{self._skipped} in a row had gradients that are not finite"
        problem = f"stopped before update {self.step + 1}: {row}; {where}"
        if self.accelerator.is_main_process:
            logger.error("%s", problem)
        raise DivergedError(problem)

    def _why_not_finite(self, batches: Sequence[Batch], losses: Mapping[str, Tensor]) -> str:
        """What is said by the process in which it began; the others have its gradients too."""
        lq, gt = (torch.cat([batch[plane] for batch in batches]) for plane in ("lq", "gt"))
        mine = why_not_finite(self.network, lq, gt, losses)
        here = not all(bool(torch.isfinite(loss)) for loss in losses.values())
        found = launch.of_all((here, mine))
        return next((why for here, why in found if here), found[0][1])

    def _write_losses(self) -> None:
        self._recent = self._window.take(self.accelerator)
        seconds, updates = time.perf_counter() - self._clock, self.step - self._clock_step
        speed = updates / seconds
        if self._log is not None and self._recent:
            left = (self.options.train.total_iter - self.step) / speed
            rate = self.learners[STUDENT].rate
            self._log.losses(self.step, self._recent, self._norms, rate=rate, speed=speed, left=left)
            self._norms = {}
        self._begin_clock()

    def _begin_clock(self) -> None:
        self._clock, self._clock_step = time.perf_counter(), self.step

    def _validate_if_due(self) -> bool:
        """Score the network if it is time; False if a signal came meanwhile, so that it is not finished."""
        val, step = self.options.val, self.step
        due = val is not None and (step % val.val_freq == 0 or step == self.options.train.total_iter)
        if val is None or not due or not self.plan.val or self._validated >= step:
            return True
        folder = self.folder.visualization / str(step) if val.save_img else None
        self._judge.take(self._weights())
        try:
            scores = self._judge.score(self.plan.val, self._look_up, save=folder)
        except StoppedError:
            return False
        if self._log is not None:
            self._log.scores(step, scores)
        launch.together(lambda: self._judge.keep_best(step, scores))
        self._validated = step
        self._begin_clock()
        return True

    def _look_up(self, _: int) -> None:
        """Between two images, leave validation if a signal has come."""
        if self._interrupt.received is not None:
            raise StoppedError

    def _weights(self) -> dict[str, Tensor]:
        """The weights that count: the averaged ones if there are any."""
        return (self.network if self.ema is None else self.ema.module).state_dict()

    def _save(self) -> None:
        """Write a state, the weights of this update, and the model file of the latest ones."""
        window = self._window.state(self.accelerator)
        self._in_main(lambda: self._write(window))

    def _write(self, window: dict[str, Any]) -> None:
        if self._skipped and not all(value.isfinite().all() for value in self.network.parameters()):
            logger.warning("nothing is saved after update %d: weights are not finite", self.step)
            return
        scaler = self.accelerator.scaler
        state = State(
            step=self.step,
            options=self.options.model_dump(mode="json"),
            network=self.network.state_dict(),
            optimizer=self.learners[STUDENT].state(),
            ema=None if self.ema is None else self.ema.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            others={
                name: {"weights": learner.module.state_dict(), "optimizer": learner.state()}
                for name, learner in self.learners.items()
                if name != STUDENT
            },
            best=self._judge.best,
            validated=self._validated,
            skipped=self._skipped,
            window=window,
        )
        averaged = None if self.ema is None else self._weights()
        save_weights(self.folder.models, self.step, self.network.state_dict(), averaged)
        self._judge.take(self._weights())
        self._judge.keep_latest(self.step)
        # Last, since it says that everything else is there.
        save_state(self.folder.states, state, keep_last=self.options.logger.keep_last)

    def _end(self, stopped_by: int | None) -> Outcome:
        """Test the selected weights, if training is complete."""
        test: list[SetScore] = []
        if stopped_by is None and self.plan.test:
            try:
                test = self._judge.score_selected(self.plan.test, self._look_up)
            except StoppedError:
                stopped_by = self._highest(self._interrupt.received or 0)
            else:
                if self._log is not None:
                    self._log.scores(self.step, test, final=True)
        return Outcome(self.step, stopped_by, self._judge.best, test, self._judge.selected)

    def _in_main(self, make: Callable[[], Made]) -> Made | None:
        """Do something in the main process, while the others wait; if it cannot be done, all of them end."""
        return launch.together(make if self.accelerator.is_main_process else lambda: None)

    def _open_log(self) -> TrainLog:
        options = self.options
        return TrainLog(self.folder, options.name, options.logger, step=self.step, validated=self._validated)


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
