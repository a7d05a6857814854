"""The same training in another number of iterations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imdn_kd.config.options import check_options
from imdn_kd.study.budget import with_budget
from imdn_kd.training.schema import TrainOptions
from tests.training.small_runs import BASE, merged

TERM = {"type": "L1Loss", "start_iter": 40, "stop_iter": 90, "ramp_iter": 10}
WHOLE = {
    "datasets": {
        "train": {"dataroot": "s", "gt_sizes": [32, 48, 64], "mini_batch_sizes": [4, 2, 1], "iters": [33, 33, 34]},
        "val": {"name": "held_out"},
    },
    "network_t": {"weights": "imdn_rtc_x2"},
    "distill": {"objectives": {"l_kd": TERM}},
    "train": {"total_iter": 100, "warmup_iter": 7},
    "val": {"val_freq": 25},
}
SCHEDULES = {
    "cosine": {"type": "CosineAnnealingRestartLR", "periods": [33, 33, 34], "restart_weights": [1, 1, 1]},
    "stable": {"type": "WarmupStableDecayLR", "decay_iter": 20},
    "steps": {"type": "MultiStepLR", "milestones": [50, 80], "gamma": 0.5},
}


def options(schedule: str) -> TrainOptions:
    base = merged(merged(BASE, WHOLE), {"train": {"scheduler": None}})
    return check_options(merged(base, {"train": {"scheduler": SCHEDULES[schedule]}}), TrainOptions, "test")


@settings(max_examples=50)
@given(total=st.integers(1, 3000), schedule=st.sampled_from(sorted(SCHEDULES)))
def test_all_parts_of_a_run_keep_their_share(total, schedule):
    found = with_budget(options(schedule), total)

    assert found.train.total_iter == total
    factor, plan = total / 100, found.train.scheduler
    if schedule == "cosine":
        assert sum(plan.periods) == total
        assert plan.periods == pytest.approx([33 * factor, 33 * factor, 34 * factor], abs=1)
    elif schedule == "stable":
        assert plan.decay_iter == pytest.approx(20 * factor, abs=0.51)
    else:
        assert plan.milestones == pytest.approx([50 * factor, 80 * factor], abs=0.51)
    assert found.val.val_freq == pytest.approx(max(1, 25 * factor), abs=0.51)
    term = found.distill.objectives["l_kd"]
    assert (term.start_iter, term.ramp_iter) == pytest.approx((40 * factor, 10 * factor), abs=0.51)
    assert term.start_iter < term.stop_iter
    assert found.datasets.train.iters == pytest.approx([33 * factor, 33 * factor, 34 * factor], abs=1)
    assert found.train.warmup_iter == min(7, max(1, total // 10))


def test_a_run_of_the_same_length_stays_what_it_is():
    same = options("cosine")
    assert with_budget(same, 100) is same
    assert with_budget(with_budget(same, 1000), 100).train.scheduler == same.train.scheduler
