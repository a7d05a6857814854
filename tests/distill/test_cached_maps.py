"""Cached maps: what they hold, how patches of them differ from maps of patches, and what of them is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from imdn_kd import losses
from imdn_kd.data.augment import apply
from imdn_kd.data.patches import Patches, to_training
from imdn_kd.data.store import Store, StoreDataset
from imdn_kd.distill.distiller import Distiller
from imdn_kd.distill.schema import TeacherOptions
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import FeatureTerm
from imdn_kd.losses.base import FeatureLoss
from imdn_kd.registry import ARCHS, LOSSES
from imdn_kd.training.setup.teacher_cache import TeacherCache
from tests.refused import refused
from tests.training.small_runs import make_data

VARIANTS = {
    "PairwiseLoss": [
        {},
        {"preset": "paper"},
        {"preset": "skd_code"},
        {"beta": 3, "pooling": "max", "alpha": 9, "distance": "l1"},
    ],
    "StatisticsLoss": [
        *({"statistic": name} for name in ("mean", "power", "absolute_power", "max", "min", "std")),
        {"over": "space"},
    ],
    "AttentionLoss": [{}, {"p": 3, "form": "code"}],
    "LocalSimilarityLoss": [{}, {"kind": "distance"}],
}
BUILT = [LOSSES.build({"type": name, **options}) for name in LOSSES for options in VARIANTS.get(name, [{}])]
FEATURE_LOSSES = [loss for loss in BUILT if isinstance(loss, FeatureLoss)]


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", FEATURE_LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_summary_stands_for_the_map_and_its_crops_for_those_of_the_map(loss):
    mine, theirs = features(2, 5, 12, 18), features(2, 5, 12, 18, seed=1)
    assert torch.equal(loss.against(mine, loss.summary(theirs)), loss(mine, theirs))

    cell = loss.cell
    top, left, side = 1, 2, 12 // cell - 1
    crop = loss.summary(theirs)[..., top : top + side, left : left + side]
    part = theirs[..., top * cell : (top + side) * cell, left * cell : (left + side) * cell]
    torch.testing.assert_close(crop, loss.summary(part), rtol=1e-6, atol=1e-6)


def test_equal_names_of_summaries_mean_equal_summaries():
    given = features(1, 5, 12, 12)
    by_name = {}
    for loss in FEATURE_LOSSES:
        assert torch.equal(by_name.setdefault(loss.summary_name, loss.summary(given)), loss.summary(given))
    assert len(by_name) >= 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data")) / "sample.store"


def plain(seed=0):
    torch.manual_seed(seed)
    return ARCHS.build({"type": "Plain", "num_feat": 6, "num_block": 3, "upscale": 2})


TERMS = {
    "mean": (losses.StatisticsLoss(), 1e-6),
    "attention": (losses.AttentionLoss(), 1e-5),
    "nodes": (losses.PairwiseLoss(preset="paper"), 2e-3),
    "whole": (nn.MSELoss(), 2e-3),
}


@pytest.fixture(scope="module")
def cached(data):
    """A distiller whose cache is filled, and its maps with their planes by the name of the term."""
    teacher = Teacher(plain(1))
    terms = [FeatureTerm(loss, at=["block.2"], name=name) for name, (loss, _) in TERMS.items()]
    kd = Distiller(plain(), teacher, terms)
    cache = TeacherCache(Store(data), 2, [teacher], [TeacherOptions(weights="plain")])
    cache.leave_out_output()
    maps = {name: each for name, found in kd.maps().items() for each in found.values()}
    planes = cache.add_maps({maps[name]: loss for name, (loss, _) in TERMS.items()})
    cache.fill(torch.device("cpu"))
    assert not list(Store(data).verify())
    return kd, {name: (each, planes[each]) for name, each in maps.items()}


def patches(data, planes, **options):
    images = StoreDataset(scale=2, dataroot=data, planes=tuple(planes))
    return Patches(images, gt_size=64, batch_size=3, **options)


def batches(data, cached, **options):
    """Batches of two iterations, as they are trained on; the distiller compares with their maps."""
    kd, maps = cached
    kd.use_cached(dict(maps.values()))
    assert not kd.teacher_required
    cut = patches(data, [plane for _, plane in maps.values()], **options)
    return [to_training(cut[step], "cpu") for step in range(2)]


def test_inside_the_border_maps_of_patches_are_what_the_teacher_makes_of_them(data, cached):
    kd, maps = cached
    (teacher,) = kd.teachers
    radius = teacher.info.receptive_radius
    for batch in batches(data, cached, use_hflip=False, use_rot=False):
        _, found = teacher.forward_features(batch["lq"])
        for name, (loss, tolerance) in TERMS.items():
            each, plane = maps[name]
            live = loss.summary(found[each.feature]) if isinstance(loss, FeatureLoss) else found[each.feature]
            assert batch[plane].shape == live.shape
            border = -(-radius // each.cell)
            inside = (slice(None), slice(None), slice(border, -border), slice(border, -border))
            scale = live.abs().max()
            torch.testing.assert_close(
                batch[plane][inside], live[inside], rtol=tolerance, atol=tolerance * float(scale)
            )
            assert (batch[plane] - live).abs().max() > 10 * tolerance * scale  # at the edges, it has seen more


def test_losses_are_those_of_a_live_teacher_up_to_the_border(data, cached):
    """Maps made of the patches themselves have no border, so that only the precision of what is kept is left."""
    kd, maps = cached
    lq = to_training(patches(data, [])[0], "cpu")["lq"]
    _, found = kd.teachers[0].forward_features(lq)
    batch = {"lq": lq, "gt": torch.rand(3, 3, 64, 64)}
    for name, (loss, _) in TERMS.items():
        each, plane = maps[name]
        batch[plane] = torch.cat(
            [torch.from_numpy(each.of(loss, one[None]).copy()).permute(2, 0, 1)[None] for one in found[each.feature]]
        )
    kd.use_cached({})
    live = kd(lq, batch["gt"])
    kd.use_cached(dict(maps.values()))
    kept = kd.losses(kd.run_student(batch), 0)
    for name, (_, tolerance) in TERMS.items():
        torch.testing.assert_close(kept[name], live[name], rtol=tolerance, atol=0)
        assert kept[name] > 0


def test_maps_are_flipped_and_turned_with_their_patches(data, cached):
    still = batches(data, cached, use_hflip=False, use_rot=False)
    _, maps = cached
    for augment_on in ("worker", "device"):
        turned = batches(data, cached, augment_on=augment_on)
        for step, batch in enumerate(still):
            codes = patches(data, [plane for _, plane in maps.values()], augment_on="device")[step]["transform_codes"]
            assert len(codes.unique()) > 1
            for plane, images in batch.items():
                assert torch.equal(turned[step][plane], apply(images, codes)), plane


def test_patches_beside_maps_must_be_made_of_whole_nodes(data, cached):
    _, maps = cached
    images = StoreDataset(scale=2, dataroot=data, planes=(maps["nodes"][1],))
    assert images.pitches == {maps["nodes"][1]: 2}
    with refused("patches.gt-size"):
        Patches(images, gt_size=66, batch_size=1)
    for option in ("use_channel_shuffle", "use_inversion"):
        with refused("patches.map-augmentation"):
            Patches(images, gt_size=64, batch_size=1, **{option: True})


def test_numbers_that_cannot_be_kept_are_refused(cached):
    _, maps = cached
    for value in (1e6, float("nan")):
        with refused("teacher.not-finite"):
            maps["whole"][0].of(TERMS["whole"][0], torch.full((1, 6, 4, 4), value))


def test_the_size_of_maps_is_what_they_take(data, cached):
    _, maps = cached
    store = Store(data)
    for each, plane in maps.values():
        sizes = store.sizes("lq_x2").tolist()
        assert sum(each.nbytes(*size) for size in sizes) == store.manifest["bytes"][plane]
        assert (data / f"{plane}.npy").stat().st_size == store.manifest["bytes"][plane] + 128
    assert np.load(data / f"{maps['mean'][1]}.npy", mmap_mode="r").dtype == np.float32
