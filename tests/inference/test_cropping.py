import errno
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from imdn_kd.archs import IMDN, IMDN_RTC, ModelInfo, Segment, SRNetwork
from imdn_kd.archs.imdn import map_statistics
from imdn_kd.inference import segmented
from imdn_kd.inference.buffers import FileBuffer, PixelBuffer, TensorBuffer
from imdn_kd.inference.cropping import AdaptiveCropping
from imdn_kd.inference.memory import PeakMemory
from imdn_kd.inference.segmented import RunningStats
from imdn_kd.inference.tiles import Box
from imdn_kd.registry import ARCHS
from tests.official import FILES, official
from tests.refused import refused
from tests.shared_data import needs_shared


def small(name: str) -> SRNetwork:
    torch.manual_seed(0)
    return lively(ARCHS.build({"type": name}).eval())


def lively(network: SRNetwork) -> SRNetwork:
    """Give a network lively weights: the default ones are so small that statistics hardly matter."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.05)
            module.weight.data *= 0.7
    return network


def random_image(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand((1, channels, height, width), generator=torch.Generator().manual_seed(seed))


sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))
# Both sides up to 200, but few pixels, so that many can be drawn.
cheap_sizes = st.one_of(
    st.tuples(st.integers(1, 200), st.integers(1, 30)),
    st.tuples(st.integers(1, 30), st.integers(1, 200)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None)
@given(size=cheap_sizes, budget=st.one_of(st.integers(12, 120), st.integers(2**22, 2**26)), seed=st.integers(0, 99))
def test_exact_equals_the_whole_image(name, size, budget, seed):
    model = official(name)
    image = random_image(*size, seed=seed) * model.value_range
    crops = {"crop_size": budget} if budget <= 120 else {"memory": budget}
    whole = AdaptiveCropping(model.network, mode="whole")(image)
    exact = AdaptiveCropping(model.network, **crops)(image)
    assert exact.shape == (1, 3, model.network.info.scale * size[0], model.network.info.scale * size[1])
    assert (exact - whole).abs().max() <= 1e-5 * model.value_range


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "imdn_l"])
def test_exact_equals_the_whole_image_for_every_network(name):
    network = small(name)
    image = random_image(70, 53)
    whole = AdaptiveCropping(network, mode="whole")(image)
    exact = AdaptiveCropping(network, crop_size=24)(image)
    assert (exact - whole).abs().max() <= 1e-5 * max(1, whole.abs().max())


def test_features_on_disk_give_the_same_as_features_in_memory(monkeypatch):
    network, image = small("imdn"), random_image(60, 80)
    in_memory = AdaptiveCropping(network, crop_size=32, memory=2**40)(image)
    used = []
    original = FileBuffer.write
    monkeypatch.setattr(FileBuffer, "write", lambda self, *a: (used.append(1), original(self, *a)))
    on_disk = AdaptiveCropping(network, crop_size=32, memory=2**20)(image)
    assert used
    assert (in_memory - on_disk).abs().max() <= 1e-5


def test_local_crops_know_nothing_of_each_other():
    network, image = small("imdn"), random_image(64, 64)
    receptive_radius = network.info.receptive_radius
    local = AdaptiveCropping(network, mode="local", crop_size=32)(image)
    with torch.no_grad():
        corner = network(image[..., : 32 + receptive_radius, : 32 + receptive_radius])
    scale = network.info.scale
    expected = corner[..., : 32 * scale, : 32 * scale]
    assert (local[..., : 32 * scale, : 32 * scale] - expected).abs().max() <= 1e-5
    exact = AdaptiveCropping(network, crop_size=32)(image)
    assert (local - exact).abs().max() > 1e-3  # the difference that exact cropping is for


def test_local_is_exact_without_global_pooling():
    network, image = small("imdn_rtc"), random_image(90, 70)
    whole = AdaptiveCropping(network, mode="whole")(image)
    assert (AdaptiveCropping(network, mode="local", crop_size=20)(image) - whole).abs().max() <= 1e-5


def paper_definition(network: nn.Module, image: Tensor, scale: int) -> Tensor:
    """The cropping of the paper, as published."""
    height, width = image.shape[2:]
    h2, w2 = height // 2, width // 2
    h, w = h2 + 32 - (h2 + 32) % 4, w2 + 32 - (w2 + 32) % 4
    corners = [image[..., :h, :w], image[..., :h, -w:], image[..., -h:, :w], image[..., -h:, -w:]]
    with torch.no_grad():
        y = network(torch.cat(corners))
    result = torch.empty(1, 3, scale * height, scale * width)
    h2s, w2s, hs, ws = h2 * scale, w2 * scale, h * scale, w * scale
    from_row, from_column = hs - scale * height + h2s, ws - scale * width + w2s
    result[..., :h2s, :w2s] = y[0:1, :, :h2s, :w2s]
    result[..., :h2s, w2s:] = y[1:2, :, :h2s, from_column:]
    result[..., h2s:, :w2s] = y[2:3, :, from_row:, :w2s]
    result[..., h2s:, w2s:] = y[3:4, :, from_row:, from_column:]
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imdn_as", "imdn_s", "imdn_rtc"])
@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(60, 140), st.integers(60, 140)))
def test_paper_mode_is_bit_equal_to_its_definition(name, size):
    network, image = small(name), random_image(*size)
    expected = paper_definition(network, image, network.info.scale)
    assert torch.equal(AdaptiveCropping(network, mode="paper")(image), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (59, 59), (100, 58), (60, 59)])
def test_paper_mode_below_its_smallest_size_repeats_the_border(size):
    network, image = small("imdn_as"), random_image(*size)
    result = AdaptiveCropping(network, mode="paper")(image)
    below, right = max(0, 60 - size[0]), max(0, 60 - size[1])
    padded = nn.functional.pad(image, (0, right, 0, below), mode="replicate")
    expected = paper_definition(network, padded, 1)[..., : size[0], : size[1]]
    assert torch.equal(result, expected)


@pytest.mark.parametrize("mode", ["exact", "local", "paper", "whole"])
@pytest.mark.parametrize("name", ["imdn_as", "imdn_rte", "imdn_s"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 3), (5, 2)])
def test_the_smallest_images(mode, name, size):
    network = small(name)
    result = AdaptiveCropping(network, mode=mode, crop_size=8)(random_image(*size))
    assert result.shape[2:] == (network.info.scale * size[0], network.info.scale * size[1])
    assert torch.isfinite(result).all()


def test_each_image_of_a_batch_has_its_own_statistics():
    network = small("imdn_s")
    batch = torch.cat([random_image(40, 50, seed=1), random_image(40, 50, seed=2) * 0.1])
    cropped = AdaptiveCropping(network, crop_size=16)(batch)
    with torch.no_grad():
        assert (cropped - network(batch)).abs().max() <= 1e-5


def test_bfloat16_stays_near_fp32():
    network, image = small("imdn_s"), random_image(50, 40)
    expected = AdaptiveCropping(network, crop_size=20)(image)
    network.to(torch.bfloat16)
    result = AdaptiveCropping(network, crop_size=20)(image.to(torch.bfloat16))
    assert result.dtype == torch.bfloat16
    assert (result.float() - expected).abs().mean() <= 0.02 * expected.abs().mean()


class Limited(IMDN_RTC):
    """Fails as the CPU allocator does for crops of more than `limit` px."""

    limit = 0

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] * image.shape[3] > self.limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
        return super().forward(image)


def test_out_of_memory_is_tried_again_with_smaller_crops_and_said(caplog):
    torch.manual_seed(0)
    network, image = Limited().eval(), random_image(150, 120)
    network.limit = 150 * 120
    expected = AdaptiveCropping(network, mode="whole")(image)
    network.limit = 9000
    with caplog.at_level(logging.WARNING, "imdn_kd"):
        result = AdaptiveCropping(network, memory=2**30)(image)
    assert (result - expected).abs().max() <= 1e-5
    assert "out of memory" in caplog.text


@pytest.mark.parametrize("multiple", [1, 12])
def test_out_of_memory_with_the_smallest_crops_is_one_line(multiple):
    network = Limited().eval()
    network.limit = 48 * 48  # what the memory is measured with
    info = ModelInfo(scale=2, size_multiple=multiple, receptive_radius=24)
    with refused("inference.out-of-memory") as caught:
        AdaptiveCropping(network, crop_size=64, info=info)(random_image(100, 100))
    assert "\n" not in str(caught.value)


def test_long_thin_images_are_cut_along_their_length():
    network, image = Limited().eval(), random_image(10, 1000)
    network.limit = 10_000
    expected = AdaptiveCropping(network, mode="whole")(image)
    network.limit = 2500
    result = AdaptiveCropping(network, memory=2**30)(image)
    assert (result - expected).abs().max() <= 1e-5


def test_other_errors_of_a_network_are_not_taken_for_a_lack_of_memory():
    network = Limited().eval()
    network.forward = lambda image: (_ for _ in ()).throw(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        AdaptiveCropping(network)(random_image(8, 8))


def test_a_full_disk_is_one_line(monkeypatch):
    def full(self, box, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileBuffer, "write", full)
    with refused("inference.scratch"):
        AdaptiveCropping(small("imdn_s"), crop_size=32, memory=2**16)(random_image(64, 64))


def test_too_little_disk_is_said_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(segmented.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with refused("inference.scratch"):
        AdaptiveCropping(small("imdn_s"), crop_size=32, memory=2**16, scratch=tmp_path)(random_image(64, 64))


def test_no_scratch_file_is_left(tmp_path):
    AdaptiveCropping(small("imdn_s"), crop_size=32, memory=2**16, scratch=tmp_path)(random_image(64, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_planned_crops_keep_to_the_budget():
    network = small("imdn")
    budget = 24 * 2**20
    cropping = AdaptiveCropping(network, memory=budget)
    cropping(random_image(8, 8))  # measures
    image, sr = random_image(300, 260), torch.empty(1, 3, 1200, 1040)
    with PeakMemory() as memory:
        cropping.run(TensorBuffer(image), TensorBuffer(sr))
    assert memory.peak <= budget


def test_progress_rises_to_one():
    seen = []
    image, sr = random_image(64, 64), torch.empty(1, 3, 256, 256)
    cropping = AdaptiveCropping(small("imdn_s"), crop_size=32)
    cropping.run(TensorBuffer(image), TensorBuffer(sr), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


class Foreign(nn.Module):
    """A network that says nothing of itself."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(
            nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=True), scale_factor=2
        )


