from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import read_rgb
from tests.fake_set import make_set, picture
from tests.refused import refused
from tests.shared_data import SHARED, needs_shared


def test_published_names_beside_the_originals(tmp_path):
    make_set(tmp_path / "Set5", lr="LRbicx2", lr_suffix="x2.bmp")
    images = find_set("Set5", 2, root=tmp_path)
    assert (images.name, images.scale, images.lr_source) == ("Set5", 2, "LRbicx2 (files)")
    assert [pair.name for pair in images.pairs] == ["baby", "bird"]
    hr, lr = images.load(images.pairs[0])
    assert hr.shape == (36, 40, 3)
    assert np.array_equal(lr, imresize(hr, 1 / 2))


def test_basicsr_layout(tmp_path):
    make_set(tmp_path / "Set5", hr="GTmod12", lr="LRbicx4", lr_suffix=".png", scale=4, size=(36, 48))
    images = find_set(tmp_path / "Set5", 4)
    assert images.lr == tmp_path / "Set5" / "LRbicx4"
    direct = find_set(DataSource(tmp_path / "Set5" / "GTmod12", tmp_path / "Set5" / "LRbicx4"), 4)
    assert (direct.pairs, direct.name) == (images.pairs, "Set5")


def test_edsr_layout(tmp_path):
    make_set(tmp_path / "B100", lr="LR_bicubic/X2", lr_suffix="x2.png")
    assert find_set(tmp_path / "B100", 2).lr == tmp_path / "B100" / "LR_bicubic" / "X2"


def test_name_of_lr_files_as_asked(tmp_path):
    make_set(tmp_path, lr="small", lr_suffix="_low.png")
    source = DataSource(tmp_path, lr=tmp_path / "small", name="mine", lr_name="{}_low")
    images = find_set(source, 2)
    assert (images.name, images.pairs[1].lr) == ("mine", tmp_path / "small" / "bird_low.png")


@pytest.mark.parametrize("hr", ["HR", "."])
def test_lr_is_made_where_there_is_none(tmp_path, hr):
    make_set(tmp_path, hr=hr)
    images = find_set(tmp_path, 3)
    hr_pixels, lr = images.load(images.pairs[0])
    assert images.lr_source == "MATLAB bicubic"
    assert hr_pixels.shape == (36, 39, 3)
    assert np.array_equal(lr, imresize(hr_pixels, 1 / 3))


def test_lr_of_another_factor_is_not_taken(tmp_path):
    make_set(tmp_path, lr="LRbicx2", lr_suffix="x2.png")
    assert find_set(tmp_path, 4).lr is None


def save(path: Path, pixels: np.ndarray) -> Path:
    write_image(path, Picture(pixels))
    return path


def test_kinds_of_images_become_rgb(tmp_path):
    colour = np.minimum(picture((8, 9), seed=1), 254)  # so that no 16-bit sample overflows below
    grey = np.ascontiguousarray(colour[..., 0])
    opaque = np.dstack((colour, np.full((8, 9), 255, np.uint8)))
    deep = colour.astype(np.uint16) * 257
    assert np.array_equal(read_rgb(save(tmp_path / "grey.png", grey)), np.dstack([grey] * 3))
    assert np.array_equal(read_rgb(save(tmp_path / "opaque.png", opaque)), colour)
    assert np.array_equal(read_rgb(save(tmp_path / "deep.png", deep + 128)), colour)
    assert np.array_equal(read_rgb(save(tmp_path / "deeper.png", deep + 129)), colour + 1)


def test_transparent_pixels_are_refused(tmp_path):
    pixels = np.dstack((picture((8, 9)), np.full((8, 9), 254, np.uint8)))
    with refused("image.transparent"):
        read_rgb(save(tmp_path / "a.png", pixels))


def error_of(source: object, scale: int = 2, root: Path = Path("nowhere")) -> InputError:
    with pytest.raises(InputError) as caught:
        images = find_set(source, scale, root=root)
        for pair in images.pairs:
            images.load(pair)
    assert "\n" not in str(caught.value)
    return caught.value


