"""The segments of a training that was resumed under other settings."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.release.card import _segments, _since
from imdn_kd.release.record import training_segments
from imdn_kd.training.schema import OPEN_END


def entry(step, precision="bf16", lr=1e-3, images=5, loss="L1Loss"):
    train = {"precision": precision, "optim_g": {"lr": lr}, "accumulation": 2, "ema_decay": 0.5, "fft_opt": None}
    train |= {"total_iter": 100, "scheduler": None}
    train["pixel_opt"] = {"type": loss, "loss_weight": 1.0}
    data = {"name": "photos", "batch_size_per_gpu": 4, "gt_size": 32}
    options = {"train": train, "datasets": {"train": data}, "manual_seed": 1}
    return {"step": step, "options": options, "processes": 3, "data": {"train": {"images": images}}}


def segment(first, last, precision="bf16", lr=1e-3):
    (found,) = training_segments([entry(0, precision, lr)], last)
    return {**found, "from": first}


def test_a_run_that_was_only_interrupted_is_one_segment():
    assert training_segments([entry(0), entry(10), entry(20)], 30) == [segment(1, 30)]


def test_other_settings_begin_another_segment():
    assert training_segments([entry(0), entry(10, "fp32"), entry(20, "fp32", 2e-3)], 30) == [
        *(segment(1, 10), segment(11, 20, "fp32"), segment(21, 30, "fp32", 2e-3)),
    ]


def test_what_was_thrown_away_does_not_count():
    assert training_segments([entry(0), entry(20, "fp32"), entry(5, "fp32", 2e-3)], 30) == [
        *(segment(1, 5), segment(6, 30, "fp32", 2e-3)),
    ]
    assert training_segments([entry(0, "fp32"), entry(0)], 30) == [segment(1, 30)]


def test_what_is_not_known_is_said():
    first, second = training_segments([entry(20)], 40)
    assert first == {"from": 1, "to": 20, "known": False}
    assert second == segment(21, 40)
    assert next(_segments([first, second])) == "iterations 1 to 20: not recorded"


def test_the_card_names_what_differs_alone():
    taught = entry(20, "fp32", images=9)
    taught["options"]["distill"] = {"objectives": {"l_kd": {"type": "L1Loss", "loss_weight": 2.0}}}
    assert [*_segments(training_segments([entry(0), entry(10), taught], 40))] == [
        "iterations 1 to 20: precision bf16, data 5 images of photos, objectives none",
        "iterations 21 to 40: precision fp32, data 9 images of photos, objectives 2 L1Loss",
    ]
    assert not [*_segments(training_segments([entry(0), entry(10)], 40))]


def test_a_loss_is_told_with_the_iterations_in_which_it_counted():
    found = training_segments(
        [entry(0), entry(10, "fp32"), entry(20, "fp32", loss="MSELoss"), entry(30, loss="MSELoss")], 40
    )
    assert [each["losses"] for each in found] == ["1 L1Loss", "1 L1Loss", "1 MSELoss", "1 MSELoss"]
    assert _since(found, "losses") == 21
    assert _since(found, "seed") == 1


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["bf16", "fp32"])), min_size=1), st.integers(51, 99))
def test_segments_follow_each_other_without_gaps(entries, end):
    found = training_segments([entry(step, precision) for step, precision in entries], end)
    assert found[0]["from"] == 1
    assert found[-1]["to"] == end
    assert all(before["to"] + 1 == after["from"] for before, after in pairwise(found))


def test_the_phases_of_a_segment_of_a_given_time_are_told():
    stable, decay, planned = entry(0), entry(80), entry(100)
    schedule = {"type": "WarmupStableDecayLR", "decay_iter": 0, "restart_weights": [1.0], "eta_min": 0.0}
    stable["options"]["train"] |= {"total_iter": OPEN_END, "scheduler": schedule}
    decay["options"]["train"] |= {"total_iter": 100, "scheduler": {**schedule, "decay_iter": 20}}
    planned["options"]["train"] |= {"total_iter": 200, "scheduler": {**schedule, "decay_iter": 30}}
    assert [*_segments(training_segments([stable, decay, planned], 200))] == [
        "iterations 1 to 80: learning rate constant",
        "iterations 81 to 100: learning rate decays",
        "iterations 101 to 200: learning rate constant, decays over the last 30 iterations",
    ]
