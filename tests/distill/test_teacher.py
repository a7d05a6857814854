"""Teachers: always frozen, run in their own value range and at sizes they take."""

import copy

import pytest
import torch
from torch import nn

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.distill.teacher import Teacher, mean_of
from imdn_kd.registry import ARCHS
from tests.refused import refused


def network(**keywords):
    torch.manual_seed(0)
    return ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 16, "num_block": 2, **keywords})


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Affine(SRNetwork):
    """Twice as large, times a factor plus an offset, for sides that are multiples of 4."""

    info = ModelInfo(scale=2, size_multiple=4, min_size=8)

    def __init__(self, *, factor: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        assert x.shape[2] % 4 == x.shape[3] % 4 == 0
        assert min(x.shape[2:]) >= 8
        return self.drop(x * self.factor + self.offset).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_its_output_is_that_of_its_network_without_a_gradient():
    inner = network()
    lq = images(2, 3, 12, 10).requires_grad_()
    expected = copy.deepcopy(inner).eval()(lq)

    sr = Teacher(inner)(lq)

    assert not sr.requires_grad
    torch.testing.assert_close(sr, expected.detach(), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in inner.parameters())


def test_it_stays_in_eval_mode_within_a_module_that_is_trained():
    teacher = Teacher(Affine())
    nn.ModuleList([teacher]).train()
    teacher.train()

    assert not any(module.training for module in teacher.modules())
    lq = images(1, 3, 8, 8)
    torch.testing.assert_close(teacher(lq), lq.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_white_and_mean_are_those_that_the_network_was_trained_with():
    lq = images(1, 3, 8, 8)
    mean = torch.tensor([0.4, 0.45, 0.5]).view(1, 3, 1, 1)
    teacher = Teacher(Affine(factor=3.0, offset=10.0), value_range=255.0, mean=[0.4, 0.45, 0.5])

    expected = (((lq - mean) * 255 * 3 + 10) / 255 + mean).repeat_interleave(2, 2).repeat_interleave(2, 3)

    torch.testing.assert_close(teacher(lq), expected)


@pytest.mark.parametrize("size", [(1, 1), (9, 13), (8, 3)])
def test_sizes_that_the_network_does_not_take_are_padded_and_cropped_again(size):
    lq = images(2, 3, *size)
    torch.testing.assert_close(Teacher(Affine())(lq), lq.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_the_self_ensemble_is_the_mean_over_eight_rotations_and_mirror_images():
    inner = network()
    lq = images(2, 3, 9, 12)
    plain = copy.deepcopy(inner).eval()
    expected = []
    with torch.no_grad():
        for quarter in range(4):
            for mirrored in (False, True):
                turned = torch.rot90(lq.flip(3) if mirrored else lq, quarter, (2, 3))
                back = torch.rot90(plain(turned), -quarter, (2, 3))
                expected.append(back.flip(3) if mirrored else back)

    teacher = Teacher(inner, self_ensemble=True)

    torch.testing.assert_close(teacher(lq), torch.stack(expected).mean(0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(teacher(lq), plain(lq), atol=1e-4)


def test_features_of_a_self_ensemble_are_those_of_the_images_as_they_are():
    inner = network()
    lq = images(1, 3, 8, 10)
    expected = copy.deepcopy(inner).eval().fea_conv(lq)
    teacher = Teacher(inner, self_ensemble=True)
    assert teacher.hook(["fea_conv"], lq)["fea_conv"] == (1, 16, 8, 10)

    sr, features = teacher.forward_features(lq)

    torch.testing.assert_close(features["fea_conv"], expected.detach())
    assert features["sr"] is sr


class Mapped(Affine):
    """With a module whose features are the images, as they were padded."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x):
        return super().forward(self.features(x))


def test_features_of_padded_images_are_cropped_to_those_of_the_images():
    lq = images(2, 3, 9, 13)
    teacher = Teacher(Mapped())
    assert teacher.hook(["features"], lq) == {"features": (2, 3, 9, 13), "sr": (2, 3, 18, 26)}
    assert torch.equal(teacher.forward_features(lq)[1]["features"], lq)


def test_features_are_not_recorded_where_only_the_output_is_needed(monkeypatch):
    teacher = Teacher(network())
    lq = images(1, 3, 8, 8)
    teacher.hook(["fea_conv"], lq)
    monkeypatch.setattr(teacher.hooks, "recording", None)  # fails if it is called
    assert teacher(lq).shape == (1, 3, 16, 16)


def test_half_precision_changes_little_and_gives_float32():
    lq = images(1, 3, 16, 16)
    exact, rough = Teacher(network())(lq), Teacher(network(), precision=torch.bfloat16)(lq)

    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.05


def test_several_teachers_are_averaged_by_their_weights():
    teachers = [Teacher(Affine(offset=0.0), weight=3.0), Teacher(Affine(offset=1.0), weight=1.0)]
    lq = images(1, 3, 8, 8)

    sr = mean_of(teachers, [teacher(lq) for teacher in teachers])

    torch.testing.assert_close(sr, Teacher(Affine(offset=0.25))(lq))


def test_a_mean_of_another_number_of_channels_is_refused():
    with refused("teacher.mean-mismatch"):
        Teacher(Affine(), name="white.pth", mean=[0.1, 0.2])
