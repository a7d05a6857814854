"""Teachers of degraded inputs: cached for some versions of each image, or live for patches that are degraded anew."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.nn import functional

from imdn_kd.config.options import check_options
from imdn_kd.data.degradation.schema import read_steps
from imdn_kd.data.degraded_versions import DegradedVersions
from imdn_kd.data.store import Store
from imdn_kd.distill.teacher import Teacher
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.training.loader import cut_patches
from imdn_kd.training.run import check, fill_teacher_cache
from imdn_kd.training.schema import TrainOptions
from tests.refused import refused
from tests.training.small_runs import content, flat, make_data, merged, small_options, state_file, train

STEPS = [{"type": "bicubic"}, {"type": "noise", "sigma": [5.0, 30.0]}, {"type": "jpeg", "quality": [30.0, 90.0]}]
VERSIONS = 2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Of this module alone: teachers add to the store."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_model(path, ModelFile(ARCHS.build({"type": "Plain", "num_feat": 6, "num_block": 2, "upscale": 2})))
    return path


def changes(teacher, *, versions=VERSIONS, cache=True):
    objectives = {"l_kd": {"type": "L1Loss"}, "l_stat": {"type": "StatisticsLoss", "taps": ["head"]}}
    return {
        "network_t": {"weights": str(teacher)},
        "datasets": {"train": {"degradation": STEPS, "degradation_versions": versions}},
        "distill": {"objectives": objectives, "check_images": 0, "cache": cache},
    }


@pytest.fixture(scope="module")
def options(data, teacher):
    return small_options(data, changes(teacher))


@pytest.fixture(scope="module")
def filled(options):
    """The setup of a run, with all that is to be in the store."""
    setup = check(options)
    assert not setup.versions.is_there
    seen = []
    fill_teacher_cache(options, setup, lambda done, total: seen.append((done, total)))
    images = len(setup.loader.images.store)
    assert seen == [(n, images) for n in range(images + 1)] + [
        (n, VERSIONS * images) for n in range(VERSIONS * images + 1)
    ]
    return setup


def test_each_version_is_another_and_the_teacher_has_seen_it(filled, teacher):
    store, network = Store(filled.loader.images.store.path), Teacher(teacher)
    lq = [torch.from_numpy(store.image(1, plane).copy()) for plane in filled.versions.planes]
    clean = torch.from_numpy(store.image(1, "lq_x2").copy())
    assert len({each.numpy().tobytes() for each in (*lq, clean)}) == VERSIONS + 1
    for each in lq:
        assert 1 < (each.float() - clean.float()).abs().mean() < 30

    names = filled.cache.names()
    (output,) = (planes for name, planes in names.items() if name.startswith("sr_"))
    (head,) = (planes for name, planes in names.items() if name.startswith("map_"))
    for each, sr, mean in zip(lq, output, head, strict=True):
        image = each.permute(2, 0, 1)[None] / 255
        expected = network(image).clamp(0, 1).mul(255).round().byte()[0].permute(1, 2, 0)
        assert torch.equal(torch.from_numpy(store.image(1, sr).copy()), expected)
        found = torch.from_numpy(store.image(1, mean).copy())[..., 0]
        torch.testing.assert_close(found, network.network.head(image)[0].mean(0), rtol=1e-5, atol=1e-6)
    assert not list(store.verify())


def test_patches_are_of_all_versions_and_what_the_teacher_made_goes_with_them(filled, options):
    data, images = options.datasets.train, filled.loader.images
    plain = data.model_copy(update={"use_hflip": False, "use_rot": False})
    patches = cut_patches(plain, images, plain.stages()[0], seed=0)
    (key,) = (name for name in images.planes if name.startswith("sr_"))
    whole = [images.read(index) for index in range(len(images))]
    seen = set()
    for step in range(6):
        batch = patches[step]
        for lq, gt, sr in zip(batch["lq"], batch["gt"], batch[key], strict=True):
            found = [n for n, planes in enumerate(whole) if place(planes["lq"], lq.permute(1, 2, 0).numpy())]
            (index,) = found
            top, left = place(whole[index]["lq"], lq.permute(1, 2, 0).numpy())
            area = slice(2 * top, 2 * top + 32), slice(2 * left, 2 * left + 32)
            assert (whole[index]["gt"][area] == gt.permute(1, 2, 0).numpy()).all()
            assert (whole[index][key][area] == sr.permute(1, 2, 0).numpy()).all()
            seen.add(index // len(images.store))
    assert seen == set(range(VERSIONS))


def place(image, patch):
    """Where a patch lies in an image, or None."""
    for top, left in zip(*(image[..., 0] == patch[0, 0, 0]).nonzero(), strict=True):
        part = image[top : top + len(patch), left : left + len(patch)]
        if part.shape == patch.shape and (part == patch).all():
            return top, left
    return None


def test_workers_and_ranks_see_the_same_bytes(filled, options):
    data = options.datasets.train
    patches = cut_patches(data, filled.loader.images, data.stages()[0], seed=0)
    alone = [*patches.loader(0, 3)]
    for key in alone[0]:
        for step, batch in enumerate(patches.loader(0, 3, workers=3)):
            assert torch.equal(batch[key], alone[step][key])
        both = cut_patches(data.model_copy(update={"batch_size_per_gpu": 2}), filled.loader.images, small(data), seed=0)
        parts = [both.share(rank, 2)[1][key] for rank in range(2)]
        assert torch.equal(torch.cat(parts), alone[1][key])


def small(data):
    return data.stages()[0]._replace(batch_size=2)


def test_training_needs_no_teacher_and_resumes_bit_for_bit(filled, options, tmp_path):
    options = options.model_copy(update={"train": options.train.model_copy(update={"total_iter": 5})})
    trainer, _ = train(options, tmp_path / "whole")
    assert not trainer.setup.distiller.teacher_required
    half = options.model_copy(update={"train": options.train.model_copy(update={"total_iter": 2})})
    train(half, tmp_path)
    train(options, tmp_path, auto_resume=True)
    assert flat(state_file(tmp_path, 5)["network"]) == flat(state_file(tmp_path / "whole", 5)["network"])


def test_versions_are_shared_by_runs_with_other_seeds_and_made_again_alike(filled, options):
    store = Store(filled.loader.images.store.path)
    other = options.model_copy(update={"manual_seed": 7})
    assert check(other).cache.is_there
    planes = [*filled.versions.planes, *(plane for each in filled.cache.names().values() for plane in each)]
    before = {plane: (store.path / f"{plane}.npy").read_bytes() for plane in planes}
    for plane in planes[1:]:
        (store.path / f"{plane}.npy").unlink()
    setup = check(options)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_teacher_cache(options, setup, stop)
    assert not setup.cache.is_there
    fill_teacher_cache(options, check(options))
    assert {plane: (store.path / f"{plane}.npy").read_bytes() for plane in planes} == before


def test_without_a_teacher_versions_are_of_use_too(data, tmp_path):
    section = {"degradation": STEPS, "degradation_versions": 2}
    options = small_options(data, {"datasets": {"train": section}, "train": {"total_iter": 2}})
    trainer, _ = train(options, tmp_path)
    images = trainer.setup.loader.images
    assert len(images) == 2 * len(images.store)
    assert [*images.planes] == ["gt", "lq"]


def test_without_chance_a_version_is_the_lr_image(data):
    store = Store(data / "sample.store")
    versions = DegradedVersions(store.path, Fraction(2), read_steps([{"type": "bicubic"}]), 1)
    versions.fill()
    (plane,) = versions.planes
    assert (Store(store.path).image(0, plane) == store.image(0, "lq_x2")).all()


def test_a_live_teacher_sees_the_degraded_patches(data, teacher):
    setup = check(small_options(data, changes(teacher, versions=0, cache=False)))
    ((batch,),) = setup.loader.batches(3, 4, CPU)
    ((again,),) = check(small_options(data, changes(teacher, versions=0, cache=False))).loader.batches(3, 4, CPU)
    losses = setup.distiller.losses(setup.distiller.run_student(batch), 3)
    expected = functional.l1_loss(setup.network(batch["lq"]), Teacher(teacher)(batch["lq"]))
    torch.testing.assert_close(losses["l_kd"], expected)
    assert torch.equal(batch["lq"], again["lq"])
    clean = functional.interpolate(batch["gt"], scale_factor=0.5, mode="bicubic", antialias=True)
    assert (batch["lq"] - clean).abs().mean() > 0.01


@pytest.mark.parametrize(
    "section",
    [
        {"degradation_versions": 4},
        {"degradation": STEPS, "degradation_versions": 4, "type": "PairedImageDataset", "dataroot_gt": "hr"},
    ],
)
def test_versions_need_a_store_and_a_degradation(data, section):
    with refused("options.no-effect"):
        check_options(content(data, {"datasets": {"train": section}}), TrainOptions, "test")


def test_a_cache_of_patches_that_are_degraded_anew_is_refused(data, teacher):
    with refused("train.cache-degradation"):
        check(small_options(data, merged(changes(teacher), {"datasets": {"train": {"degradation_versions": 0}}})))
