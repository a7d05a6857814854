from __future__ import annotations

import pickle
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imdn_kd.data import augment
from imdn_kd.data.patches import Batch, Patches, to_training
from imdn_kd.errors import InputError
from tests.refused import refused

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SCALES = [Fraction(2), Fraction(3), Fraction(3, 2), Fraction(4)]
OFF = {"use_hflip": False, "use_rot": False}
ALL = {"use_hflip": True, "use_rot": True, "use_channel_shuffle": True, "use_inversion": True}


def nearest(lq: np.ndarray, scale: Fraction) -> np.ndarray:
    """Enlarge H x W x ... by repeating px."""
    rows, columns = (np.arange(int(side * scale)) * scale.denominator // scale.numerator for side in lq.shape[:2])
    return lq[rows][:, columns]


class ArrayPairs:
    """Pairs in memory, which cannot be written to: `gt` is `lq` enlarged, and the teacher has its negative."""

    planes = ("gt", "lq", "sr_teacher")

    def __init__(self, images: list[np.ndarray], scale: Fraction | int = 2) -> None:
        self.scale = Fraction(scale)
        self.images = images
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"image{index}"

    def lq_sizes(self) -> np.ndarray:
        return np.array([image.shape[:2] for image in self.images])

    def read(self, index: int) -> dict[str, np.ndarray]:
        self.reads.append(index)
        lq = self.images[index].view()
        gt = nearest(lq, self.scale)
        planes = {"gt": gt, "lq": lq, "sr_teacher": 255 - gt}
        for plane in planes.values():
            plane.flags.writeable = False
        return planes


class Damaged(ArrayPairs):
    def read(self, index: int) -> dict[str, np.ndarray]:
        raise InputError(f"{self.name(index)}: is damaged; get it again", code="image.damaged")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def address(height: int, width: int, index: int = 0) -> np.ndarray:
    """An image of which every px says where it is: (row, column, image)."""
    return np.stack([*np.indices((height, width)), np.full((height, width), index)], axis=2).astype(np.uint8)


def some(scale: Fraction | int = 2) -> ArrayPairs:
    return ArrayPairs([noise(24, 30, 1), noise(36, 18, 2), noise(42, 24, 3)], scale)


def corners(batch: Batch) -> list[tuple[int, int, int]]:
    """(row, column, image) of the top left px of every `lq` patch."""
    return [tuple(patch) for patch in batch["lq"][:, :, 0, 0].tolist()]


def reference(
    pairs: ArrayPairs, number: int, step: int, *, gt_size: int, seed: int, area: bool, sharpness: int
) -> dict:
    """One sample, slowly: planes as H x W x 3, and the code."""
    generator = np.random.Philox(
        key=np.array([seed, int.from_bytes(b"patches", "big")], np.uint64), counter=np.array([0, 0, step, 0], np.uint64)
    )
    for _ in range(number + 1):
        image_word, code_word, keep_word, *position_words = map(int, generator.random_raw(3 + sharpness))
    size, unit = int(gt_size / pairs.scale), pairs.scale.denominator
    places = [
        (index, top, left)
        for index, (height, width) in enumerate(pairs.lq_sizes().tolist())
        for top in range(0, height - size + 1, unit)
        for left in range(0, width - size + 1, unit)
    ]
    index = places[image_word * len(places) >> 64][0] if area else image_word * len(pairs) >> 64
    own = [place[1:] for place in places if place[0] == index]
    candidates = [own[word * len(own) >> 64] for word in position_words]
    planes = pairs.read(index)
    weights = []
    for top, left in candidates:
        grey = planes["lq"][top : top + size, left : left + size].astype(int).sum(axis=2)
        weights.append(abs(np.diff(grey, axis=0)).sum() + abs(np.diff(grey, axis=1)).sum())
    pointer = keep_word * int(sum(weights)) >> 64
    kept = 0
    while sum(weights) and pointer >= sum(weights[: kept + 1]):
        kept += 1
    top, left = candidates[kept]
    gt_top, gt_left = int(top * pairs.scale), int(left * pairs.scale)
    patch = {
        plane: pixels[gt_top : gt_top + gt_size, gt_left : gt_left + gt_size] for plane, pixels in planes.items()
    } | {"lq": planes["lq"][top : top + size, left : left + size]}
    transform_codes = augment.AugmentOptions(**ALL).draw(torch.tensor([code_word - (code_word >> 63 << 64)]))
    return patch | {"transform_codes": transform_codes[0].numpy()}


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[key], other[key]) for key in batch)
        assert all(batch[key].stride() == other[key].stride() for key in batch)