def test_unknown_set_lists_what_there_is(tmp_path):
    (tmp_path / "Set5").mkdir()
    assert error_of("Set6", root=tmp_path).code == "data.not-found"
    assert error_of("Set6", root=tmp_path).code == "data.not-found"
    assert error_of("Set6").code == "data.not-found"


def test_a_file_is_no_set(tmp_path):
    assert error_of(save(tmp_path / "a.png", picture((8, 8)))).code == "data.not-a-folder"


def test_no_images(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    assert error_of(tmp_path).code == "data.no-images"


def test_missing_partner(tmp_path):
    make_set(tmp_path, lr="LRbicx2", lr_suffix="x2.png")
    (tmp_path / "LRbicx2" / "birdx2.png").unlink()
    assert error_of(tmp_path).code == "data.lr-missing"


def test_size_mismatch(tmp_path):
    make_set(tmp_path, lr="LRbicx3", lr_suffix="x3.png", scale=2)
    error = error_of(tmp_path, 3)
    assert error.code == "data.lr-size"
    assert "babyx3.png: is 20x18 px, but x3 of baby.png needs 13x12" in str(error)


def test_too_small_for_the_factor(tmp_path):
    save(tmp_path / "dot.png", picture((3, 3)))
    assert error_of(tmp_path, 4).code == "image.too-small"


def test_not_an_image(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    assert error_of(tmp_path).code == "image.unknown-format"


def test_two_originals_of_one_name(tmp_path):
    save(tmp_path / "a.png", picture((8, 8)))
    save(tmp_path / "a.bmp", picture((8, 8)))
    assert error_of(tmp_path).code == "data.same-name"


def test_missing_lr_folder(tmp_path):
    make_set(tmp_path)
    assert error_of(DataSource(tmp_path, lr=tmp_path / "gone")).code == "image.not-a-folder"


def shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    return np.roll(pixels, (down, right), (0, 1))


def resampled(pixels: np.ndarray, kind: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((pixels.shape[1] // 2, pixels.shape[0] // 2), kind))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda hr: imresize(hr, 1 / 2), None),
        (lambda hr: resampled(hr, Image.Resampling.BICUBIC), None),
        (lambda hr: imresize(shifted(hr, 0, 1), 1 / 2), "+1"),
        (lambda hr: shifted(imresize(hr, 1 / 2), 1, 0), "+2.0 px down"),
        (lambda hr: imresize(shifted(hr, -1, 0), 1 / 2), "-1"),
        (lambda hr: resampled(hr, Image.Resampling.LANCZOS), "another kernel"),
        (lambda hr: resampled(hr, Image.Resampling.BOX), "another kernel"),
        (lambda hr: np.ascontiguousarray(np.flip(imresize(hr, 1 / 2), 1)), "another kernel"),
    ],
)
def test_lr_images_that_are_not_bicubic_are_told(tmp_path, make, told):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        side = 40 if told == "another kernel" else 10  # kernels differ in details, shifts are told from smooth images
        hr = imresize(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), size=(60, 60))
        save(tmp_path / "HR" / f"{name}.png", hr)
        save(tmp_path / "LRbicx2" / f"{name}x2.png", make(hr))
    images = find_set(tmp_path, 2)
    assert images.notes == ()
    notes = images.checked().notes
    assert len(notes) == (0 if told is None else 1)
    assert told is None or told in notes[0]


def test_grey_lr_images_are_compared_too(tmp_path):
    make_set(tmp_path, lr="LRbicx2", lr_suffix="x2.png")
    images = find_set(DataSource(tmp_path, grey=True), 2)
    assert all(image.ndim == 2 for pair in images.pairs for image in images.load(pair))
    assert images.checked().notes == ()


@needs_shared
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_lr_images_are_bicubic(scale):
    images = find_set(SHARED / "benchmark" / "Set5", scale).checked()
    assert (images.lr_source, images.notes) == (f"LRbicx{scale} (files)", ())
