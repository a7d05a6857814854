from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imdn_kd.image.resize import imresize
from tests.basicsr_compat import import_basicsr
from tests.reference import resize as reference
from tests.refused import refused
from tests.shared_data import needs_shared, set5_pairs

DTYPES = ("uint8", "uint16", "float32", "float64")
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.tuples(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)
)
SCALES = st.sampled_from([0.25, 1 / 3, 0.5, 2 / 3, 0.8, 1.0, 1.1, 1.5, 2.0, 3.0, 4.0]) | st.floats(0.05, 4)


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return generator.random(shape).astype(dtype)
    # Few levels near both ends of the range, so that clamping and ties happen often.
    top = np.iinfo(dtype).max
    return generator.choice(np.array([0, 1, 2, 3, top - 1, top], dtype), shape)


def assert_equals_reference(result: np.ndarray, expected: np.ndarray) -> None:
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if result.dtype.kind == "u":
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6 if result.dtype == np.float32 else 1e-12)


@needs_shared
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_set5_bit_for_bit(scale):
    for hr, lr in set5_pairs(scale):
        np.testing.assert_array_equal(imresize(hr, 1 / scale), lr)
        np.testing.assert_array_equal(imresize(hr, size=lr.shape[:2]), lr)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SCALES, st.sampled_from(DTYPES), st.integers(0, 999))
def test_scale_equals_slow_reference(shape, scale, dtype, seed):
    image = noise(shape, dtype, seed)
    size = math.ceil(shape[0] * scale), math.ceil(shape[1] * scale)
    assert_equals_reference(imresize(image, scale), reference.imresize(image, size, (scale, scale)))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.tuples(st.integers(1, 30), st.integers(1, 30)), st.sampled_from(DTYPES), st.integers(0, 999))
def test_size_equals_slow_reference(shape, size, dtype, seed):
    image = noise(shape, dtype, seed)
    scales = size[0] / shape[0], size[1] / shape[1]
    assert_equals_reference(imresize(image, size=size), reference.imresize(image, size, scales))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.9, 3.0])
def test_many_bands_equal_slow_reference(scale, dtype):
    image = noise((300, 3), dtype)
    size = math.ceil(300 * scale), math.ceil(3 * scale)
    assert_equals_reference(imresize(image, scale), reference.imresize(image, size, (scale, scale)))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([2, 4, 8]), st.tuples(st.integers(0, 33), st.integers(0, 33)), st.booleans(), st.integers(0, 99))
def test_exact_factors_equal_slow_reference(factor, extra, grey, seed):
    # Around the size from which PyTorch does the work, divisible or not.
    height, width = (4 * factor - 1 + more for more in extra)
    image = noise((height, width) if grey else (height, width, 3), "uint8", seed)
    size = math.ceil(height / factor), math.ceil(width / factor)
    assert_equals_reference(imresize(image, 1 / factor), reference.imresize(image, size, (1 / factor, 1 / factor)))


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 0.37, 1.5, 2.0, 2.7, 4.0])
@pytest.mark.parametrize("shape", [(40, 53, 3), (64, 48)])
def test_floats_equal_basicsr(shape, scale):
    basicsr = import_basicsr("basicsr.utils.matlab_functions")
    image = noise(shape, "float32")
    np.testing.assert_allclose(imresize(image, scale), basicsr.imresize(image, scale), rtol=0, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SCALES, st.sampled_from(DTYPES))
def test_constant_image_stays_constant(shape, scale, dtype):
    value = 200 if dtype.startswith("uint") else 0.7
    result = imresize(np.full(shape, value, dtype), scale)
    np.testing.assert_allclose(result, np.asarray(value, dtype), rtol=0 if result.dtype.kind == "u" else 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (7, 5, 3)])
def test_scale_one_is_a_copy(shape, dtype):
    image = noise(shape, dtype)
    for result in (imresize(image, 1), imresize(image, size=shape[:2])):
        np.testing.assert_array_equal(result, image)
        assert not np.shares_memory(result, image)


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_equal_their_copies_and_stay_unchanged(dtype):
    image = noise((40, 30, 4), dtype)
    before = image.copy()
    for view in (image[3:-2, 1:-1, :3], image[::-1, ::2], image.transpose(1, 0, 2), image[..., 0]):
        result = imresize(view, 0.4)
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, imresize(view.copy(), 0.4))
    np.testing.assert_array_equal(image, before)


def test_channels_are_independent():
    image = noise((20, 17, 3), "uint8")
    for channel in range(3):
        np.testing.assert_array_equal(imresize(image, 0.6)[..., channel], imresize(image[..., channel], 0.6))


def test_floats_are_not_clamped_and_integers_are():
    step = np.zeros((1, 16))
    step[:, 8:] = 255
    assert imresize(step, 2).min() < 0
    assert imresize(step, 2).max() > 255
    result = imresize(step.astype(np.uint8), 2)
    assert (result.min(), result.max()) == (0, 255)


def test_output_size_is_the_double_precision_product():
    assert imresize(np.zeros((9, 10)), 1 / 3).shape == (3, 4)
    assert imresize(np.zeros((100, 10)), 1.1).shape == (111, 11)
    assert imresize(np.zeros((1, 1)), 0.01).shape == (1, 1)


@pytest.mark.parametrize(
    ("image", "arguments", "code"),
    [
        (np.zeros((4, 4), bool), {"scale": 2}, "resize.image"),
        (np.zeros((4, 4), np.int16), {"scale": 2}, "resize.image"),
        (np.zeros(4), {"scale": 2}, "resize.image"),
        (np.zeros((1, 4, 4, 3)), {"scale": 2}, "resize.image"),
        (np.zeros((0, 4)), {"scale": 2}, "resize.image"),
        (np.zeros((4, 4)), {}, "resize.size"),
        (np.zeros((4, 4)), {"scale": 2, "size": (8, 8)}, "resize.size"),
        (np.zeros((4, 4)), {"scale": 0}, "resize.size"),
        (np.zeros((4, 4)), {"scale": -0.5}, "resize.size"),
        (np.zeros((4, 4)), {"scale": math.nan}, "resize.size"),
        (np.zeros((4, 4)), {"scale": math.inf}, "resize.size"),
        (np.zeros((4, 4)), {"size": (0, 8)}, "resize.size"),
        (np.zeros((4, 4)), {"size": (2.5, 8)}, "resize.size"),
        (np.zeros((4, 4)), {"size": (8, 8, 3)}, "resize.size"),
    ],
)
def test_bad_input_is_named_in_one_line(image, arguments, code):
    with refused(code) as caught:
        imresize(image, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.processes
def test_import_is_light():
    code = "import sys, imdn_kd.image.resize; assert not {'scipy', 'skimage', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
