import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from imdn_kd import zoo
from imdn_kd.archs import IMDN, IMDN_RTC, ModelInfo, SRNetwork
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.inference.device import choose_dtype
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from tests.refused import refused


class Repeat(SRNetwork):
    """Repeats each pixel: a network whose results are known."""

    def __init__(self, scale: int = 2, channels: int = 3) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.ones(()))
        self.scale, self.channels = scale, channels

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(scale=self.scale, num_in_ch=self.channels)

    def forward(self, image: Tensor) -> Tensor:
        return image.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def repeat(pixels, scale=2):
    return pixels.repeat(scale, 0).repeat(scale, 1)


def random_pixels(*shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape, dtype=dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1), (1, 1, 3), (3, 3, 4)])
def test_arrays_come_back_as_they_went_in(dtype, shape):
    pixels = random_pixels(*shape, dtype=dtype)
    if len(shape) == 3 and shape[2] in (2, 4):
        pixels[..., -1] = np.maximum(pixels[..., -1], pixels.dtype.type(1))  # nothing fully transparent
    result = Upscaler(Repeat())(pixels)
    assert result.dtype == dtype
    assert result.shape == (2 * shape[0], 2 * shape[1], *shape[2:])
    tolerance = 1e-6 if dtype == np.float32 else 0
    np.testing.assert_allclose(result.astype(float), repeat(pixels).astype(float), atol=tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pil_images_give_pil_images(mode):
    image = Image.fromarray(random_pixels(6, 5, 3)).convert("L" if mode in ("1", "LA", "I;16") else "RGB").convert(mode)
    result = Upscaler(Repeat())(image)
    assert result.size == (10, 12)
    kept = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}.get(mode, mode)
    assert result.mode == kept


def test_pil_palette_with_transparency():
    image = Image.fromarray(random_pixels(6, 5, 3)).quantize(8)
    image.info["transparency"] = 0
    assert Upscaler(Repeat())(image).mode == "RGBA"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (1, 1, 4, 5)])
def test_tensors_come_back_as_they_went_in(dtype, shape):
    image = (torch.rand(shape) * 255).to(dtype) if dtype == torch.uint8 else torch.rand(shape).to(dtype)
    result = Upscaler(Repeat())(image)
    expected = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert result.dtype == dtype
    assert (result.double() - expected.double()).abs().max() <= 1e-6


def test_floats_are_the_values_of_the_network():
    torch.manual_seed(0)
    network, image = IMDN_RTC().eval(), torch.rand(1, 3, 20, 30) * 4 - 1
    with torch.no_grad():
        assert (Upscaler(network, precision="fp32")(image) - network(image)).abs().max() <= 1e-5


def test_integers_are_clamped_and_rounded():
    torch.manual_seed(0)
    network, pixels = IMDN(upscale=2, num_feat=16), random_pixels(20, 30, 3)
    network.upsampler[0].weight.data *= 40
    with torch.no_grad():
        values = network.eval()(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None])
    assert values.min() < 0 < 1 < values.max()
    expected = np.rint(values[0].permute(1, 2, 0).numpy().clip(0, 1) * 255)
    result = Upscaler(network)(pixels)
    assert np.abs(result - expected).max() <= 1  # a value next to .5 may fall either way
    assert (result == expected).mean() > 0.99


@given(
    factor=st.floats(1, 6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 2, 3, 4]),
)
def test_any_factor_gives_its_size(factor, height, width, channels):
    result = Upscaler(Repeat())(random_pixels(height, width, channels), factor)
    assert abs(result.shape[0] - height * factor) < 1.001
    assert abs(result.shape[1] - width * factor) < 1.001


def test_a_factor_between_networks_goes_down_from_above():
    pixels = random_pixels(8, 9, 3)
    result = Upscaler(Repeat(scale=4))(pixels, 2.7)
    expected = imresize(repeat(pixels, 4).astype(np.float32) / np.float32(255), size=(22, 25))
    assert result.shape == (22, 25, 3)
    assert np.abs(result - (expected * 255).clip(0, 255)).max() <= 0.501


def test_a_factor_above_the_network_takes_several_passes():
    pixels = random_pixels(4, 3, 3)
    np.testing.assert_array_equal(Upscaler(Repeat())(pixels, 8), repeat(pixels, 8))


def test_size_and_fit():
    pixels = random_pixels(10, 20, 3)
    assert Upscaler(Repeat())(pixels, size=(33, 31)).shape == (33, 31, 3)
    assert Upscaler(Repeat())(pixels, fit=(100, 100)).shape == (50, 100, 3)


def test_what_is_not_enlarged_needs_no_network():
    pixels = random_pixels(10, 20, 3)
    upscaler = Upscaler(Repeat())
    np.testing.assert_array_equal(upscaler(pixels, 1), pixels)
    np.testing.assert_allclose(upscaler(pixels, size=(5, 9)), imresize(pixels, size=(5, 9)), atol=1)