@settings(max_examples=50)
@given(
    st.sampled_from(SCALES),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4),
    st.sampled_from([0, 7, 2**63]),
    st.sampled_from([0, 1, 2**40]),
    st.sampled_from(["image", "area"]),
    st.integers(1, 3),
)
def test_batches_equal_the_slow_reference(scale, units, extra, seed, step, sampling, sharpness):
    size = units * scale.denominator
    sides = [(size + rows * scale.denominator, size + columns * scale.denominator) for rows, columns in extra]
    pairs = ArrayPairs([noise(*side, seed=index) for index, side in enumerate(sides)], scale)
    gt_size = units * scale.numerator
    patches = Patches(pairs, gt_size=gt_size, batch_size=3, seed=seed, sampling=sampling, sharpness=sharpness, **ALL)
    batch = patches[step]
    assert set(batch) == {"gt", "lq", "sr_teacher", "transform_codes"}
    for number in range(3):
        expected = reference(
            pairs, number, step, gt_size=gt_size, seed=seed, area=sampling == "area", sharpness=sharpness
        )
        for key, value in batch.items():
            found = value[number] if key == "transform_codes" else value[number].permute(1, 2, 0)
            np.testing.assert_array_equal(found.numpy(), expected[key])


def test_words_are_those_of_philox():
    # What batches are made of for ever; a change would silently change what every seed trains on.
    patches = Patches(
        ArrayPairs([address(40, 50, index) for index in range(9)]), gt_size=8, batch_size=4, seed=5, **ALL
    )
    assert corners(patches[6]) == [(31, 44, 4), (17, 34, 8), (27, 12, 8), (30, 16, 1)]
    assert patches[6]["transform_codes"].tolist() == [93, 71, 17, 40]


def test_layout_of_a_batch():
    batch = Patches(some(3), gt_size=12, batch_size=5)[0]
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "gt": (5, 3, 12, 12),
        "lq": (5, 3, 4, 4),
        "sr_teacher": (5, 3, 12, 12),
        "transform_codes": (5,),
    }
    assert batch.pop("transform_codes").dtype == torch.int64
    for images in batch.values():
        assert images.dtype == torch.uint8
        assert images.permute(0, 2, 3, 1).is_contiguous()


@settings(max_examples=30)
@given(st.sampled_from(SCALES), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.integers(1, 3))
def test_planes_are_aligned(scale, units, more_rows, more_columns, sharpness):
    size = units * scale.denominator
    image = noise(size + more_rows * scale.denominator, size + more_columns * scale.denominator)
    patches = Patches(
        ArrayPairs([image], scale), gt_size=units * scale.numerator, batch_size=6, sharpness=sharpness, **OFF
    )
    batch = patches[0]
    for lq, gt, teacher in zip(batch["lq"], batch["gt"], batch["sr_teacher"], strict=True):
        np.testing.assert_array_equal(gt.permute(1, 2, 0), nearest(lq.permute(1, 2, 0).numpy(), scale))
        assert torch.equal(teacher, 255 - gt)


