"""What each loss term has of the loss, and published weights against those of the option files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imdn_kd import Distiller, FeatureTerm, OutputTerm, Teacher, create_model, losses
from imdn_kd.config.options import merged_options
from imdn_kd.distill.shares import loss_shares
from tests.reference.affinity import pairwise

ROOT = Path(__file__).parent.parent.parent


def test_shares_are_those_of_the_losses_and_change_nothing():
    torch.manual_seed(0)
    student, teacher = create_model("plain_t_x2"), create_model("plain_t_x2")
    terms = [
        OutputTerm(losses.L1Loss(), target="gt", weight=0.5),
        OutputTerm(losses.L1Loss(), target="teacher", weight=lambda iteration: 2.0 * (iteration > 5)),
        FeatureTerm(losses.MimicLoss(), at=["body_out"], weight=3.0),
    ]
    kd = Distiller(student, Teacher(teacher), terms, cache_key="plane")
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 16, 16)}
    before, state = {k: v.clone() for k, v in kd.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():
        mine, theirs = student(batch["lq"]), teacher(batch["lq"])
    for iteration, weight in ((0, 0), (6, 2)):
        to_gt, to_teacher = 0.5 * (mine - batch["gt"]).abs().mean(), weight * (mine - theirs).abs().mean()
        found = loss_shares(kd, batch, iteration)
        assert list(found) == ["l_gt", "l_teacher", "l_feature"]
        assert sum(found.values()) == pytest.approx(1)
        assert found["l_teacher"] / found["l_gt"] == pytest.approx((to_teacher / to_gt).item(), rel=1e-5)
    batch["plane"] = mine  # the teachers' output, when it is cached
    assert loss_shares(kd, batch, 6)["l_teacher"] == pytest.approx(0, abs=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in kd.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training


def test_fakd_has_the_published_proportions():
    # The authors' code: images of 0..255, .5 L1 to the ground truth, .5 L1 to the teacher, 10 times the affinities,
    # each a mean over the pairs, summed over three features.
    options = merged_options(ROOT / "options/distill/fakd.yml")
    rng = np.random.default_rng(0)
    images = [rng.random((1, 3, 6, 6)) for _ in range(3)]
    features = [(rng.standard_normal((1, 4, 3, 3)), rng.standard_normal((1, 6, 3, 3))) for _ in range(3)]
    sr, gt, teacher = (255 * image for image in images)
    affinities = [pairwise(s, t, distance="l1") for s, t in features]
    published = 0.5 * abs(sr - gt).mean() + 0.5 * abs(sr - teacher).mean(), 10 * sum(affinities)

    of_term = options["distill"]["objectives"]
    assert of_term["l_fakd"]["type"] == "SpatialAffinityLoss"
    assert len(of_term["l_fakd"]["taps"]) == len(features)
    assert "tap_weights" not in of_term["l_fakd"]
    sr, gt, teacher = images
    to_gt = options["train"]["pixel_opt"]["loss_weight"] * abs(sr - gt).mean()
    to_teacher = of_term["l_kd"]["loss_weight"] * abs(sr - teacher).mean()
    affinity = of_term["l_fakd"]["loss_weight"] * np.mean(affinities)
    assert affinity / (to_gt + to_teacher) == pytest.approx(published[1] / published[0], rel=0.005)


@pytest.mark.parametrize("file", sorted((ROOT / "options/distill").glob("*.yml")), ids=lambda file: file.stem)
def test_every_option_file_says_where_its_weights_come_from(file):
    comments = " ".join(line for line in file.read_text().splitlines() if "#" in line).casefold()
    assert "weight" in comments or "range of images" in comments
