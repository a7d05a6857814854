from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from skimage import data
from skimage.filters import gaussian

from imdn_kd.data.degradation.schema import Bicubic, Blur, Jpeg, Noise, Step
from imdn_kd.data.degradation.steps import degrade, describe
from imdn_kd.image.resize import imresize
from tests.shared_data import needs_shared, set5_pairs

PHOTO = data.astronaut()
ONE = Fraction(1)


def read(content: object) -> Step:
    return TypeAdapter(Step).validate_python(content)


@needs_shared
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_gives_the_published_set5(scale):
    for hr, lr in set5_pairs(scale):
        np.testing.assert_array_equal(degrade(hr, Fraction(scale), [Bicubic()], "any"), lr)


@pytest.mark.parametrize(
    ("scale", "size"), [("8", (64, 64)), ("1.5", (340, 340)), ("2.5", (204, 204)), ("1", (512, 512))]
)
def test_bicubic_by_any_factor(scale, size):
    exact = Fraction(scale)
    side = 512 // exact.numerator * exact.numerator
    low = degrade(PHOTO[:side, :side], exact, [Bicubic()], "any")
    assert low.shape == (*size, 3)
    np.testing.assert_array_equal(low, imresize(PHOTO[:side, :side], size=size))


def test_blur_equals_scikit_image():
    # Both truncate the kernel at four standard deviations.
    expected = gaussian(PHOTO.astype(np.float64), 1.7, channel_axis=2, mode="reflect", preserve_range=True)
    low = degrade(PHOTO, ONE, [Blur(type="blur", sigma=1.7)], "any")
    assert np.abs(low - expected).max() <= 0.5 + 1e-3


def test_noise_has_the_deviation_asked_for():
    grey = np.full((300, 400, 3), 128, np.uint8)
    noise = degrade(grey, ONE, [Noise(type="noise", sigma=10.0)], "any") - 128.0
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(10, rel=0.01)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_noise_is_clamped():
    for level in (0, 255):
        noisy = degrade(np.full((50, 50, 3), level, np.uint8), ONE, [Noise(type="noise", sigma=20.0)], "any")
        assert (noisy == level).mean() > 0.4


def test_jpeg_is_pillow_s():
    buffer = BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG", quality=40)
    low = degrade(PHOTO, ONE, [Jpeg(type="jpeg", quality=40.0)], "any")
    np.testing.assert_array_equal(low, np.array(Image.open(buffer)))


def test_steps_go_in_order():
    steps = [Blur(type="blur", sigma=1.0), Bicubic(), Noise(type="noise", sigma=5.0), Jpeg(type="jpeg", quality=80.0)]
    low = degrade(PHOTO, Fraction(2), steps, "key")
    step_by_step = degrade(degrade(PHOTO, ONE, steps[:1], "key"), Fraction(2), steps[1:], "key")
    np.testing.assert_array_equal(low, step_by_step)  # the first two draw no random numbers
    assert not np.array_equal(low, degrade(PHOTO, Fraction(2), steps[1:], "key"))


def test_the_key_decides():
    steps = [Noise(type="noise", sigma=[0.0, 50.0])]
    first, again, other = (degrade(PHOTO, ONE, steps, key) for key in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_range_is_drawn_from_for_each_image():
    grey = np.full((64, 64, 3), 128, np.uint8)
    steps = [Noise(type="noise", sigma=[5.0, 25.0])]
    found = [(degrade(grey, ONE, steps, str(key)) - 128.0).std() for key in range(60)]
    assert 4.5 < min(found) < 8
    assert 22 < max(found) < 26


def test_described_as_written():
    steps = [Bicubic(), Noise(type="noise", sigma=[1.0, 2.0])]
    assert describe(steps) == [{"type": "bicubic"}, {"type": "noise", "sigma": [1.0, 2.0]}]
    assert [read(each) for each in describe(steps)] == steps


@pytest.mark.parametrize(
    "content",
    [
        {"type": "noise", "sigma": -1},
        {"type": "noise", "sigma": [3, 1]},
        {"type": "noise", "sigma": [1]},
        {"type": "noise", "sigma": "10"},
        {"type": "noise", "sigma": float("nan")},
        {"type": "noise"},
        {"type": "jpeg", "quality": 0},
        {"type": "jpeg", "quality": [50, 101]},
        {"type": "blur", "sigma": 1, "radius": 2},
        {"type": "bicubic", "scale": 2},
        {"type": "median"},
    ],
)
def test_what_cannot_be_meant(content):
    with pytest.raises(ValidationError):
        read(content)
