from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.data import augment
from imdn_kd.data.augment import (
    HFLIP,
    INVERSION,
    NUM_TRANSFORM_CODES,
    PERMUTATION,
    TRANSPOSE,
    VFLIP,
    AugmentOptions,
    apply,
    undo,
)
from tests.refused import refused

EVERY_CODE = torch.arange(NUM_TRANSFORM_CODES)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FORMATS = [torch.contiguous_format, torch.channels_last]
BIG = st.integers(-(2**63), 2**63 - 1)


def noise(count: int, height: int, width: int, channels: int = 3, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Bytes, or floats that are whole multiples of 1 / 256: few enough digits to be inverted without rounding."""
    pixels = torch.randint(0, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0))
    return pixels.to(dtype) if dtype == torch.uint8 else pixels.to(dtype) / 256


def reference(image: np.ndarray, code: int, max_value: float) -> np.ndarray:
    """One image, H x W x C, as BasicSR would do it, step by step."""
    if code & 1:
        image = image[:, ::-1]
    if code & 2:
        image = image[::-1]
    if code & 4:
        image = image.transpose(1, 0, 2)
    if code & 8:
        image = np.asarray(max_value, image.dtype) - image
    if code >= 16:
        image = image[:, :, [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][code // 16]]
    return image


def assert_as_reference(
    result: torch.Tensor, images: torch.Tensor, transform_codes: torch.Tensor, max_value: float
) -> None:
    for after, before, code in zip(result.cpu(), images.cpu(), transform_codes.tolist(), strict=True):
        expected = reference(before.permute(1, 2, 0).numpy(), code, max_value)
        np.testing.assert_array_equal(after.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("dtype", "max_value"), [(torch.uint8, 255), (torch.float32, 1.0), (torch.float64, 2.0)])
def test_every_code_is_as_the_reference_and_undone(dtype, max_value, memory_format, device):
    images = noise(NUM_TRANSFORM_CODES, 7, 7, dtype=dtype).to(device, memory_format=memory_format)
    before = images.clone()
    result = apply(images, EVERY_CODE, max_value=max_value)
    assert_as_reference(result, before, EVERY_CODE, max_value)
    back = undo(result, EVERY_CODE, max_value=max_value)
    assert torch.equal(back, before)
    assert torch.equal(images, before)
    for output in (result, back):
        assert (output.dtype, output.device) == (images.dtype, images.device)
        assert output.stride() == images.stride()


@pytest.mark.parametrize(("device", "codes_device"), [(device, of) for device in DEVICES for of in {"cpu", device}])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_small_batches_of_every_code_alone_and_of_every_pair_of_turns_are_undone(dtype, codes_device, device):
    turns = range(INVERSION * 2)
    batches = [[code] for code in range(NUM_TRANSFORM_CODES)] + [list(pair) for pair in itertools.product(turns, turns)]
    for batch in batches:
        transform_codes = torch.tensor(batch).to(codes_device)
        images = noise(len(batch), 6, 6, dtype=dtype).to(device)
        assert torch.equal(undo(apply(images, transform_codes), transform_codes), images), batch


@given(st.lists(st.integers(0, NUM_TRANSFORM_CODES - 1), max_size=9), st.integers(1, 9), st.sampled_from(FORMATS))
def test_bytes_are_the_same_sample_by_sample_and_all_at_once(transform_codes, side, memory_format):
    transform_codes = torch.tensor(transform_codes, dtype=torch.int64)
    images = noise(len(transform_codes), side, side).contiguous(memory_format=memory_format)
    kinds = {HFLIP, VFLIP, TRANSPOSE, INVERSION, PERMUTATION}
    at_once = augment._by_mask(images, transform_codes, kinds, 1.0)
    assert torch.equal(at_once, apply(images, transform_codes))
    assert at_once.stride() == images.stride()


@given(
    st.lists(st.sampled_from([0, HFLIP, VFLIP, INVERSION, HFLIP + VFLIP + INVERSION]), min_size=1, max_size=5),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    st.sampled_from([torch.uint8, torch.float32]),
)
def test_any_shape_unless_transposed_or_permuted(transform_codes, shape, dtype):
    transform_codes = torch.tensor(transform_codes)
    images = noise(len(transform_codes), *shape, dtype=dtype)
    result = apply(images, transform_codes)
    assert_as_reference(result, images, transform_codes, 255 if dtype == torch.uint8 else 1)
    assert torch.equal(undo(result, transform_codes), images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_parts_of_larger_images(dtype):
    images = noise(NUM_TRANSFORM_CODES, 9, 9, dtype=dtype)[:, :, 1:6, 3:8]
    result = apply(images, EVERY_CODE)
    assert_as_reference(result, images, EVERY_CODE, 255 if dtype == torch.uint8 else 1)


@pytest.mark.parametrize("change", [apply, undo])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
def test_codes_on_a_device_are_not_waited_for(change, dtype):
    # There is nothing on a meta device that could be copied from it.
    images = noise(3, 4, 4, dtype=dtype).to("meta", memory_format=torch.channels_last)
    for transform_codes in (torch.zeros(3, dtype=torch.int64, device="meta"), torch.tensor([0, 5, 95])):
        result = change(images, transform_codes)
        assert (result.shape, result.dtype, result.stride()) == (images.shape, dtype, images.stride())


def test_inversion_of_floats_rounds_at_most():
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    transform_codes = torch.full((4,), INVERSION)
    torch.testing.assert_close(undo(apply(images, transform_codes), transform_codes), images, rtol=0, atol=2**-24)


def test_gradients_pass():
    images = noise(NUM_TRANSFORM_CODES, 4, 4, dtype=torch.float64).requires_grad_()
    weights = noise(NUM_TRANSFORM_CODES, 4, 4, dtype=torch.float64)
    (apply(images, EVERY_CODE) * weights).sum().backward()
    # The gradient is turned back, and has no white to be taken from.
    sign = torch.where(EVERY_CODE & INVERSION != 0, -1, 1)[:, None, None, None]
    assert torch.equal(images.grad, sign * undo(weights, EVERY_CODE & ~INVERSION))


@given(st.lists(BIG, min_size=1), st.lists(st.booleans(), min_size=4, max_size=4))
def test_only_what_is_turned_on_is_drawn_and_the_rest_stays(random_bits, options):
    hflip, rot, shuffle, inversion = options
    random_bits = torch.tensor(random_bits)
    everything = AugmentOptions(True, True, True, True).draw(random_bits)
    assert ((everything >= 0) & (everything < NUM_TRANSFORM_CODES)).all()
    mask = HFLIP * hflip + (VFLIP + TRANSPOSE) * rot + INVERSION * inversion + 0x70 * shuffle
    assert torch.equal(AugmentOptions(*options).draw(random_bits), everything & mask)


def test_all_codes_are_drawn_equally_often():
    random_bits = torch.from_numpy(np.random.Philox(key=3).random_raw(96_000).astype(np.int64))
    counts = torch.bincount(AugmentOptions(True, True, True, True).draw(random_bits), minlength=NUM_TRANSFORM_CODES)
    # 95 degrees of freedom: 95 +- 14.
    assert ((counts - 1000) ** 2 / 1000).sum() < 95 + 5 * 14


def test_usual_augmentations_are_the_eight_turns():
    random_bits = torch.from_numpy(np.random.Philox(key=3).random_raw(999).astype(np.int64))
    assert AugmentOptions().draw(random_bits).unique().tolist() == list(range(8))


@pytest.mark.parametrize("change", [apply, undo])
@pytest.mark.parametrize(
    ("images", "transform_codes", "code"),
    [
        (noise(2, 4, 4)[0], torch.tensor([0, 0]), "augment.images"),
        (noise(2, 4, 4).int(), torch.tensor([0, 0]), "augment.images"),
        (noise(2, 4, 4), torch.tensor([0]), "augment.codes"),
        (noise(2, 4, 4), torch.tensor([0.0, 0.0]), "augment.codes"),
        (noise(2, 4, 4), torch.tensor([0, NUM_TRANSFORM_CODES]), "augment.codes"),
        (noise(2, 4, 4), torch.tensor([-1, 0]), "augment.codes"),
        (noise(2, 4, 4), torch.tensor([0, 0], device="meta"), "augment.codes"),
        (noise(2, 4, 6), torch.tensor([0, TRANSPOSE]), "augment.mismatch"),
        (noise(2, 4, 6).to("meta"), torch.tensor([0, 0], device="meta"), "augment.mismatch"),
        (noise(2, 4, 4, 1), torch.tensor([0, PERMUTATION]), "augment.mismatch"),
    ],
)
def test_bad_input_is_named_in_one_line(change, images, transform_codes, code):
    with refused(code) as caught:
        change(images, transform_codes)
    assert "\n" not in str(caught.value)
