"""Keys of other distillation projects: answered with where they live here, or accepted with a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from imdn_kd.config.options import read_options
from imdn_kd.training.schema import TrainOptions
from tests.refused import refused

FILE = Path(__file__).resolve().parents[2] / "options" / "distill" / "pairwise.yml"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("pretrain_network_t", "network_t.weights"),
        ("path.pretrain_network_t", "network_t.weights"),
        ("path.pretrain_model_T", "network_t.weights"),
        ("path.param_key_t", "network_t.param_key"),
        ("network_t.pretrain_network", "given as weights"),
        ("network_teacher", "network_t"),
        ("kd_opt", "distill.objectives"),
        ("train.kd_opt", "distill.objectives"),
        ("train.feature_opt", "distill.objectives"),
        ("train.kd_weight", "loss_weight"),
        ("train.temperature", "leave it out"),
    ],
)
def test_the_answer_says_where_it_lives_here(key, place):
    with refused("options.unknown-key") as caught:
        read_options(FILE, TrainOptions, [f"{key}=x"])
    (line,) = caught.value.lines
    assert line.startswith(f"--set {key}: ")
    assert place in line
    assert "did you mean" not in line


def test_what_has_no_effect_is_noted_and_not_refused():
    keys = ("task", "print_network", "logger.wandb.entity")
    options = read_options(FILE, TrainOptions, [f"{key}=x" for key in keys])
    assert [line.partition(": ")[0] for line in options.ignored_keys()] == list(keys)
    assert options.model_dump() == read_options(FILE, TrainOptions).model_dump()