def test_size_is_in_the_order_of_the_image_kind(tmp_path):
    """(width, height) where images have a width, (height, width) where they have a shape."""
    pixels, upscaler = random_pixels(6, 9, 3), Upscaler(Repeat())
    write_image(tmp_path / "photo.png", Picture(pixels))
    for wanted in ("size", "fit"):
        target = {wanted: (17, 11)}
        image = upscaler(Image.fromarray(pixels), **target)
        picture = upscaler(Picture(pixels), **target)
        assert image.size == (picture.width, picture.height) == ((17, 11) if wanted == "size" else (16, 11))
        np.testing.assert_array_equal(upscaler(str(tmp_path / "photo.png"), **target).pixels, picture.pixels)
        np.testing.assert_array_equal(np.asarray(image), picture.pixels)
        turned = {wanted: (11, 17)}
        np.testing.assert_array_equal(upscaler(pixels, **turned), picture.pixels)
        tensor = upscaler(torch.from_numpy(pixels).permute(2, 0, 1), **turned)
        np.testing.assert_array_equal(tensor.permute(1, 2, 0), picture.pixels)


def test_a_path_gives_a_picture_with_what_the_file_says(tmp_path):
    pixels = random_pixels(4, 5, 3)
    write_image(tmp_path / "photo.png", Picture(pixels, dpi=(300.0, 300.0)))
    large = Upscaler(Repeat())(tmp_path / "photo.png")
    np.testing.assert_array_equal(large.pixels, repeat(pixels))
    assert large.dpi == pytest.approx((300, 300), abs=0.02)
    with pytest.raises(InputError) as caught:
        Upscaler(Repeat())(tmp_path / "none.png")
    assert "none.png" in str(caught.value)


def test_any_module_that_enlarges_is_a_model():
    module = torch.nn.Upsample(scale_factor=2)
    pixels = random_pixels(5, 6, 3)
    np.testing.assert_array_equal(Upscaler(module)(pixels), repeat(pixels))
    with refused("model.not-super-resolution"):
        Upscaler(torch.nn.Conv2d(3, 4, 1))


class OfEnlarged(Repeat):
    @property
    def info(self) -> ModelInfo:
        return ModelInfo(scale=1, enlarged_input=True)


def test_a_network_of_scale_1_runs_before_the_image_is_enlarged_or_after():
    pixels = random_pixels(5, 6, 3)
    once = np.rint(imresize(pixels / np.float32(255), size=(13, 15)) * np.float32(255)).clip(0, 255)
    np.testing.assert_array_equal(Upscaler(Repeat(scale=1))(pixels, 2.5), once)
    np.testing.assert_array_equal(Upscaler(OfEnlarged(scale=1))(pixels, 2.5), imresize(pixels, size=(13, 15)))
    for network in (Repeat(scale=1), OfEnlarged(scale=1)):
        np.testing.assert_array_equal(Upscaler(network)(pixels), pixels)


def test_grey_through_a_colour_network_is_its_luma():
    class Tint(Repeat):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * torch.tensor([0.9, 1.0, 0.5]).reshape(1, 3, 1, 1)

    grey = random_pixels(6, 6, dtype=np.float32)
    weights = np.array([65.481, 128.553, 24.966]) / 219
    np.testing.assert_allclose(Upscaler(Tint())(grey), repeat(grey) * (weights @ [0.9, 1.0, 0.5]), rtol=1e-5)


def test_colour_through_a_grey_network_goes_channel_by_channel():
    pixels = random_pixels(6, 5, 3)
    np.testing.assert_array_equal(Upscaler(Repeat(channels=1))(pixels), repeat(pixels))


def test_transparent_colours_leave_no_dark_fringe():
    torch.manual_seed(0)
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (200, 100, 50, 255)  # an opaque square; elsewhere transparent black
    result = Upscaler(Repeat())(pixels, 1.7)  # bicubic down mixes neighbours
    seen = result[result[..., 3] > 0]
    assert np.abs(seen[:, :3].astype(int) - (200, 100, 50)).max() <= 1
    assert result[0, 0, 3] == 0


def test_value_range_of_the_model_file():
    class Records(Repeat):
        brightest = 0.0

        def forward(self, image: Tensor) -> Tensor:
            Records.brightest = max(Records.brightest, float(image.max()))
            return super().forward(image)

    pixels = np.full((4, 4, 3), 200, np.uint8)
    np.testing.assert_array_equal(Upscaler(ModelFile(Records(), value_range=255.0))(pixels), repeat(pixels))
    assert Records.brightest == pytest.approx(200)


def test_self_ensemble_is_the_mean_over_flips_and_turns():
    torch.manual_seed(0)
    network, image = IMDN_RTC().eval(), torch.rand(1, 3, 12, 9)
    total = torch.zeros(1, 3, 24, 18)
    with torch.no_grad():
        for turns in range(4):
            for flip in (False, True):
                x = torch.rot90(image.flip(3) if flip else image, turns, (2, 3))
                y = torch.rot90(network(x), -turns, (2, 3))
                total += y.flip(3) if flip else y
    result = Upscaler(network, self_ensemble=True)(image)
    assert (result - total / 8).abs().max() <= 1e-5