def test_a_foreign_network_works_with_info_given():
    image = random_image(40, 30)
    result = AdaptiveCropping(Foreign(), info=ModelInfo(scale=2, receptive_radius=1), crop_size=10)(image)
    assert (result - Foreign()(image)).abs().max() <= 1e-6


class Pooling(SRNetwork):
    """A network that pools globally, to show what declaring segments takes."""

    info = ModelInfo(scale=1, receptive_radius=1, global_pool_modules=("pool",))

    def forward(self, image: Tensor) -> Tensor:
        return image - map_statistics(image).mean

    def segments(self) -> list[Segment]:
        return [
            Segment(("image",), lambda f, _: {"x": f["image"] + 0}, receptive_radius=0, global_stat="x"),
            Segment(("x",), lambda f, statistics: {"sr": f["x"] - statistics.mean}, receptive_radius=0),
        ]


def test_any_network_that_declares_its_stages_is_cropped_exactly():
    network, image = Pooling(), random_image(50, 50)
    assert (AdaptiveCropping(network, crop_size=16)(image) - network(image)).abs().max() <= 1e-6


class Blocks(SRNetwork):
    """Works in blocks of `multiple` px, each enlarged by repetition with its mean added; its reach is not known."""

    def __init__(self, *, multiple: int = 8) -> None:
        super().__init__()
        self.multiple = multiple

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(scale=2, size_multiple=self.multiple, min_size=self.multiple, receptive_radius=None)

    def forward(self, image: Tensor) -> Tensor:
        n, c, h, w = image.shape
        m = self.multiple
        means = image.view(n, c, h // m, m, w // m, m).mean((3, 5))
        enlarged = nn.functional.interpolate(image, scale_factor=2)
        return enlarged + nn.functional.interpolate(means, scale_factor=2 * m)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (50, 37)])
