"""Pieces of training that fit a time: planned as pure functions, and run by a clock that goes with the work done."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.training import best_checkpoint
from imdn_kd.training import distributed as launch
from imdn_kd.training.checkpoint import State
from imdn_kd.training.run import fit, prepare
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.signals import Deadline, TimeUpError
from imdn_kd.training.timed import add_period, ended_at, go_on, is_complete, length, turning_points
from imdn_kd.training.trainer import Trainer, TrainResult
from imdn_kd.training.update import TrainStep
from tests.training.small_runs import (
    flat,
    make_data,
    merged,
    metrics,
    small_options,
    state_file,
    train,
    with_validation,
)

COSINE = {"type": "CosineAnnealingRestartLR", "periods": [8, 4], "restart_weights": [0.7, 0.5]}
NOT_MULTISTEP = {"milestones": None, "gamma": None}


def cosine(data: Path, changes: dict[str, Any] | None = None) -> TrainOptions:
    """A recipe whose own numbers of updates play no part."""
    course = {"train": {"total_iter": 3, "scheduler": {**COSINE, **NOT_MULTISTEP}}}
    return small_options(data, merged(merged(with_validation(data, select_on="held_out"), course), changes or {}))


def state(options: TrainOptions, step: int, *, validated: int | None = None) -> State:
    """What is left of a run that has made so many updates."""
    whole = options.model_dump(mode="json")
    return State(step, whole, {}, {}, validated=step if validated is None else validated)


def numbers(options: TrainOptions) -> tuple[Any, ...]:
    """What is planned for a piece."""
    scheduler: Any = options.train.scheduler
    assert options.val is not None
    return options.train.total_iter, scheduler.periods, scheduler.restart_weights, options.val.val_freq


def test_the_first_piece_is_the_first_period(data):
    assert numbers(add_period(cosine(data), None, 100)) == (100, [100], [1.0], 20)


def test_after_a_complete_piece_comes_another_period_of_the_recipes_last_height(data):
    first = state(add_period(cosine(data), None, 100), 100)

    assert is_complete(first)
    assert numbers(add_period(cosine(data), first, 51, 2)) == (151, [100, 51], [1.0, 0.5], 26)


def test_a_piece_under_way_is_kept_whatever_the_file_says(data):
    begun = add_period(cosine(data), state(add_period(cosine(data), None, 100), 100), 50)
    file = cosine(data, {"train": {"total_iter": 7}, "val": {"val_freq": 1}})
    stopped = state(begun, 120)

    assert not is_complete(stopped)
    assert numbers(go_on(file, stopped)) == (150, [100, 50], [1.0, 0.5], 10)


def test_a_piece_whose_last_validation_is_missing_is_under_way(data):
    options = add_period(cosine(data), None, 100)

    assert not is_complete(state(options, 100, validated=80))
    unmeasured = options.model_copy(update={"val": None})
    assert is_complete(state(unmeasured, 100, validated=0))


@pytest.mark.parametrize(
    ("periods", "step", "expected"),
    [([80, 40], 100, [80, 20]), ([80, 40], 80, [80]), ([80, 40], 150, [80, 70]), ([80], 30, [30])],
)
def test_periods_that_do_not_sum_to_the_updates_done_are_made_to(data, periods, step, expected):
    weights = [1.0, 0.3][: len(periods)]
    before = add_period(cosine(data), None, step)
    other = before.train.scheduler.model_copy(update={"periods": periods, "restart_weights": weights})
    before = before.model_copy(update={"train": before.train.model_copy(update={"scheduler": other})})
    total, found, heights, _ = numbers(add_period(cosine(data), state(before, step), 10))

    assert (total, found, heights) == (step + 10, [*expected, 10], [*weights[: len(expected)], 0.5])


def test_a_run_of_another_course_counts_as_one_period(data):
    multistep = small_options(data, {"train": {"total_iter": 20}})

    assert numbers(add_period(cosine(data), state(multistep, 20), 10))[:3] == (30, [20, 10], [1.0, 0.5])
    assert numbers(go_on(cosine(data), state(multistep, 8)))[:3] == (20, [20], [1.0])


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=5), st.integers(1, 5000))
def test_ended_periods_sum_to_the_updates_and_go_as_before(periods, step):
    found, weights = ended_at(periods, range(len(periods)), step)

    assert sum(found) == step
    assert min(found) > 0
    assert found[:-1] == periods[: len(found) - 1]
    assert weights == list(range(len(found)))


@given(
    seconds=st.floats(0, 1e5),
    start=st.integers(0, 1000),
    turns=st.lists(st.integers(0, 3000), max_size=4),
    paces=st.lists(st.floats(0.01, 100), min_size=5, max_size=5),
    validation=st.floats(0, 100),
    test=st.floats(0, 100),
)
def test_what_is_planned_fits_and_one_update_more_would_not(seconds, start, turns, paces, validation, test):
    starts = [start, *sorted(turn for turn in set(turns) if turn > start)]
    at = dict(zip(starts, paces, strict=False))
    updates, validations = length(
        seconds, start=start, turns=turns, seconds_at=at.__getitem__, validation=validation, test=test
    )

    def costs(updates: int) -> float:
        ends = [*starts[1:], 10**9]
        made = [max(0, min(start + updates, end) - here) for here, end in zip(starts, ends, strict=True)]
        rest = sum(count * pace for count, pace in zip(made, paces, strict=False))
        return rest + test + (validations + 1) * validation

    assert costs(updates + 1) > seconds - 1e-3
    assert not updates or costs(updates) < seconds + 1e-3
    assert 0 <= validations <= 5
    assert validations * validation <= seconds / 4 + 1e-3


@given(start=st.integers(0, 1000), updates=st.integers(1, 1000), validations=st.integers(0, 5))
def test_there_are_no_more_validations_than_planned(base, start, updates, validations):
    before = state(add_period(base, None, start), start) if start else None
    total, *_, val_freq = numbers(add_period(base, before, updates, validations))
    due = [step for step in range(start + 1, total + 1) if step % val_freq == 0 or step == total]

    assert len(due) <= validations + 1
    assert len(due) >= min(validations, updates) // 2


@pytest.fixture(scope="module")
def base(data):
    return cosine(data)


def test_updates_may_take_another_time_where_patches_or_objectives_change(data):
    objectives = {"a": {"type": "L1Loss", "start_iter": 40, "stop_iter": 90}, "b": {"type": "L1Loss"}}
    stages = {"gt_sizes": [16, 32], "mini_batch_sizes": [4, 4], "iters": [30, 30]}
    changes = {
        "datasets": {"train": stages},
        "network_t": {"weights": "unopened"},
        "distill": {"objectives": objectives},
    }

    assert turning_points(cosine(data, changes)) == [0, 30, 40, 90]


def test_only_pieces_that_come_within_the_time_are_asked_for():
    asked = []

    def seconds_at(step: int) -> float:
        asked.append(step)
        return {0: 1.0, 10: 2.0}[step]

    assert length(30, start=0, turns=[10, 50], seconds_at=seconds_at, validation=0, test=0) == (20, 5)
    assert asked == [0, 10]


class Clock:
    """Time that passes with updates and scored images alone, in seconds."""

    def __init__(self, update: float = 1.0, image: float = 0.5) -> None:
        self.now, self.update, self.image = 0.0, update, image

    def __call__(self) -> float:
        return self.now

    def drive(self, patch: Any) -> Clock:
        make, validate = TrainStep.run, best_checkpoint.validate

        def slow_make(*args: Any, **keywords: Any) -> Any:
            self.now += self.update
            return make(*args, **keywords)

        def slow_validate(*args: Any, on_image: Any, **keywords: Any) -> Any:
            def slow_image(index: int) -> None:
                self.now += self.image
                on_image(index)

            return validate(*args, on_image=slow_image, **keywords)

        patch.setattr(TrainStep, "run", slow_make)
        patch.setattr(best_checkpoint, "validate", slow_validate)
        return self


@pytest.fixture
def clock(monkeypatch):
    return Clock().drive(monkeypatch)


def piece(
    options: TrainOptions, root: Path, deadline: Deadline, **keywords: Any
) -> tuple[TrainOptions, Trainer, TrainResult]:
    """What `imdn-kd train --auto_resume --minutes` does."""
    planned = fit(options, deadline, root=root, auto_resume=True, **keywords)
    trainer = prepare(planned, root=root, auto_resume=True, deadline=deadline, examined=True)
    return planned, trainer, trainer.run()


def test_pieces_follow_one_another_and_each_ends_in_time_at_the_lowest_rate(data, tmp_path, clock):
    periods: list[int] = []
    for number in range(3):
        begin = clock.now
        planned, trainer, result = piece(cosine(data), tmp_path, Deadline(60, clock))
        total, found, weights, _ = numbers(planned)

        assert (result.step, result.time_up, result.signal) == (total, False, None)
        assert found[:-1] == periods
        assert weights == [1.0, 0.5, 0.5][: number + 1]
        assert 60 * 0.8 < clock.now - begin <= 60
        assert trainer.optims["student"].lr < 0.01 * 2e-3
        assert 5 <= sum("scores" in r and r["step"] > sum(periods) for r in metrics(tmp_path)) <= 6
        periods = found


def test_planning_leaves_nothing_behind_and_changes_nothing(data, tmp_path, clock):
    planned = fit(cosine(data), Deadline(30, clock), root=tmp_path / "with")
    assert not (tmp_path / "with").exists()
    train(planned, tmp_path / "with")
    clock.now = 0
    train(planned, tmp_path / "without")
    total = planned.train.total_iter

    assert flat(state_file(tmp_path / "with", total)) == flat(state_file(tmp_path / "without", total))


def test_a_piece_that_takes_longer_is_stopped_in_time_and_gone_on_with_to_its_planned_end(data, tmp_path, clock):
    deadline = Deadline(30, clock)
    planned = fit(cosine(data), deadline, root=tmp_path)
    total = planned.train.total_iter
    clock.update = 2.0
    result = prepare(planned, root=tmp_path, deadline=deadline).run()

    assert (result.time_up, result.signal, result.test) == (True, None, [])
    assert 0 < result.step < total
    assert clock.now <= 30 + clock.update
    assert state_file(tmp_path, result.step)["options"]["train"]["total_iter"] == total
    file = cosine(data, {"val": {"val_freq": 1}})
    again, _, result = piece(file, tmp_path, Deadline(3600, clock))
    assert again == planned
    assert (result.step, result.time_up) == (total, False)
    train(planned, tmp_path / "whole")
    assert flat(state_file(tmp_path, total)) == flat(state_file(tmp_path / "whole", total))
    assert metrics(tmp_path) == metrics(tmp_path / "whole")


def test_a_piece_whose_last_validation_was_stopped_is_validated_before_the_next_one(data, tmp_path, clock):
    deadline = Deadline(60, clock)
    planned = fit(cosine(data), deadline, root=tmp_path)
    total = planned.train.total_iter

    def stall(step: int, losses: Any, rate: float) -> None:
        clock.image = 100.0 if step == total else clock.image

    result = prepare(planned, root=tmp_path, deadline=deadline, on_step=stall).run()
    assert (result.step, result.time_up) == (total, True)
    assert state_file(tmp_path, total)["validated"] < total
    clock.image = 0.5
    again, _, result = piece(cosine(data), tmp_path, Deadline(60, clock))
    assert (again, result.time_up) == (planned, False)
    assert metrics(tmp_path)[-1]["step"] == total
    assert state_file(tmp_path, total)["validated"] == total
    after, _, _ = piece(cosine(data), tmp_path, Deadline(60, clock))
    assert len(after.train.scheduler.periods) == 2


def test_objectives_that_begin_later_are_planned_with_their_own_time(data, tmp_path, clock, monkeypatch):
    """Updates take 1 s at first and 5 s from 30 on."""
    stages = {"gt_sizes": [16, 32], "mini_batch_sizes": [4, 2], "iters": [30, 1000]}
    make = TrainStep.run

    def slower(self: TrainStep, batches: Any, step: int, **keywords: Any) -> Any:
        clock.now += 4 if step >= 30 else 0
        return make(self, batches, step, **keywords)

    monkeypatch.setattr(TrainStep, "run", slower)
    planned, _, result = piece(
        cosine(data, {"datasets": {"train": stages}, "val": {"select_on": None}}), tmp_path, Deadline(300, clock)
    )

    assert not result.time_up
    assert result.step == planned.train.total_iter
    assert 300 * 0.8 < clock.now <= 300


def test_too_little_time_for_an_update_is_said_and_nothing_is_left(data, tmp_path, clock):
    with pytest.raises(InputError, match=r"^--minutes 0\.05: there is no time for one update .*; give more$"):
        fit(cosine(data), Deadline(3, clock), root=tmp_path)

    assert not list(tmp_path.iterdir())


def test_a_rate_without_periods_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"train\.scheduler .* CosineAnnealingRestartLR"):
        fit(small_options(data), Deadline(60), root=tmp_path)


def test_the_results_of_teachers_are_computed_before_planning_and_kept_when_time_is_up(tmp_path, clock):
    data = make_data(tmp_path / "data")
    save_model(tmp_path / "teacher.safetensors", ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8})))
    objectives = {"l_kd": {"type": "L1Loss"}}
    options = cosine(
        data,
        {
            "network_t": {"weights": str(tmp_path / "teacher.safetensors")},
            "distill": {"objectives": objectives, "cache": True, "check_images": 0},
        },
    )
    done: list[int] = []

    def on_teaching(number: int, total: int) -> None:
        done.append(number)
        clock.now += 20 if len(done) < 3 else 0

    with pytest.raises(TimeUpError):
        fit(options, Deadline(30, clock), root=tmp_path / "runs", on_teaching=on_teaching)
    assert done == [0, 1]
    assert not (tmp_path / "runs").exists()
    _, trainer, result = piece(options, tmp_path / "runs", Deadline(60, clock), on_teaching=on_teaching)
    assert done[2] > 0
    assert not result.time_up
    assert trainer.setup.loader.images.planes[-1] == trainer.setup.cache.key


def test_a_deadline_counts_from_when_it_is_made():
    times: Iterator[float] = itertools.chain([100.0, 109.0, 110.0])
    deadline = Deadline(10, partial(next, times))

    assert (deadline.passed, deadline.passed) == (False, True)


@pytest.mark.processes
def test_processes_plan_for_the_slowest_and_end_together(data, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    result = subprocess.run([*command, __name__, str(data), str(tmp_path)], capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]

    assert seen[0]["planned"] == seen[1]["planned"]
    assert seen[0]["result"] == seen[1]["result"] == [seen[0]["planned"][0], False]
    assert seen[1]["now"] <= 60
    assert seen[1]["now"] > 0.8 * 60
    assert seen[0]["stopped"] == seen[1]["stopped"]
    assert seen[0]["stopped"][1]


def in_two_processes(data: Path, folder: Path) -> None:
    """Train a piece where one process is slower, then one that is stopped, since it has become slower still."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, launch.processes("pytorch"):
        rank = launch.rank()
        clock = Clock(update=(1.0, 2.0)[rank]).drive(patch)
        planned, _, result = piece(cosine(data), folder, Deadline(60, clock))
        now = clock.now
        deadline = Deadline(60, clock)
        options = fit(cosine(data), deadline, root=folder, auto_resume=True)
        clock.update *= 4 if rank == 1 else 1
        stopped = prepare(options, root=folder, auto_resume=True, deadline=deadline).run()
    found = {
        "planned": numbers(planned),
        "result": [result.step, result.time_up],
        "now": now,
        "stopped": [stopped.step, stopped.time_up],
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    in_two_processes(*map(Path, sys.argv[1:]))
