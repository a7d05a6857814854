"""The pieces of a training that was gone on with under other settings."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.release.card import _pieces, _since
from imdn_kd.release.record import training_segments


def entry(step, precision="bf16", lr=1e-3, images=5, loss="L1Loss"):
    train = {"precision": precision, "optim_g": {"lr": lr}, "accumulation": 2, "ema_decay": 0.5, "fft_opt": None}
    train["pixel_opt"] = {"type": loss, "loss_weight": 1.0}
    data = {"name": "photos", "batch_size_per_gpu": 4, "gt_size": 32}
    options = {"train": train, "datasets": {"train": data}, "manual_seed": 1}
    return {"step": step, "options": options, "processes": 3, "data": {"train": {"images": images}}}


def piece(first, last, precision="bf16", lr=1e-3):
    (found,) = training_segments([entry(0, precision, lr)], last)
    return {**found, "from": first}


def test_a_run_that_was_only_interrupted_is_one_piece():
    assert training_segments([entry(0), entry(10), entry(20)], 30) == [piece(1, 30)]


def test_other_settings_begin_another_piece():
    assert training_segments([entry(0), entry(10, "fp32"), entry(20, "fp32", 2e-3)], 30) == [
        *(piece(1, 10), piece(11, 20, "fp32"), piece(21, 30, "fp32", 2e-3)),
    ]


def test_what_was_thrown_away_does_not_count():
    assert training_segments([entry(0), entry(20, "fp32"), entry(5, "fp32", 2e-3)], 30) == [
        *(piece(1, 5), piece(6, 30, "fp32", 2e-3)),
    ]
    assert training_segments([entry(0, "fp32"), entry(0)], 30) == [piece(1, 30)]


def test_what_is_not_known_is_said():
    first, second = training_segments([entry(20)], 40)
    assert first == {"from": 1, "to": 20, "known": False}
    assert second == piece(21, 40)
    assert next(_pieces([first, second])) == "updates 1 to 20: not recorded"


def test_the_card_names_what_differs_alone():
    taught = entry(20, "fp32", images=9)
    taught["options"]["distill"] = {"objectives": {"l_kd": {"type": "L1Loss", "loss_weight": 2.0}}}
    assert [*_pieces(training_segments([entry(0), entry(10), taught], 40))] == [
        "updates 1 to 20: precision bf16, data 5 images of photos, objectives none",
        "updates 21 to 40: precision fp32, data 9 images of photos, objectives 2 L1Loss",
    ]
    assert not [*_pieces(training_segments([entry(0), entry(10)], 40))]


def test_a_loss_is_told_with_the_updates_in_which_it_counted():
    found = training_segments(
        [entry(0), entry(10, "fp32"), entry(20, "fp32", loss="MSELoss"), entry(30, loss="MSELoss")], 40
    )
    assert [piece["losses"] for piece in found] == ["1 L1Loss", "1 L1Loss", "1 MSELoss", "1 MSELoss"]
    assert _since(found, "losses") == 21
    assert _since(found, "seed") == 1


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["bf16", "fp32"])), min_size=1), st.integers(51, 99))
def test_pieces_follow_each_other_without_gaps(entries, end):
    found = training_segments([entry(step, precision) for step, precision in entries], end)
    assert found[0]["from"] == 1
    assert found[-1]["to"] == end
    assert all(before["to"] + 1 == after["from"] for before, after in pairwise(found))