def test_a_network_of_unknown_reach_is_run_whole(size):
    image = random_image(*size)
    below, right = (-side % 8 for side in size)
    padded = nn.functional.pad(image, (0, right, 0, below), mode="replicate")
    expected = Blocks()(padded)[..., : 2 * size[0], : 2 * size[1]]
    assert torch.equal(AdaptiveCropping(Blocks())(image), expected)
    assert torch.equal(AdaptiveCropping(Blocks(), mode="whole")(image), expected)
    assert Blocks().segments() == []


def test_crops_that_cannot_be_are_said(caplog):
    with caplog.at_level(logging.WARNING, "imdn_kd"):
        AdaptiveCropping(Blocks(), crop_size=16)
    assert "no effect with a network that has no exact result in crops" in caplog.text


@pytest.mark.parametrize("multiple", [1, 3, 4, 7, 8, 16, 64])
@pytest.mark.parametrize("size", [(1, 1), (59, 61), (100, 75), (130, 64)])
def test_paper_mode_keeps_to_the_sizes_that_a_network_takes(multiple, size):
    image, seen = random_image(*size), []
    network = Blocks(multiple=multiple)
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    result = AdaptiveCropping(network, mode="paper")(image)
    assert result.shape[2:] == (2 * size[0], 2 * size[1])
    ((crops, _, height, width),) = seen
    assert (crops, height % multiple, width % multiple) == (4, 0, 0)
    # The means lie in [0, 1], so each px shows which px of the image it is of.
    difference = result - nn.functional.interpolate(image, scale_factor=2)
    assert difference.min() >= 0
    assert difference.max() <= 1


