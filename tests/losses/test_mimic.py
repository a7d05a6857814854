import numpy as np
import pytest
import torch

from imdn_kd.losses.mimic import MimicLoss
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_it_is_the_mean_difference(distance):
    student, teacher = (RNG.standard_normal((2, 4, 3, 5), dtype=np.float32) for _ in range(2))

    value = float(MimicLoss(distance=distance)(torch.from_numpy(student), torch.from_numpy(teacher)))

    assert value == pytest.approx(reference.distance(student, teacher, distance), rel=1e-5)


def test_other_widths_are_for_an_adapter_outside():
    assert MimicLoss.adapts
    with refused("loss.shapes-differ"):
        MimicLoss()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 4, 4))


def test_it_has_no_weights_of_its_own():
    assert not list(MimicLoss().parameters())


def test_an_unknown_distance_is_refused():
    with refused("loss.unknown-choice"):
        MimicLoss(distance="mse")
