"""Curves of studies: what is drawn, read back from the axes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imdn_kd.config.options import check_options
from imdn_kd.evaluation.study import figures
from imdn_kd.evaluation.study.folder import RunResult
from imdn_kd.evaluation.study.schema import StudyOptions

pytest.importorskip("matplotlib")

CURVES = {"scratch": {0: [(4, 30.0), (8, 31.0)], 1: [(4, 30.4), (8, 31.2), (12, 31.3)]}, "kd": {0: [(4, 32.0)]}}
SCORES = {"scratch": {0: [33.0, 34.0], 1: [33.2, 34.4]}, "kd": {0: [35.0]}}


@pytest.fixture
def study(tmp_path):
    return check_options(
        {
            "name": "small",
            "question": "Is it the teacher?",
            "base": "base.yml",
            "budget": 8,
            "seeds": [0, 1],
            "control": "scratch",
            "select": ["held_out"],
            "report": ["tested"],
            "arms": {"scratch": {"control": "scratch"}, "kd": {"options": {"network_t": {"weights": "t.pth"}}}},
        },
        StudyOptions,
        "study",
    )


@pytest.fixture
def done():
    return {
        arm: {
            seed: RunResult(
                arm,
                seed,
                curve=tuple(curve),
                scores={"tested": {str(k): (psnr, 0.9) for k, psnr in enumerate(SCORES[arm][seed])}},
            )
            for seed, curve in seeds.items()
        }
        for arm, seeds in CURVES.items()
    }


@pytest.fixture
def drawn(monkeypatch):
    """The axes of all that is drawn."""
    seen, save = [], figures._save
    monkeypatch.setattr(figures, "_save", lambda figure, axes, path: (seen.append(axes), save(figure, axes, path)))
    return seen


def test_curves_are_means_over_the_seeds_where_all_have_a_value(study, done, drawn, tmp_path):
    assert figures.draw_curves(study, done, tmp_path / "curves.png")
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].get_lines()}
    assert lines == {"scratch": [[4, pytest.approx(30.2)], [8, pytest.approx(31.1)]], "kd": [[4, 32.0]]}
    first = (tmp_path / "curves.png").read_bytes()
    figures.draw_curves(study, done, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == first
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 1


def test_times_have_a_point_for_each_arm_with_the_spread_of_its_seeds(study, done, drawn, tmp_path):
    costs = {arm: {"seconds": 9.0, "cpu": cpu, "on_cpu": True} for arm, cpu in (("scratch", 3.0), ("kd", 5.0))}
    figures.draw_times(study, done, costs, tmp_path / "times.png")
    points = {bars.get_label(): bars.lines[0].get_xydata()[0].tolist() for bars in drawn[0].containers}
    assert points == {"scratch": [3.0, pytest.approx(33.65)], "kd": [5.0, pytest.approx(35.0)]}
    (low, high) = drawn[0].containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(np.std([33.5, 33.8], ddof=1))
    assert drawn[0].get_xlabel().startswith("CPU time")
