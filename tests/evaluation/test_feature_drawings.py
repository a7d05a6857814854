"""Drawings of features: what they show, for pictures of any size, and where they are written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from imdn_kd.distill.teacher import Teacher
from imdn_kd.evaluation.feature_drawings import KINDS, MAX_SIDE, draw_features, write_drawings
from imdn_kd.registry import ARCHS
from tests.fake_set import picture
from tests.refused import refused


def networks():
    torch.manual_seed(0)
    student = ARCHS.build({"type": "Plain", "num_feat": 4, "num_block": 2, "upscale": 2})
    teacher = ARCHS.build({"type": "IMDN", "num_feat": 8, "num_block": 4, "upscale": 2})
    return student, Teacher(teacher, value_range=255)


def to_levels(values, black, white):
    return np.clip((values - black) / (white - black), 0, 1) * 255


def test_drawings_are_what_they_say():
    student, teacher = networks()
    image = picture((12, 17), 4)
    drawings = draw_features(student, [teacher], image)
    found = {(each.feature, each.network, each.kind): each for each in drawings}
    assert {each.network for each in drawings} == {"student", "teacher"}
    assert {kind for _, _, kind in found} == {*KINDS}

    kept = {}
    teacher.network.IMDB4.register_forward_hook(lambda module, given, made: kept.update(block=made.clone()))
    teacher.network(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    values = kept["block"][0].numpy().astype(np.float64)
    assert found["block.2", "teacher", "mean"].shape == values.shape
    mean, energy = values.mean(0), (values**2).sum(0)
    unit = values / np.linalg.norm(values, axis=0)
    expected = {
        "mean": to_levels(mean, mean.min(), mean.max()),
        "energy": to_levels(energy, 0, energy.max()),
        "cosine": to_levels(np.einsum("chw,c->hw", unit, unit[:, 6, 8]), -1, 1),
    }
    for kind, levels in expected.items():
        np.testing.assert_allclose(found["block.2", "teacher", kind].pixels, levels, atol=0.51)
    graph = found["block.2", "teacher", "affinity"].pixels
    assert graph.shape == (12 * 16, 12 * 16)
    assert np.array_equal(graph, graph.T)
    assert (np.diag(graph) == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 3)])
def test_the_smallest_pictures_are_drawn(size):
    student, teacher = networks()
    for each in draw_features(student, [teacher], picture(size, 1)):
        assert each.shape[1:] in (size, (2 * size[0], 2 * size[1])), each.feature
        assert each.pixels.size


def test_of_a_large_picture_the_middle_is_drawn():
    student, _ = networks()
    image = np.zeros((MAX_SIDE + 20, 30, 3), np.uint8)
    image[10:-10] = picture((MAX_SIDE, 30), 2)
    whole, middle = (draw_features(student, [], each) for each in (image, image[10:-10]))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(whole, middle, strict=True))


def test_drawings_become_files_or_a_page(tmp_path):
    student, teacher = networks()
    drawings = draw_features(student, [teacher], picture((6, 7), 1))
    write_drawings(drawings, tmp_path / "drawn", title="t")
    assert len([*(tmp_path / "drawn").glob("*.png")]) == len(drawings)
    (one,) = (each for each in drawings if (each.feature, each.network, each.kind) == ("head", "student", "mean"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn" / "head_student_mean.png")), one.pixels)

    write_drawings(drawings, tmp_path / "page.html", title="<b>")
    text = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;" in text
    assert text.count("<img ") == len(drawings)
    assert "http:" not in text
    assert "https:" not in text

    for target in ("drawn", "page.html"):
        with refused("file.exists"):
            write_drawings(drawings, tmp_path / target, title="t")
        write_drawings(drawings, tmp_path / target, title="t", overwrite=True)
    with refused("file.exists"):
        write_drawings(drawings, tmp_path / "drawn" / "head_student_mean.png", title="t")
