"""What a run takes: wall and CPU time of its iterations, and of caching the outputs of a teacher."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import torch

from imdn_kd import __version__
from imdn_kd.evaluation.study.folder import CacheCost, RunCost, StudyFolder, write_json
from imdn_kd.training.schema import TrainOptions

_WRITE_EVERY = 10.0

Clock = Callable[[], tuple[float, float]]


def now() -> tuple[float, float]:
    """Wall and CPU time of this process, s."""
    return time.perf_counter(), time.process_time()


class UpdateClock:
    """Measures the iterations of a run that no validation, checkpoint or line of the log stretches.

    Args:
        folder: of the study; what was measured before the run was interrupted counts on.
        run: its name.
        options: of the run.
        clock: gives wall and CPU time.
    """

    def __init__(self, folder: StudyFolder, run: str, options: TrainOptions, clock: Clock = now) -> None:
        self._folder, self._run, self._clock = folder, run, clock
        self._others = {options.logger.print_freq, options.logger.save_checkpoint_freq}
        self._others |= set() if options.val is None else {options.val.val_freq}
        before = folder.cost(run) or RunCost()
        self._count, self._seconds, self._cpu = before.iterations, before.seconds, before.cpu
        on_cpu = options.num_gpu == 0 or not torch.cuda.is_available()
        self._where = {"on_cpu": on_cpu, "machine": machine(on_cpu)}
        self._last: tuple[float, float] | None = None
        self._written = clock()[0]

    def at(self, step: int) -> None:
        """Say that an iteration is done; `step` is how many there were."""
        wall, cpu = self._clock()
        if self._last is not None:
            self._count += 1
            self._seconds += wall - self._last[0]
            self._cpu += cpu - self._last[1]
        # What follows these iterations is not training.
        self._last = None if any(step % other == 0 for other in self._others) else (wall, cpu)
        if wall - self._written > _WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write down what was measured."""
        self._written = self._clock()[0]
        write_json(
            self._folder.cost_file(self._run),
            RunCost(self._count, self._seconds, self._cpu, **self._where),  # type: ignore[arg-type]
        )


class CacheClock:
    """Measures how long the outputs of a teacher take that are cached before a run.

    Args:
        folder: of the study.
        arm: that asks for them.
        clock: gives wall and CPU time.
    """

    def __init__(self, folder: StudyFolder, arm: str, clock: Clock = now) -> None:
        self._folder, self._arm, self._clock = folder, arm, clock
        self._first: tuple[int, float, float] | None = None
        self._done = 0

    def at(self, done: int, total: int) -> None:
        """Say how many images are done."""
        self._done = done
        if self._first is None:
            self._first = done, *self._clock()

    def write(self, teacher: str) -> None:
        """Write down what was measured, if anything was; it is added to earlier figures of the same teacher.

        Args:
            teacher: what the cache is called.
        """
        if self._first is None or self._done == self._first[0]:
            return
        wall, cpu = self._clock()
        same = [cost for cost in self._folder.caches() if cost.teacher == teacher]
        before = same[0] if same else CacheCost(teacher, self._arm, 0, 0.0, 0.0)
        images, seconds = before.images + self._done - self._first[0], before.seconds + wall - self._first[1]
        cost = CacheCost(teacher, before.arm, images, seconds, before.cpu + cpu - self._first[2])
        write_json(self._folder.cache_file(teacher), cost)


def machine(on_cpu: bool) -> str:
    """The processor or GPU and the versions, for the report."""
    name = _processor() if on_cpu else torch.cuda.get_device_name()
    return f"{name}, imdn_kd {__version__}, torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - no file of the user's
            named = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        named = ""
    return named or platform.processor() or platform.machine()
