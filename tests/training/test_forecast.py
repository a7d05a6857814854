from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from imdn_kd.training import forecast


@pytest.mark.parametrize(("cost", "expected"), [(0.01, [1, 1, 1, 16, 16, 16]), (1.0, [1, 1, 1]), (20.0, [1])])
def test_a_forecast_takes_seconds_whatever_an_iteration_takes(monkeypatch, cost, expected):
    now, seen = [0.0], []

    def run(patches):
        seen.append(len(range(16)[patches]))
        now[0] += cost * seen[-1]

    monkeypatch.setattr(forecast, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert forecast._seconds(run, 16, torch.device("cpu")) == pytest.approx(16 * cost)
    assert seen == expected