@pytest.mark.parametrize("augment_on", ["worker", "device"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_samples_of_a_step(world_size, augment_on):
    options = {"gt_size": 12, "seed": 3, "augment_on": augment_on, "sharpness": 2, **ALL}
    alone = Patches(some(), batch_size=8, **options)
    ranks = [
        Patches(some(), batch_size=8 // world_size, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    for step in (0, 5):
        parts = [rank[step] for rank in ranks]
        assert_same([alone[step]], [{key: torch.cat([part[key] for part in parts]) for key in parts[0]}])


def test_seeds_and_steps_differ():
    batches = [Patches(some(), gt_size=12, batch_size=4, seed=seed)[step] for seed in (0, 1) for step in (0, 1)]
    assert len({batch["lq"].numpy().tobytes() for batch in batches}) == 4


@pytest.mark.parametrize("workers", [0, 2, 8])
@pytest.mark.parametrize("augment_on", ["worker", "device"])
def test_loader_gives_the_steps_in_order_whoever_cuts_them(workers, augment_on):
    patches = Patches(some(), gt_size=12, batch_size=3, augment_on=augment_on, **ALL)
    expected = [patches[step] for step in range(7)]
    assert_same(list(patches.loader(0, 7, workers=workers)), expected)
    assert_same(list(patches.loader(4, 7, workers=workers, prefetch=1)), expected[4:])
    assert list(patches.loader(3, 3, workers=workers)) == []


def test_workers_stop_when_no_one_listens():
    def working() -> int:
        return sum(thread.name.startswith("patches") for thread in threading.enumerate())

    batches = Patches(some(), gt_size=12, batch_size=3).loader(0, 10**9, workers=4)
    next(batches)
    assert working()
    batches.close()
    for _ in range(200):
        if not working():
            break
        time.sleep(0.05)
    assert not working()


def test_loader_leaves_the_random_numbers_of_others_alone():
    patches = Patches(some(), gt_size=12, batch_size=3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(patches.loader(0, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_are_one_clean_line(workers):
    patches = Patches(Damaged([noise(9, 9)]), gt_size=12, batch_size=3)
    with refused("image.damaged") as caught:
        next(patches.loader(0, 2, workers=workers))
    assert caught.value.lines == ("image0: is damaged; get it again",)


def test_patches_can_be_pickled():
    patches = Patches(some(), gt_size=12, batch_size=3, sampling="area")
    assert_same([pickle.loads(pickle.dumps(patches))[2]], [patches[2]])


def test_each_sample_reads_one_image():
    pairs = ArrayPairs([noise(9, 9)])
    _ = Patches(pairs, gt_size=12, batch_size=5)[0]
    assert len(pairs.reads) == 5


def spread(counts: list[int]) -> float:
    """Chi-square against equal counts, in standard deviations above its mean."""
    mean, freedom = sum(counts) / len(counts), len(counts) - 1
    return (sum((count - mean) ** 2 for count in counts) / mean - freedom) / (2 * freedom) ** 0.5


def test_image_sampling_takes_images_equally_often():
    pairs = ArrayPairs([address(6 + index, 8 * (index + 1), index) for index in range(5)])
    patches = Patches(pairs, gt_size=12, batch_size=4000)
    images = [image for _, _, image in corners(patches[0])]
    assert spread([images.count(index) for index in range(5)]) < 5


@pytest.mark.parametrize(("scale", "gt_size", "unit"), [(2, 12, 1), (Fraction(3, 2), 9, 2)])
def test_area_sampling_takes_positions_equally_often_and_all_of_them(scale, gt_size, unit):
    sizes = [(6, 6), (12, 8), (4, 40), (10, 14)]
    pairs = ArrayPairs([address(*size, index) for index, size in enumerate(sizes)], scale)
    patches = Patches(pairs, gt_size=gt_size, batch_size=9000, sampling="area")
    found = corners(patches[0])
    places = {
        (top, left, index)
        for index, (height, width) in enumerate(sizes)
        for top in range(0, height - 5, unit)
        for left in range(0, width - 5, unit)
    }
    assert set(found) == places
    assert spread([found.count(place) for place in places]) < 5


def test_image_sampling_takes_positions_of_an_image_equally_often_and_all_of_them():
    patches = Patches(ArrayPairs([address(9, 10)]), gt_size=12, batch_size=4000)
    found = corners(patches[0])
    places = {(top, left, 0) for top in range(4) for left in range(5)}
    assert set(found) == places
    assert spread([found.count(place) for place in places]) < 5


def test_sharpness_prefers_texture():
    image = np.full((40, 40, 3), 90, np.uint8)
    image[:, 20:] = noise(40, 20)
    means = []
    for sharpness in (1, 2, 8):
        patches = Patches(ArrayPairs([image]), gt_size=12, batch_size=400, sharpness=sharpness, **OFF)
        means.append((patches[0]["lq"] != 90).float().mean().item())
    assert means[0] < 0.6 < means[1] < 0.8 < means[2]


def test_sharpness_is_proportional():
    # The place on the right is three times as sharp as the one on the left. Of two draws, they are the same in half of
    # the cases; else the right one is kept in three of four.
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 1:] = [[10] * 3, [40] * 3]
    patches = Patches(ArrayPairs([image.repeat(2, axis=0)]), gt_size=4, batch_size=4000, sharpness=2, **OFF)
    right = (patches[0]["lq"][:, 0, 0, 0] == 10).float().mean().item()
    assert right == pytest.approx(1 / 4 + 1 / 2 * 3 / 4, abs=0.03)


@pytest.mark.parametrize("gt_size", [2, 12])
def test_flat_images_have_no_sharpest_place(gt_size):
    pairs = ArrayPairs([np.zeros((20, 20, 3), np.uint8)])
    assert not Patches(pairs, gt_size=gt_size, batch_size=3, sharpness=4)[0]["lq"].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_gets_the_same_whoever_augments(dtype, device):
    on = {
        where: Patches(some(), gt_size=12, batch_size=9, augment_on=where, **ALL)[4] for where in ("worker", "device")
    }
    left, done = (to_training(on[where], device, dtype) for where in ("device", "worker"))
    assert_same([left], [done])
    assert set(done) == {"gt", "lq", "sr_teacher"}
    assert not torch.equal(on["device"]["gt"], on["worker"]["gt"])
    for plane, images in done.items():
        assert (images.dtype, images.device.type) == (dtype, device)
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(images.cpu(), on["worker"][plane].to(dtype) / 255)


def test_training_range_and_batch_stay_as_given():
    batch = Patches(some(), gt_size=12, batch_size=9)[0]
    before = {key: value.clone() for key, value in batch.items()}
    planes = to_training(batch, "cpu", max_value=255.0)
    assert torch.equal(planes["gt"], augment.apply(batch["gt"], batch["transform_codes"]).float())
    assert_same([batch], [before])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"gt_size": 13}, "patches.gt-size"),
        ({"gt_size": 2}, "patches.gt-size"),
        ({"gt_size": 0}, "patches.gt-size"),
        ({"gt_size": -9}, "patches.gt-size"),
        ({"gt_size": 300}, "patches.gt-size"),
        ({"batch_size": 0}, "patches.out-of-range"),
        ({"world_size": 0}, "patches.out-of-range"),
        ({"sharpness": 0}, "patches.out-of-range"),
        ({"rank": 2, "world_size": 2}, "patches.out-of-range"),
        ({"rank": -1}, "patches.out-of-range"),
        ({"seed": -1}, "patches.out-of-range"),
        ({"seed": 2**63 + 1}, "patches.out-of-range"),
        ({"step": -1}, "patches.out-of-range"),
        ({"sampling": "pixel"}, "patches.unknown-choice"),
        ({"augment_on": "gpu"}, "patches.unknown-choice"),
    ],
)
def test_bad_options_are_named(options, code):
    step = options.pop("step", 0)
    with refused(code) as caught:
        _ = Patches(some(Fraction(3, 2)), **{"gt_size": 12, "batch_size": 2, **options})[step]
    assert str(next(iter(options.values()), step)) in str(caught.value)


def test_the_sizes_that_fit_are_said():
    with refused("patches.gt-size") as caught:
        Patches(some(Fraction(3, 2)), gt_size=13, batch_size=2)
    assert "12 or 15" in str(caught.value)


@pytest.mark.parametrize("steps", [(-1, 3), (4, 3)])
def test_bad_steps_are_named(steps):
    with refused("patches.out-of-range"):
        Patches(some(), gt_size=12, batch_size=2).loader(*steps)


@pytest.mark.parametrize("options", [{"workers": -1}, {"workers": 1, "prefetch": 0}])
def test_bad_workers_are_named(options):
    with refused("patches.out-of-range"):
        Patches(some(), gt_size=12, batch_size=2).loader(0, 1, **options)


def test_no_images():
    with refused("patches.no-images"):
        Patches(ArrayPairs([]), gt_size=12, batch_size=2)


@pytest.mark.parametrize("sampling", ["image", "area"])
def test_small_images_are_left_out_and_named(sampling, caplog):
    pairs = ArrayPairs([noise(5, 300), noise(6, 6), noise(300, 1), noise(40, 40)])
    _ = Patches(pairs, gt_size=12, batch_size=400, sampling=sampling)[0]
    assert set(pairs.reads) <= {1, 3}
    counts = [pairs.reads.count(index) for index in (1, 3)]
    assert 150 < counts[0] < 250 if sampling == "image" else counts[0] < 5
    (record,) = caplog.records
    assert record.message == "2 of 4 images are smaller than the patches of 12 px and are left out: image0, image2"


def test_no_image_is_large_enough():
    with refused("patches.gt-size"):
        Patches(ArrayPairs([noise(5, 300)]), gt_size=12, batch_size=2)


def test_a_share_is_what_patches_made_for_that_process_are():
    whole = Patches(some(), gt_size=12, batch_size=2, seed=3)
    share = whole.share(1, 3)
    same = Patches(some(), gt_size=12, batch_size=2, seed=3, rank=1, world_size=3)

    assert all(torch.equal(share[5][name], same[5][name]) for name in same[5])
    assert whole.rank == 0
    with refused("patches.out-of-range"):
        whole.share(3, 3)
