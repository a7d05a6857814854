"""Verdicts of studies: against a second implementation, and on simulated studies whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from imdn_kd.evaluation.study.statistics import LEVEL, Difference, compare, paired_interval, plain, signed

SIMULATED = 40_000


def student_quantile(probability: float, freedom: int) -> float:
    """By integrating the density of Student's t, on a grid that reaches far out."""
    grid = np.tan(np.linspace(0, math.pi / 2 - 1e-6, 200_001))
    constant = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    density = constant * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
    below = 0.5 + np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    return float(np.interp(probability, below, grid))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_intervals_are_those_of_the_definition(seeds):
    draw = np.random.default_rng(seeds)
    arm, control = draw.normal(31, 0.05, seeds), draw.normal(30.9, 0.05, seeds)
    differences = [one - other for one, other in zip(arm, control, strict=True)]
    mean = math.fsum(differences) / seeds
    variance = math.fsum((each - mean) ** 2 for each in differences) / (seeds - 1)
    half = student_quantile(0.5 + LEVEL / 2, seeds - 1) * math.sqrt(variance / seeds)

    found = compare(arm, control)

    assert (found.mean, found.seeds) == (pytest.approx(mean, rel=1e-12), seeds)
    assert found.half == pytest.approx(half, rel=1e-5)


def wrong_verdicts(differences: np.ndarray, truth: float) -> float:
    """The part of simulated studies whose interval does not hold the truth."""
    mean, half = paired_interval(differences)
    return float((np.abs(mean - truth) > half).mean())


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_verdicts_are_wrong_as_often_as_is_said(seeds, effect):
    differences = np.random.default_rng(1).normal(effect, 0.02, (SIMULATED, seeds))
    spread = math.sqrt(LEVEL * (1 - LEVEL) / SIMULATED)

    assert abs(wrong_verdicts(differences, effect) - (1 - LEVEL)) < 4 * spread


def test_verdicts_are_not_wrong_more_often_where_some_seeds_are_far_off():
    draw, shape = np.random.default_rng(2), (SIMULATED, 3)
    for differences in (draw.laplace(0, 1, shape), draw.standard_t(4, shape)):
        assert wrong_verdicts(differences, 0.0) < 1 - LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / SIMULATED)


def test_pairing_takes_out_what_seeds_have_in_common():
    draw = np.random.default_rng(3)
    luck = draw.normal(0, 0.5, (200, 5))
    control, arm = 30 + luck, 30.05 + luck + draw.normal(0, 0.01, luck.shape)

    found = [compare(one, other) for one, other in zip(arm, control, strict=True)]

    assert sum(each.verdict == "better" for each in found) > 190
    assert all(each.verdict != "worse" for each in found)


@pytest.mark.parametrize(
    ("arm", "control", "verdict", "words"),
    [
        ((31.06, 31.05, 31.04), (31.0, 31.0, 31.0), "better", "better by .050 +- .025 dB, 3 seeds"),
        ((31.0, 31.0, 31.0), (31.96, 31.95, 31.94), "worse", "worse by .95 +- .025 dB, 3 seeds"),
        ((31.0, 31.1), (31.1, 31.0), "no difference", "no difference that 2 seeds can show (+.000 +- 1.27 dB)"),
        ((31.0, 31.1), (31.0, 31.1), "the same", "the same results, 2 seeds"),
        ((32.5,), (31.0,), "no difference", "+1.50 dB, 1 seed: no verdict"),
        ((math.inf, 31.0), (31.0, 31.0), "not comparable", "not comparable: figures are not finite (2 seeds)"),
    ],
)
def test_verdicts_in_words(arm, control, verdict, words):
    found = compare(arm, control)
    assert (found.verdict, found.in_words()) == (verdict, words)


def test_an_interval_that_touches_nothing_is_no_difference():
    assert Difference(0.1, 0.1, 3).verdict == "no difference"
    assert Difference(0.1, 0.0999, 3).verdict == "better"


def test_figures_have_as_many_digits_as_they_need():
    assert [plain(each) for each in (0.004, 0.05, 0.0949, 0.0951, 1.234)] == [".004", ".050", ".095", ".10", "1.23"]
    assert [signed(each) for each in (-0.25, 0.0)] == ["-.25", "+.000"]