class Exhausting(Blocks):
    def forward(self, image: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: AdaptiveCropping(Blocks(), mode="local"), "inference.no-exact-crops"),
        (
            lambda: AdaptiveCropping(Foreign(), mode="local", info=ModelInfo(scale=2, receptive_radius=None)),
            "inference.no-exact-crops",
        ),
        (lambda: AdaptiveCropping(Exhausting())(torch.rand(1, 3, 8, 8)), "inference.out-of-memory"),
        (lambda: AdaptiveCropping(IMDN(), mode="tiles"), "inference.crop-mode"),
        (lambda: AdaptiveCropping(IMDN(), crop_size=0), "inference.crop-size"),
        (lambda: AdaptiveCropping(IMDN(), memory=0), "inference.memory"),
        (lambda: AdaptiveCropping(Foreign()), "model.no-info"),
        (
            lambda: AdaptiveCropping(Foreign(), info=ModelInfo(scale=2, global_pool_modules=("x",))),
            "inference.no-exact-crops",
        ),
        (lambda: AdaptiveCropping(IMDN())(torch.rand(3, 8, 8)), "image.shape"),
        (lambda: AdaptiveCropping(IMDN())(torch.rand(1, 3, 0, 8)), "image.shape"),
        (lambda: AdaptiveCropping(IMDN())(torch.rand(1, 1, 8, 8)), "image.channels-mismatch"),
    ],
)
def test_impossible_requests_are_one_line(make, code):
    with refused(code):
        make()


@settings(max_examples=30, deadline=None)
@given(size=sizes, cut=st.floats(0, 1), offset=st.floats(-1e3, 1e3))
def test_merged_statistics_equal_those_of_the_whole(size, cut, offset):
    x = torch.rand((1, 4, *size), dtype=torch.float64) + offset
    row = round(cut * size[0])
    merged = RunningStats()
    for part in (x[:, :, :row], x[:, :, row:]):
        if part.numel():
            merged.add(part.float())
    values = x.float().double().numpy()
    result = merged.result(torch.device("cpu"))
    # Of the size of what is added up: the mean itself may be next to 0.
    error = np.abs(result.mean[..., 0, 0].numpy() - values.mean((2, 3)))
    assert (error <= 1e-6 * np.abs(values).mean((2, 3))).all()
    np.testing.assert_allclose(result.std[..., 0, 0], values.std((2, 3)), rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 30), width=st.integers(1, 30), data=st.data())
def test_file_buffer_holds_what_is_written(tmp_path_factory, height, width, data):
    folder = tmp_path_factory.mktemp("scratch")
    values = torch.rand(1, 5, height, width)
    buffer = FileBuffer(5, height, width, torch.float32, torch.device("cpu"), folder)
    buffer.write(Box(0, 0, height, width), values)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width)))
    assert torch.equal(buffer.read(box), values[:, :, box.top : box.bottom, box.left : box.right])
    buffer.write(box, torch.zeros(1, 5, box.height, box.width))
    values[:, :, box.top : box.bottom, box.left : box.right] = 0
    assert torch.equal(buffer.read(Box(0, 0, height, width)), values)


def test_what_is_read_is_known_to_be_channels_last(tmp_path):
    box = Box(0, 0, 6, 5)
    scratch = FileBuffer(4, 6, 5, torch.float32, torch.device("cpu"), tmp_path)
    scratch.write(box, torch.rand(1, 4, 6, 5))
    for buffer in (scratch, PixelBuffer(np.zeros((6, 5, 4), np.uint8))):
        values = buffer.read(box)
        assert torch.cat((values, values), 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("white", [1.0, 255.0])
def test_pixel_buffer_round_trips_every_value(dtype, white):
    top = np.iinfo(dtype).max
    pixels = np.arange(top + 1, dtype=dtype).reshape(16, -1, 1)
    values = PixelBuffer(pixels, white=white).read(Box(0, 0, *pixels.shape[:2]))
    assert values.min() == 0
    assert values.max() == pytest.approx(white)
    again = np.zeros_like(pixels)
    PixelBuffer(again, white=white).write(Box(0, 0, *pixels.shape[:2]), values)
    assert (again == pixels).all()


def test_pixel_buffer_clamps_and_rounds():
    pixels = np.zeros((1, 4, 1), np.uint8)
    PixelBuffer(pixels).write(Box(0, 0, 1, 4), torch.tensor([-0.2, 1.7, 100.4 / 255, 100.6 / 255]).reshape(1, 1, 1, 4))
    assert pixels.ravel().tolist() == [0, 255, 100, 101]