def test_the_network_given_is_left_alone():
    network = IMDN_RTC().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    Upscaler(network, precision="bf16")(random_pixels(8, 8, 3))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_auto_is_the_precision_that_is_lossless_to_8_bit(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    assert choose_dtype("auto", torch.device(device)) == torch.float32


def test_bf16_is_near_fp32():
    torch.manual_seed(0)
    network, pixels = IMDN_RTC(), random_pixels(24, 24, 3)
    image = pixels / np.float32(255)
    a, b = (Upscaler(network, precision=p)(image) for p in ("fp32", "bf16"))
    assert 0 < np.abs(a - b).mean() <= 1 / 255


def test_progress_rises_to_one():
    seen = []
    upscaler = Upscaler(Repeat(), self_ensemble=True, crop_size=16)
    upscaler(random_pixels(24, 24, 4), 4, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


@pytest.fixture
def small_zoo(tmp_path, monkeypatch):
    entries = []
    for scale in (2, 3):
        name = f"imdn_rtc_x{scale}"
        save_model(tmp_path / f"{name}.safetensors", ModelFile(IMDN_RTC(upscale=scale)))
        fast = scale == 3
        entries.append(
            f'{{"name": "{name}", "file": "{name}.safetensors", "scale": {scale}, "fast": {str(fast).lower()}}}'
        )
    (tmp_path / "index.json").write_text(f"[{', '.join(entries)}]")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)


@pytest.mark.usefixtures("small_zoo")
def test_the_zoo_gives_the_best_student_for_the_factor():
    pixels = random_pixels(6, 6, 3)
    upscaler = Upscaler()
    assert upscaler.scale == 3
    assert upscaler(pixels).shape == (18, 18, 3)
    assert upscaler(pixels, 5.5).shape == (33, 33, 3)
    assert Upscaler("imdn_rtc_x2").scale == 2
    assert Upscaler(fast=True).scale == 3
    with refused("zoo.not-found") as caught:
        Upscaler("imdn_x9")
    assert "imdn_rtc_x2, imdn_rtc_x3" in str(caught.value)


def test_the_index_of_the_zoo_lists_what_is_there():
    for student in zoo.students():
        assert student.path.is_file()


def test_an_empty_zoo_is_said(tmp_path, monkeypatch):
    (tmp_path / "index.json").write_text("[]")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with refused("zoo.no-student"):
        Upscaler()


@pytest.mark.parametrize(
    "options",
    [
        {"device": "cuda:99"},
        {"device": "toaster"},
        {"device": "meta"},
        {"precision": "int3"},
        {"precision": "fp16", "device": "cpu"},
        {"crop": "tiles"},
        {"crop_size": -1},
        {"memory": 0},
    ],
)
def test_bad_options_are_one_line(options):
    with pytest.raises(InputError) as caught:
        Upscaler(Repeat(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros(4, np.uint8),
        torch.zeros(4, 4),
        torch.zeros(1, 5, 4, 4),
        torch.zeros(0, 3, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.int32),
        Image.new("F", (4, 4), 7.0),
    ],
)
def test_what_is_not_an_image_is_one_line(image):
    with pytest.raises(InputError) as caught:
        Upscaler(Repeat())(image)
    assert "\n" not in str(caught.value)


def test_no_memory_for_the_result_is_one_line():
    class Huge(Repeat):
        def forward(self, image: Tensor) -> Tensor:
            raise MemoryError

    with refused("inference.out-of-memory"):
        Upscaler(Huge(), crop="whole")(random_pixels(4, 4, 3))


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        (1, {"scale": 1e20}),
        (2, {"scale": 1e20}),
        (2, {"scale": 20_000}),
        (1, {"size": (1, 10**20)}),
        (2, {"size": (1, 100_000)}),  # the picture on the way there would be square
    ],
)
def test_gigantic_results_are_refused_before_the_work(scale, wanted):
    with refused("size.too-large"):
        Upscaler(Repeat(scale=scale))(random_pixels(3, 3, 3), **wanted)


@pytest.mark.processes
def test_the_compiler_of_pytorch_is_not_imported_which_takes_seconds():
    lines = (
        "import sys, numpy",
        "from imdn_kd import Upscaler",
        "Upscaler('plain_m_x4', device='cpu', engine='torch')(numpy.zeros((8, 8, 3), numpy.uint8))",
        "print('torch._dynamo' in sys.modules)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_memory_goes_back_after_a_picture_of_another_size(monkeypatch):
    calls = []
    monkeypatch.setattr("imdn_kd.inference.upscaler.trim_heap", lambda: calls.append(1))
    upscaler, counts = Upscaler(Repeat(), device="cpu"), []
    for sides in ((4, 5), (4, 5), (5, 4), (5, 4), (4, 5)):
        upscaler(np.zeros((*sides, 3), np.uint8))
        counts.append(len(calls))
    assert counts == [1, 1, 2, 2, 3]
