import io
import pickle
import random
import sys
import zipfile

import pytest
import torch

from imdn_kd.archs import IMDN, IMDN_RTC
from imdn_kd.archs.wrapping import wrap
from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.utils.extras import how_to_install
from tests.basicsr_compat import needs_basicsr
from tests.official import FILES, FOLDER, official
from tests.refused import refused
from tests.shared_data import needs_shared

VARIANTS = {
    "imdn": {"upscale": 3},
    "imdn_s": {"upscale": 1},
    "imdn_as": {},
    "imdn_rtc": {"upscale": 4},
    "imdn_rte": {},
    "IMDN": {"num_feat": 20, "num_block": 3, "distillation_rate": 0.3, "num_in_ch": 1, "upscale": 2},
    "IMDN_RTC": {"num_feat": 10, "num_block": 2, "distillation_rate": 0.4, "upscale": 3},
}


def fails(path, code, *words):
    with refused(code) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def same(a, b):
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)


@pytest.mark.parametrize("name", VARIANTS)
def test_safetensors_round_trip(name, tmp_path):
    network = ARCHS.build({"type": name, **VARIANTS[name]})
    path = tmp_path / "model.safetensors"
    model = ModelFile(network, value_range=255.0, training={"steps": 10, "psnr": 31.5}, card="# Card\nof a model")
    save_model(path, model)
    again = load_model(path)
    assert type(again.network) is type(network)
    assert again.network.spec == network.spec
    assert same(again.network, network)
    assert (again.value_range, again.training, again.card) == (255.0, model.training, model.card)
    assert not again.network.training


