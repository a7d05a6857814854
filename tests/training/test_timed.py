"""Training for a given time, by a clock that goes with the work done."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.training.checkpoint import State
from imdn_kd.training.run import prepare
from imdn_kd.training.schema import OPEN_END, TrainOptions
from imdn_kd.training.signals import Deadline, TimeUpError
from imdn_kd.training.timed import begin_decay, is_complete, next_segment
from tests.training.small_runs import flat, make_data, metrics, small_options, state_file
from tests.training.timed_runs import Clock, recipe, segment


def fixed(options: TrainOptions, total: int, decay: int) -> TrainOptions:
    """A segment whose end is known."""
    schedule = options.train.scheduler.model_copy(update={"decay_iter": decay})
    return options.model_copy(
        update={"train": options.train.model_copy(update={"total_iter": total, "scheduler": schedule})}
    )


def state(options: TrainOptions, step: int, *, validated: int | None = None) -> State:
    """What is left of a run that has made so many iterations."""
    whole = options.model_dump(mode="json")
    return State(step, whole, {}, {}, validated=step if validated is None else validated)


def schedule(options: TrainOptions) -> tuple[Any, ...]:
    scheduler: Any = options.train.scheduler
    return options.train.total_iter, scheduler.decay_iter, scheduler.restart_weights[0], scheduler.eta_min


def test_the_first_segment_is_constant_until_the_clock_ends_it(data):
    assert schedule(next_segment(recipe(data), None)) == (OPEN_END, 0, 0.7, 1e-6)
    for scheduler in (None, small_options(data).train.scheduler):
        other = recipe(data).train.model_copy(update={"scheduler": scheduler})
        options = recipe(data).model_copy(update={"train": other})
        assert schedule(next_segment(options, None)) == (OPEN_END, 0, 1.0, 0.0)


def test_a_stable_phase_goes_on_at_its_rate(data):
    begun = next_segment(recipe(data), None)
    assert schedule(next_segment(recipe(data), state(begun, 50))) == (OPEN_END, 0, 0.7, 1e-6)


def test_a_decay_that_has_begun_is_finished_whatever_the_file_says(data):
    begun = fixed(next_segment(recipe(data), None), 100, 20)
    file = recipe(data, {"train": {"scheduler": {"restart_weights": [0.1, 0.1], "eta_min": 1e-5}}})
    for step, validated in ((80, 80), (90, 80), (100, 80)):
        assert schedule(next_segment(file, state(begun, step, validated=validated))) == (100, 20, 0.7, 1e-6)


def test_after_a_complete_run_comes_a_segment_of_the_last_weight(data):
    begun = fixed(next_segment(recipe(data), None), 100, 20)
    for before in (begun, small_options(data, {"train": {"total_iter": 100}})):
        assert schedule(next_segment(recipe(data), state(before, 100))) == (OPEN_END, 0, 0.5, 1e-6)


def test_a_run_whose_last_validation_is_missing_is_not_complete(data):
    options = fixed(next_segment(recipe(data), None), 100, 20)

    assert is_complete(state(options, 100))
    assert not is_complete(state(options, 100, validated=80))
    assert is_complete(state(options.model_copy(update={"val": None}), 100, validated=0))


@pytest.fixture
def clock(monkeypatch):
    return Clock().drive(monkeypatch)


@pytest.mark.slow
def test_segments_follow_one_another_and_each_ends_in_time_at_the_lowest_rate(data, tmp_path, clock):
    done = 0
    for number in range(2):
        begin = clock.now
        trainer, result = segment(recipe(data), tmp_path, Deadline(60, clock))
        total, decay, weight, eta_min = schedule(trainer.options)

        assert (result.step, result.time_up, result.signal) == (total, False, None)
        assert (weight, total - decay - done) == ((0.7, 0.5)[number], 48)
        assert decay == 10  # 12 s are left, of which a tenth is not planned for
        assert clock.now - begin == 58
        assert trainer.optims["student"].lr == pytest.approx(eta_min)
        assert [record["step"] for record in metrics(tmp_path) if "scores" in record][-1] == total
        done = total


@pytest.mark.slow
def test_a_decay_that_was_killed_resumes_to_the_same_end_and_ends_with_the_same_bytes(data, tmp_path, clock):
    segment(recipe(data), tmp_path / "whole", Deadline(30, clock))
    whole = metrics(tmp_path / "whole")
    total = whole[-1]["step"]
    clock.now = 0

    class KilledError(Exception):
        pass

    def kill_at(last: int, step: int, *_: Any) -> None:
        if step == last:
            raise KilledError

    for last in (total - 4, total - 1):
        with pytest.raises(KilledError):
            segment(recipe(data), tmp_path / "killed", Deadline(30, clock), on_step=partial(kill_at, last))
        # The next process finds another machine.
        clock.update *= 3
    file = recipe(data, {"train": {"scheduler": {"restart_weights": [0.1, 0.2]}}})
    _, result = segment(file, tmp_path / "killed", Deadline(30, clock))

    assert result.step == total
    assert flat(state_file(tmp_path / "killed", total)) == flat(state_file(tmp_path / "whole", total))
    assert metrics(tmp_path / "killed") == whole


def test_a_decay_ends_at_the_lowest_rate_also_where_it_takes_longer_than_expected(data, tmp_path, clock):
    def slow_down(step: int, *_: Any) -> None:
        clock.update = 10.0 if step > 24 else 1.0

    trainer, result = segment(recipe(data), tmp_path, Deadline(30, clock), on_step=slow_down)
    assert clock.now > 30
    assert (result.step, result.time_up) == (trainer.options.train.total_iter, False)
    assert trainer.optims["student"].lr == pytest.approx(1e-6)


def test_the_end_is_fixed_in_the_state_before_the_decay_begins(data, tmp_path, clock):
    options = next_segment(recipe(data), None)
    trainer = prepare(options, root=tmp_path, deadline=Deadline(20, clock))
    result = trainer.run()
    assert (result.step, result.time_up) == (20, True)
    before = state_file(tmp_path, 20)
    planned = begin_decay(trainer, 7)
    after = state_file(tmp_path, 20)

    assert schedule(planned) == (27, 7, 0.7, 1e-6)
    assert after.pop("options") == planned.model_dump(mode="json")
    assert before.pop("options")["train"]["total_iter"] == OPEN_END
    assert flat(before) == flat(after)


def test_the_least_time_makes_two_iterations(data, tmp_path, clock):
    _, result = segment(recipe(data), tmp_path, Deadline(1e-3, clock))
    assert (result.step, result.time_up) == (2, False)


def test_a_validation_that_the_decay_interrupts_is_made_after_it_has_begun(data, tmp_path, clock):
    clock.image = 100.0
    trainer, _ = segment(recipe(data, {"val": {"val_freq": 5}}), tmp_path, Deadline(10, clock))
    assert [record["step"] for record in metrics(tmp_path) if "scores" in record] == [5, trainer.step]


def test_the_outputs_of_teachers_are_cached_first_and_kept_when_time_is_up(tmp_path, clock):
    data = make_data(tmp_path / "data")
    save_model(tmp_path / "teacher.safetensors", ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8})))
    objectives = {"l_kd": {"type": "L1Loss"}}
    options = recipe(
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
        segment(options, tmp_path / "runs", Deadline(30, clock), on_teaching=on_teaching)
    assert done == [0, 1]
    assert not (tmp_path / "runs").exists()
    trainer, result = segment(options, tmp_path / "runs", Deadline(60, clock), on_teaching=on_teaching)
    assert done[2] > 0
    assert not result.time_up
    assert trainer.setup.loader.images.planes[-1] == trainer.setup.cache.key


def test_a_deadline_counts_from_when_it_is_made():
    now = [100.0]
    deadline = Deadline(10, lambda: now[0])
    earlier = deadline.earlier(4)
    passed = []
    for now[0] in (105.0, 106.0, 109.0, 110.0):
        passed.append((earlier.passed, deadline.passed))
    assert passed == [(False, False), (True, False), (True, False), (True, True)]
