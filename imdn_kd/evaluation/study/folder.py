"""The folder of a study: what lies where, and the figures of its runs as files of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imdn_kd.errors import InputError
from imdn_kd.utils.files import atomic_path

HR = "HR"
"""Among the folders of images by arm: the ground truth."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        updates: iterations that were made.
        selected_at: iteration of the selected weights.
        scores: PSNR in dB and SSIM by data set and image.
        baseline: the same of bicubic interpolation, or of the inputs at scale 1.
        baseline_name: `bicubic` or `input`.
        curve: iteration, and mean PSNR on the sets for selection, of each validation.
        parameters: of the student.
        failed: why there are no figures; empty if there are.
    """

    arm: str
    seed: int
    updates: int = 0
    selected_at: int = 0
    scores: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    baseline: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    baseline_name: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    parameters: int = 0
    failed: str = ""

    def mean(self, data: str, figure: int) -> float:
        """The mean over the images of a data set: of PSNR (0) or SSIM (1)."""
        values = [both[figure] for both in self.scores[data].values()]
        return sum(values) / len(values)


@dataclass(frozen=True)
class RunCost:
    """What a run took, by iterations between which nothing else was done.

    Attributes:
        iterations: how many were measured.
        seconds: that these took.
        cpu: CPU time of these, s.
        on_cpu: whether the student was trained on the CPU, where CPU time is what counts.
        machine: where: processor or GPU, and versions.
    """

    iterations: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    on_cpu: bool = True
    machine: str = ""

    @property
    def per_update(self) -> float:
        """Seconds of an iteration: of CPU time on a CPU, which other processes on the machine do not stretch."""
        return (self.cpu if self.on_cpu else self.seconds) / self.iterations


@dataclass(frozen=True)
class CacheCost:
    """What caching the outputs of a teacher took.

    Attributes:
        teacher: what the cache is called in the store.
        arm: the arm that asked for it first.
        images: that were computed.
        seconds: that these took.
        cpu: CPU time of these, s.
    """

    teacher: str
    arm: str
    images: int
    seconds: float
    cpu: float


@dataclass(frozen=True)
class StudyFolder:
    """Paths in the folder of a study, and what they hold.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @property
    def runs(self) -> Path:
        """Folders of the runs, as `imdn-kd train` leaves them, `ARM_SEED`."""
        return self.path / "runs"

    @property
    def images(self) -> Path:
        """What each arm makes of the images of the reported sets with the first seed: `ARM/SET/IMAGE.png`."""
        return self.path / "images"

    def arm_file(self, arm: str) -> Path:
        """Options of an arm, for `imdn-kd train`."""
        return self.path / "arms" / f"{arm}.yml"

    def lock_file(self, run: str) -> Path:
        """Keeps other processes from a run while one trains it."""
        return self.path / "locks" / f"{run}.lock"

    def result_file(self, run: str) -> Path:
        """Written when a run is complete."""
        return self.path / "results" / f"{run}.json"

    def cost_file(self, run: str) -> Path:
        """What a run took."""
        return self.path / "costs" / f"{run}.json"

    def cache_file(self, teacher: str) -> Path:
        """What caching the outputs of a teacher took."""
        return self.path / "costs" / "teachers" / f"{teacher}.json"

    def result(self, run: str) -> RunResult | None:
        """The result of a run; None if it is not complete. Raises InputError if the file is damaged."""
        found = _read(self.result_file(run))
        return None if found is None else _as(RunResult, self.result_file(run), found)

    def cost(self, run: str) -> RunCost | None:
        """What a run took; None if nothing was measured. Raises InputError if the file is damaged."""
        found = _read(self.cost_file(run))
        return None if found is None else _as(RunCost, self.cost_file(run), found)

    def caches(self) -> list[CacheCost]:
        """What caching took, by the names of the caches. Raises InputError if a file is damaged."""
        files = sorted(self.cache_file("").parent.glob("*.json"))
        return [_as(CacheCost, path, _read(path)) for path in files]


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - a dataclass of plain values, or such values
    """Write plain values or a dataclass of them, whole or not at all; raises InputError if it cannot be written."""
    plain = value if isinstance(value, dict | list) else asdict(value)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error


def _as(kind: Any, path: Path, found: Any) -> Any:  # noqa: ANN401
    try:
        return kind(**found)
    except TypeError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: is damaged; remove it, and the study makes it again", code="study.damaged")