def test_half_precision_is_stored_small_and_read_as_fp32(tmp_path):
    network = IMDN(upscale=2)
    save_model(tmp_path / "full.safetensors", ModelFile(network))
    save_model(tmp_path / "half.safetensors", ModelFile(network), dtype=torch.float16)
    full, half = ((tmp_path / name).stat().st_size for name in ("full.safetensors", "half.safetensors"))
    assert half < 0.55 * full
    again = load_model(tmp_path / "half.safetensors").network.state_dict()
    assert all(value.dtype == torch.float32 for value in again.values())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("wrapper", [None, "params", "params_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_and_basicsr_checkpoints_are_recognised(name, wrapper, prefix, tmp_path):
    network = ARCHS.build({"type": name, **VARIANTS[name]})
    weights = {prefix + key: value for key, value in network.state_dict().items()}
    content = {wrapper: weights, "iter": 7} if wrapper else weights
    torch.save(content, tmp_path / "model.pth")
    again = load_model(tmp_path / "model.pth").network
    assert again.spec == network.spec
    assert same(again, network)


def test_averaged_weights_come_before_others(tmp_path):
    plain, averaged = IMDN_RTC(), IMDN_RTC()
    torch.save({"params": plain.state_dict(), "params_ema": averaged.state_dict()}, tmp_path / "model.pth")
    assert same(load_model(tmp_path / "model.pth").network, averaged)


@needs_shared
@pytest.mark.parametrize("name", FILES)
def test_official_checkpoints_are_recognised_by_content(name, tmp_path):
    model = official(name)
    assert model.network.spec["type"] == name.split("_x")[0]
    if "_x" in name:
        assert model.network.info.scale == int(name[-1])
    assert model.value_range == (255.0 if name == "IMDN_RTE" else 1.0)
    renamed = tmp_path / "whatever.bin"
    renamed.write_bytes((FOLDER / FILES[name]).read_bytes())
    assert load_model(renamed).network.spec == model.network.spec


def test_missing_file_and_folder(tmp_path):
    fails(tmp_path / "none.pth", "zoo.not-found", "no such model file")
    fails(tmp_path, "model.cannot-read", "directory")


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zip_of_text() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "model.not-a-model-file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "model.not-a-model-file"),
        (b"just some text that is long enough", "model.not-a-model-file"),
        (pickle.dumps({"a": 1}), "model.not-a-model-file"),
        (saved(print), "model.holds-code"),
        (saved(torch.nn.Linear(2, 2)), "model.holds-code"),
        (saved([1, 2]), "model.no-weights"),
        (saved({}), "model.no-weights"),
        (saved({"epoch": 3, "lr": 0.1}), "model.no-weights"),
        (saved({"params": 3}), "model.no-weights"),
        (saved({"params": {"a": "b"}}), "model.no-weights"),
        (saved({"a.weight": torch.zeros(2)}), "model.unknown"),
        (saved({"fea_conv.weight": torch.zeros(2)}), "model.unknown"),
        (zip_of_text(), "model.not-a-model-file"),
    ],
)
def test_what_is_not_a_model_is_one_line(content, code, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    fails(path, code)


def test_wrong_tensors_are_named(tmp_path):
    path = tmp_path / "model.pth"
    weights = IMDN_RTC().state_dict()
    torch.save({key: value for key, value in weights.items() if key != "model.1.sub.2.c3.bias"}, path)
    fails(path, "model.misfit", "model.1.sub.2.c3.bias is missing")
    torch.save({**weights, "extra": torch.zeros(1)}, path)
    fails(path, "model.misfit", "does not have: extra")
    torch.save({**weights, "model.0.bias": torch.zeros(5)}, path)
    fails(path, "model.misfit", "model.0.bias is (5,), not (12,)")
    torch.save({**weights, "model.0.bias": torch.full((12,), float("nan"))}, path)
    fails(path, "model.not-finite")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"architecture": "{"}, "model.bad-metadata"),
        ({"architecture": '{"type": "Other"}'}, "registry.unknown-name"),
        ({"architecture": "3"}, "model.bad-metadata"),
        ({"architecture": '{"type": "IMDN_RTC", "num_in_ch": -3}'}, "registry.invalid-value"),
        ({"architecture": '{"type": "IMDN_RTC", "num_feat": "abc"}'}, "registry.invalid-value"),
        ({"architecture": '{"type": "IMDN_RTC"}', "value_range": "nan"}, "model.bad-metadata"),
        ({"architecture": '{"type": "IMDN_RTC"}', "value_range": "0"}, "model.bad-metadata"),
    ],
)
def test_unusable_metadata_is_one_line(metadata, code, tmp_path):
    from safetensors.torch import save_file

    save_file(IMDN_RTC().state_dict(), tmp_path / "model.safetensors", metadata=metadata)
    fails(tmp_path / "model.safetensors", code, "metadata cannot be used")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_give_a_line_or_a_model(suffix, tmp_path):
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    if suffix == ".pth":
        torch.save(IMDN_RTC().state_dict(), good)
    else:
        save_model(good, ModelFile(IMDN_RTC()))
    content, rng = good.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(content[: rng.choice([len(content), rng.randrange(len(content))])])
        for _ in range(3):
            if damaged:
                damaged[rng.randrange(min(len(damaged), 3000))] ^= rng.randrange(1, 256)
        bad.write_bytes(damaged)
        try:
            load_model(bad)
        except InputError as error:
            assert "\n" not in str(error)


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_model(path, ModelFile(IMDN_RTC()))
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imdn_kd.inference.model_file.save", fail)
    with refused("file.cannot-write"):
        save_model(path, ModelFile(IMDN(upscale=2)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2}


@needs_basicsr
def test_a_network_of_basicsr_round_trips(tmp_path):
    path = tmp_path / "model.safetensors"
    network = ARCHS.build(EDSR)
    save_model(path, ModelFile(network))
    again = load_model(path).network
    assert type(again) is type(network)
    assert again.spec == network.spec
    assert same(again, network)


@needs_basicsr
def test_whole_numbers_are_not_stored_in_half_precision(tmp_path):
    # Positions in the table of relative positions: bfloat16 has not all whole numbers beyond 256.
    swinir = {"type": "SwinIR", "img_size": 16, "window_size": 16, "embed_dim": 4, "depths": [1], "num_heads": [1]}
    network = ARCHS.build(swinir)
    save_model(tmp_path / "model.safetensors", ModelFile(network), dtype=torch.bfloat16)
    again = load_model(tmp_path / "model.safetensors").network
    key = "layers.0.residual_group.blocks.0.attn.relative_position_index"
    assert network.state_dict()[key].max() > 256
    assert torch.equal(again.state_dict()[key], network.state_dict()[key])


@needs_basicsr
def test_a_network_of_basicsr_is_the_expected_one_or_not(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, ModelFile(ARCHS.build(EDSR)))
    load_model(path, EDSR)
    load_model(path, {**EDSR, "rgb_mean": [0.4488, 0.4371, 0.4040]})
    for other in ({**EDSR, "num_feat": 16}, {"type": "imdn"}):
        with refused("model.other-network"):
            load_model(path, other)
    # SwinIR reads numbers of tensors while it is built.
    swinir = {"type": "SwinIR", "img_size": 8, "window_size": 4, "embed_dim": 8, "depths": [2], "num_heads": [2]}
    save_model(path, ModelFile(ARCHS.build(swinir)))
    load_model(path, swinir)


def test_a_file_of_a_network_that_needs_basicsr_says_so_without_it(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"architecture": '{"type": "EDSR"}'})
    monkeypatch.setitem(sys.modules, "basicsr", None)
    advice = how_to_install("train"), "Python below 3.13"
    fails(path, "registry.unknown-name", "no network is called 'EDSR'", *advice)


@needs_basicsr
def test_plain_weights_of_basicsr_are_loaded_as_the_network_that_is_named(tmp_path):
    path, network = tmp_path / "model.pth", ARCHS.build(EDSR)
    weights = network.state_dict()
    torch.save({"params": {key: value + 1 for key, value in weights.items()}, "params_ema": weights}, path)
    assert same(load_model(path, EDSR).network, network)
    assert not same(load_model(path, EDSR, key="params").network, network)
    assert not load_model(path, EDSR).network.training
    with refused("model.unknown") as caught:
        load_model(path)
    assert "--arch" in str(caught.value)
    with refused("model.misfit"):
        load_model(path, {**EDSR, "num_feat": 16})


def test_a_wrapped_module_that_nothing_builds_again_is_not_saved(tmp_path):
    with refused("model.not-registered"):
        save_model(tmp_path / "model.safetensors", ModelFile(wrap(torch.nn.Upsample(scale_factor=2))))
    assert not list(tmp_path.iterdir())
