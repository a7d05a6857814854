"""A study, read from its option file: the options of each arm, and the runs to be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imdn_kd.config.options import check_options, merged_options, read_options
from imdn_kd.config.yaml import dump_yaml
from imdn_kd.errors import InputError, Problems
from imdn_kd.evaluation.schema import DatasetOptions
from imdn_kd.evaluation.study.folder import RunCost, StudyFolder
from imdn_kd.evaluation.study.schema import StudyOptions
from imdn_kd.study.arms import arm_content
from imdn_kd.study.budget import with_budget
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import PathOptions, TrainOptions
from imdn_kd.training.setup.read_file import read_train_options
from imdn_kd.utils.files import atomic_path


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        first: whether it is the first of its arm, of which the images are kept.
    """

    arm: str
    seed: int
    first: bool = False

    @property
    def name(self) -> str:
        """Of the run and its files."""
        return f"{self.arm}_{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study that can be run.

    Attributes:
        options: of the study.
        arms: options of `imdn-kd train` for each arm, without seed; those of `scratch_equal_time` still with the
            iterations of the others.
        folder: of the study.
    """

    options: StudyOptions
    arms: Mapping[str, TrainOptions]
    folder: StudyFolder

    def runs(self) -> list[Run]:
        """All runs, in the order in which they are made: seed by seed, those whose length is measured last."""
        seeds = self.options.seeds
        both = [(seed, name) for seed in seeds for name in self.arms]
        return [Run(name, seed, seed == seeds[0]) for seed, name in sorted(both, key=lambda one: self.measured(one[1]))]

    def measured(self, arm: str) -> bool:
        """Whether the length of an arm follows from the time that others take."""
        return self.options.arms[arm].control == "scratch_equal_time"

    def options_of(self, run: Run) -> TrainOptions | None:
        """The options of a run; None as long as its length, or the weights that it begins with, are not known.

        Raises:
            InputError: `study.changed`, runs of the arm were made with other options; `study.not-measured` and
                `study.no-weights`, the runs from which the length or the weights would come have failed;
                `study.weights-gone`, the folder of such a run was removed.
        """
        options = self._with_length(run.arm)
        if options is None:
            return None
        options = options.model_copy(update={"name": run.name, "manual_seed": run.seed})
        before = self.options.initial_arm(run.arm)
        return options if before is None else self._beginning_with(options, Run(before, run.seed))

    def note(self, arm: str) -> None:
        """Write down the options of an arm, which its runs keep from now on."""
        options, path = self._with_length(arm), self.folder.arm_file(arm)
        if options is not None and not path.is_file():
            with atomic_path(path) as temporary:
                temporary.write_text(dump_yaml(plain_options(options)), encoding="utf-8")

    def check_unchanged(self) -> None:
        """Raise InputError, with a line for each arm whose earlier runs had other options."""
        with Problems() as problems:
            for arm in self.arms:
                with problems.at():
                    self._with_length(arm)

    def updates(self, arm: str) -> int:
        """Iterations of each run of an arm; of an arm whose length is still to be measured, those of the others."""
        options = self._with_length(arm, quiet=True) or self.arms[arm]
        return options.train.total_iter

    def _beginning_with(self, options: TrainOptions, before: Run) -> TrainOptions | None:
        result = self.folder.result(before.name)
        if result is None:
            return None
        if result.failed:
            raise InputError(f"{before.name} failed, so that there are no weights", code="study.no-weights")
        weights = RunFolder(self.folder.runs / before.name).model_file("best_psnr")
        if not weights.is_file():
            raise InputError(
                f"{weights}: is gone; remove {self.folder.result_file(before.name)}, too, and the run is made again",
                code="study.weights-gone",
            )
        return options.model_copy(update={"path": PathOptions(pretrain_network_g=str(weights))})

    def _with_length(self, arm: str, *, quiet: bool = False) -> TrainOptions | None:
        path, options = self.folder.arm_file(arm), self.arms[arm]
        if path.is_file():
            known = check_options(merged_options(path), TrainOptions, str(path))
            if self.measured(arm):
                options = with_budget(options, known.train.total_iter)
            differences = [*_differences(plain_options(known), plain_options(options))]
            if differences:
                raise InputError(
                    f"{path}: runs were made with other options than now ({differences[0]}); give the study another "
                    f"name, or remove {path.name} and runs/{arm}_*, results/{arm}_* to make them anew",
                    code="study.changed",
                )
            return options
        if not self.measured(arm):
            return options
        total = None if quiet else self._measured_length(arm)
        return None if total is None else with_budget(options, total)

    def _measured_length(self, arm: str) -> int | None:
        """As many iterations as the arm that it is compared with has time for; None if that is not known yet."""
        of, scratch = self.options.arms[arm].of, self.options.scratch
        assert of is not None and scratch is not None  # noqa: S101 - the schema asks for both
        per_update = []
        for other in (of, scratch):
            costs = [*self._costs(other)]
            if len(costs) < len(self.options.seeds):
                return None
            known = [cost.per_update for cost in costs if cost is not None and cost.iterations]
            if not known:
                raise InputError(
                    f"{other} has no measured time, from which that of {arm} follows", code="study.not-measured"
                )
            per_update.append(sum(known) / len(known))
        total = self.arms[of].train.total_iter
        return max(total, round(total * per_update[0] / per_update[1]))

    def _costs(self, arm: str) -> Iterator[RunCost | None]:
        """The costs of the runs of an arm that are complete."""
        for seed in self.options.seeds:
            run = Run(arm, seed)
            if self.folder.result(run.name) is not None:
                yield self.folder.cost(run.name)


def read_study(path: Path | str, overrides: Sequence[str] = (), *, root: Path | str = "experiments/studies") -> Study:
    """Read the option file of a study, and make the options of its arms; nothing is opened.

    Args:
        path: of the file.
        overrides: as `budget=200`; see `read_options`.
        root: folder of all studies.

    Raises:
        InputError: with a line for everything that is wrong.
    """
    path = Path(path)
    options = read_options(path, StudyOptions, overrides)
    base_path = path.parent / Path(options.base).expanduser()
    read_train_options(base_path)
    base = _content(base_path)
    arms: dict[str, TrainOptions] = {}
    with Problems() as problems:
        for name, arm in options.arms.items():
            with problems.at():
                content = arm_content(options, base, name)
                found = check_options({**content, "name": name}, TrainOptions, f"{path}: arms.{name}")
                found = _selecting(found, options)
                budget = arm.budget or (options.arms[arm.of].budget if arm.of is not None else None) or options.budget
                arms[name] = found if budget is None else with_budget(found, budget)
    with Problems() as problems:
        problems.add((f"{path}: {line}" for line in _sets(options, arms)), code="study.sets")
        problems.add((f"{path}: {line}" for line in _beginnings(options, arms)), code="study.initial-weights")
    for name in arms:
        if before := options.initial_arm(name):
            # Noted with the options of the arm; each run has its own seed.
            arms[name] = arms[name].model_copy(update={"path": PathOptions(pretrain_network_g=f"{before}_SEED")})
    return Study(options, arms, StudyFolder(Path(root) / options.name))


def _beginnings(study: StudyOptions, arms: Mapping[str, TrainOptions]) -> Iterator[str]:
    """What is wrong with the arms that begin with others."""
    for name, options in arms.items():
        before = study.initial_arm(name)
        if before is None:
            continue
        if options.path.pretrained or options.path.resume_state:
            yield f"arms.{name}: begins with {before}; leave out weights and states in path"
        if options.network_g != arms[before].network_g:
            yield f"arms.{name}: begins with {before}, which has another network_g; give both the same"


def plain_options(options: TrainOptions) -> dict[str, Any]:
    """What of options was given, as plain values; without name and seed, which are those of single runs."""
    given = options.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return {**given, "name": "arm", "manual_seed": 0}


def _content(path: Path) -> dict[str, Any]:
    content = merged_options(path)
    if content.get("imports"):
        own = [str((path.parent / name).resolve()) if name.endswith(".py") else name for name in content["imports"]]
        content["imports"] = own
    return content


def _selecting(options: TrainOptions, study: StudyOptions) -> TrainOptions:
    """Options of a run that selects weights on the sets of the study."""
    if options.val is None:
        return options
    return options.model_copy(update={"val": options.val.model_copy(update={"select_on": [*study.select]})})


def _sets(study: StudyOptions, arms: Mapping[str, TrainOptions]) -> Iterator[str]:
    """What is wrong with the data sets that weights are selected on and that are reported."""
    first, one = next(iter(arms.items()))
    val, test = ({each.name: each for each in one.datasets.measured(phase)} for phase in ("val", "test"))
    if one.val is None:
        yield "val: weights are selected by validation; give val.val_freq"
        return
    for key, names, known, phase in (("select", study.select, val, "val"), ("report", study.report, test, "test")):
        for name in names:
            if name not in known:
                there = ", ".join(known) or "none"
                yield f"{key}: no data set of datasets.{phase} is called {name!r} (there: {there})"
    if one.val.select_on_benchmark:
        yield "val.select_on_benchmark: not in a study, whose figures it would flatter; leave it out"
    for chosen in study.select:
        for name in study.report:
            if chosen in val and name in test and _folder(val[chosen]) == _folder(test[name]):
                yield f"select: {chosen} are the images of {name}, which is reported; select on others"
    for name, other in arms.items():
        if (other.scale, other.datasets.measured("val"), other.datasets.measured("test"), _how(other)) != (
            *(one.scale, one.datasets.measured("val"), one.datasets.measured("test")),
            _how(one),
        ):
            yield f"arms.{name}: is measured on other images, or otherwise, than {first}; leave scale, datasets and val"


def _how(options: TrainOptions) -> object:
    return None if options.val is None else options.val.metrics


def _folder(data: DatasetOptions) -> Path:
    return Path(data.dataroot_gt or Path("datasets") / data.name).resolve()


def _differences(before: Any, now: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401 - plain values
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif before != now:
        yield f"{place} is {now}, was {before}"
