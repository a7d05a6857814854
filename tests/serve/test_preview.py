"""Previews: bounded, as a screen shows a picture, with crops of the same place, judged by Pillow."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from imdn_kd.image.io import Picture
from imdn_kd.image.resize import imresize
from imdn_kd.serve.preview import CROP, SIDE, preview
from tests.fake_set import picture


def pair(size, large, **options):
    """A picture, and a sharper one of the size `large`, as (height, width)."""
    given = picture(size, 3)
    result = imresize(given, size=large)
    half = large[0] // 2
    result[half:, :, 0] = 255 - result[half:, :, 0]
    return Picture(given, **options), Picture(result, **options)


@pytest.mark.parametrize(
    ("size", "large"), [((1, 1), (4, 4)), ((2, 3), (5, 8)), ((90, 70), (243, 189)), ((200, 300), (200, 300))]
)
def test_small_results_are_shown_as_they_are(size, large):
    given, result = pair(size, large)
    found = preview(given, result)
    bicubic = Image.fromarray(given.pixels).resize(large[::-1], Image.Resampling.BICUBIC)
    assert np.array_equal(found.model, result.pixels)
    assert np.array_equal(found.bicubic, bicubic)
    assert 1 <= len(found.crops) <= 3
    for crop in found.crops:
        place = np.s_[crop.top : crop.top + CROP, crop.left : crop.left + CROP]
        assert np.array_equal(crop.model, result.pixels[place])
        assert np.abs(np.asarray(bicubic)[place].astype(int) - crop.bicubic).max() <= 1  # sums in another order
        assert crop.top + crop.model.shape[0] > large[0] // 2  # where they differ


@pytest.mark.parametrize(
    ("size", "large"),
    [((500, 800), (2000, 3200)), ((1, 900), (3, 2700)), ((1700, 20), (1870, 22)), ((40, 3300), (7, 9))],
)
def test_large_results_are_shown_smaller_and_their_crops_in_full(size, large):
    given, result = pair(size, large)
    found = preview(given, result)
    assert found.model.size == found.bicubic.size
    assert max(found.model.size) <= SIDE
    wide, tall = found.model.size
    if min(large) > 3:
        error = np.asarray(Image.fromarray(result.pixels).resize((wide, tall), Image.Resampling.BOX), int)
        assert np.abs(error - found.model).mean() < 2
        assert found.crops
    for crop in found.crops:
        place = np.s_[crop.top : crop.top + CROP, crop.left : crop.left + CROP]
        assert np.array_equal(crop.model, result.pixels[place])
        assert crop.bicubic.shape == crop.model.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_all_kinds_become_rgb_on_grey(channels, dtype):
    top = np.iinfo(dtype).max
    pixels = np.full((6, 7, channels), top, dtype)
    if channels in (2, 4):
        pixels[:3, :, -1] = 0
    given = Picture(pixels[..., 0] if channels == 1 else pixels)
    found = preview(given, given)
    shown = np.asarray(found.model)
    assert shown.shape == (6, 7, 3)
    assert (shown[3:] == 255).all()
    assert (shown[:3] == (208 if channels in (2, 4) else 255)).all()


def test_profiles_are_applied():
    """Adobe RGB is the wider one: its greens have less red in sRGB."""
    pixels = np.full((2, 2, 3), (128, 200, 128), np.uint8)
    given = Picture(pixels, imagecodecs.cms_profile("adobergb"))
    red, green, _ = preview(given, given).model.getpixel((0, 0))
    assert red < 110
    assert green >= 200
    broken = Picture(pixels, given.icc_profile[:140])
    assert preview(broken, broken).model.getpixel((0, 0)) == (128, 200, 128)
