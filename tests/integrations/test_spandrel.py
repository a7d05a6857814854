import copy
import importlib
import importlib.util
import io
import json
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.integrations import spandrel as ours
from imdn_kd.integrations.spandrel import load_spandrel
from imdn_kd.registry import ARCHS
from imdn_kd.utils.extras import how_to_install
from tests.refused import refused
from tests.shared_data import SHARED, needs_shared, set5_pairs

INSTALLED = importlib.util.find_spec("spandrel") is not None

needs_spandrel = pytest.mark.skipif(not INSTALLED, reason="spandrel is not installed")

SWIN = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2, "upscale": 2}
DAT = {"embed_dim": 32, "split_size": [2, 4], "depth": [2], "num_heads": [2], "expansion_factor": 2, "upscale": 2}

# Name of the architecture and the class in it, and its options.
NETWORKS = {
    "DAT": {"img_size": 64, **DAT},
    "SAFMN": {"dim": 8, "n_blocks": 2, "upscaling_factor": 3},
    "SwinIR": {"img_size": 16, **SWIN, "upsampler": "pixelshuffledirect"},
    "RCAN": {"scale": 2, "n_resgroups": 2, "n_resblocks": 1, "n_feats": 8, "reduction": 4},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
    "Compact": {"num_feat": 8, "num_conv": 2, "upscale": 2},
    "ESRGAN": {"num_filters": 8, "num_blocks": 2, "scale": 4},
    "OmniSR": {"num_feat": 8, "block_num": 1, "res_num": 2, "up_scale": 2},
}

# Scale, multiple of sides, smallest side.
INFO = {"DAT": (2, 1, 16), "SAFMN": (3, 8, 8), "SwinIR": (2, 1, 16), "RCAN": (2, 1, 1), "SPAN": (2, 1, 1)}


def theirs(name, **more) -> nn.Module:
    """A small network of spandrel with random weights."""
    pytest.importorskip("spandrel")
    torch.manual_seed(0)
    module = importlib.import_module(f"spandrel.architectures.{name}")
    return getattr(module, name)(**NETWORKS.get(name, {}), **more).eval()


def loaded(name, folder) -> SRNetwork:
    """The same network as one of ours, from a file."""
    torch.save({"params_ema": theirs(name).state_dict()}, folder / f"{name}.pth")
    return load_spandrel(folder / f"{name}.pth")


def picture(height, width, channels=3):
    return torch.rand((1, channels, height, width), generator=torch.Generator().manual_seed(0))


def message_of(call, code):
    with refused(code) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@needs_spandrel
@pytest.mark.parametrize("name", INFO)
def test_is_the_network_of_spandrel_with_its_info(name, tmp_path):
    network, expected = loaded(name, tmp_path), theirs(name)
    info = network.info
    assert (info.scale, info.size_multiple, info.min_size, info.receptive_radius) == (*INFO[name], None)
    assert isinstance(network, type(expected))
    assert not network.training
    assert [path for path, _ in network.named_modules()] == [path for path, _ in expected.named_modules()]
    assert list(network.state_dict()) == list(expected.state_dict())
    assert json.loads(json.dumps(network.spec)) == network.spec
    image = picture(24, 32)
    with torch.no_grad():
        result = network(image)
        assert torch.equal(result, expected(image.clone()))
    assert torch.equal(image, picture(24, 32))  # RCAN of spandrel changes its input
    assert result.shape == (1, 3, 24 * info.scale, 32 * info.scale)


@needs_spandrel
@pytest.mark.parametrize("name", ["DAT", "SAFMN"])
def test_images_of_any_size_are_enlarged(name, tmp_path):
    network = loaded(name, tmp_path)
    for size in ((3, 2), (19, 21)):
        result = Upscaler(network, device="cpu")(picture(*size))
        assert result.shape[2:] == (network.info.scale * size[0], network.info.scale * size[1])


@needs_spandrel
@pytest.mark.parametrize("name", ["DAT", "SAFMN", "SwinIR"])
def test_bfloat16_stays_near_fp32(name, tmp_path):
    network = loaded(name, tmp_path)
    image = picture(24, 24)
    full, half = (Upscaler(network, device="cpu", precision=precision)(image) for precision in ("fp32", "bf16"))
    assert 0 < (half - full).abs().max() <= 0.02


@needs_spandrel
def test_it_can_be_trained(tmp_path):
    network = loaded("DAT", tmp_path).train()
    network(torch.rand(2, 3, 16, 16)).mean().backward()
    assert network.conv_first.weight.grad.abs().sum() > 0


def by_torch(network):
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@needs_spandrel
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), by_torch])
def test_copies_are_equal_and_apart(copied, tmp_path):
    network = loaded("SAFMN", tmp_path)
    again, image = copied(network), picture(16, 16)
    with torch.no_grad():
        expected = network(image)
        assert torch.equal(again(image), expected)
        assert (type(again), again.spec, again.info) == (type(network), network.spec, network.info)
        again.to_feat.weight.zero_()
        assert torch.equal(network(image), expected)


@needs_spandrel
def test_the_set_of_weights_can_be_chosen(tmp_path):
    weights = theirs("SAFMN").state_dict()
    changed = {key: value + 1 for key, value in weights.items()}
    torch.save({"params": changed, "params_ema": weights, "mine": changed}, tmp_path / "a.pth")
    assert torch.equal(load_spandrel(tmp_path / "a.pth").to_feat.bias, weights["to_feat.bias"])
    assert torch.equal(load_spandrel(tmp_path / "a.pth", "mine").to_feat.bias, changed["to_feat.bias"])


@needs_spandrel
@needs_shared
def test_dat_light_without_its_buffers_is_loaded():
    network = load_spandrel(SHARED / "weights" / "teachers" / "DAT_light_x4_params.pth")
    info = network.info
    assert (info.scale, info.size_multiple, info.min_size, info.num_in_ch) == (4, 1, 16, 3)
    # Measured when the whole of Set5 gave the 32.571 dB of data/README.md; with windows of 8x16 it is 27.307 dB.
    hr, lr = set5_pairs(4)[2]
    part = torch.from_numpy(lr[:32, :40]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        error = network(part)[0].permute(1, 2, 0) * 255 - torch.from_numpy(hr[:128, :160])
    assert 10 * torch.log10(255**2 / error[16:-16, 16:-16].square().mean()).item() == pytest.approx(27.291, abs=0.003)


def small_dat(path):
    torch.save({k: v for k, v in theirs("DAT").state_dict().items() if "attns.0.r" not in k}, path)


def incomplete(path):
    weights = theirs("SAFMN").state_dict()
    del weights["feats.1.norm1.bias"]
    torch.save(weights, path)


def damaged(path):
    weights = theirs("SAFMN").state_dict()
    weights["to_feat.bias"][0] = torch.nan
    torch.save(weights, path)


@needs_spandrel
@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda path: torch.save({"a.weight": torch.ones(2)}, path), "model.unknown"),
        (lambda path: torch.save({"model": 3}, path), "model.no-weights"),
        (lambda path: path.write_text("hello"), "model.not-a-model-file"),
        (lambda path: None, "model.cannot-read"),
        (small_dat, "model.misfit"),
        (incomplete, "model.misfit"),
        (damaged, "model.not-finite"),
        (lambda path: torch.save(theirs("DRUNet").state_dict(), path), "model.not-super-resolution"),
        (
            lambda path: torch.save(theirs("OmniSR", num_in_ch=4, num_out_ch=3).state_dict(), path),
            "model.not-super-resolution",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(write, code, tmp_path):
    write(tmp_path / "file.pth")
    message = message_of(lambda: load_spandrel(tmp_path / "file.pth"), code)
    assert message.startswith(f"{tmp_path / 'file.pth'}: ")


@needs_spandrel
@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("DnCNN", 1, {}),
        ("NAFNet", 3, {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    ],
)
def test_networks_that_restore_images_are_networks_of_scale_1(name, channels, options, tmp_path):
    expected = theirs(name, **options)
    torch.save(expected.state_dict(), tmp_path / "file.pth")
    network = load_spandrel(tmp_path / "file.pth")
    assert (network.info.scale, network.info.num_in_ch) == (1, channels)
    image = picture(24, 20, channels)
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected(image))


@needs_spandrel
@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda model, image: model(image) * 0.5 + 0.5, "model.not-super-resolution"),
        (lambda model, image: model(image), None),
    ],
)
def test_networks_that_spandrel_calls_in_a_way_of_its_own_are_refused(call, code, tmp_path, monkeypatch):
    from spandrel import ImageModelDescriptor

    init = ImageModelDescriptor.__init__
    monkeypatch.setattr(ImageModelDescriptor, "__init__", lambda *a, **k: init(*a, **{**k, "call_fn": call}))
    if code:
        message_of(lambda: loaded("SAFMN", tmp_path), code)
    else:
        loaded("SAFMN", tmp_path)


@needs_spandrel
def test_networks_that_make_something_else_of_an_image_are_refused(tmp_path, monkeypatch):
    architecture = importlib.import_module("spandrel.architectures.SAFMN").SAFMN
    monkeypatch.setattr(architecture, "forward", lambda self, x: (x, x))
    torch.save(theirs("SAFMN").state_dict(), tmp_path / "file.pth")
    message_of(lambda: load_spandrel(tmp_path / "file.pth"), "model.not-super-resolution")


@needs_spandrel
@pytest.mark.parametrize("name", ["SPAN", "SAFMN", "Compact"])
def test_its_networks_are_built_by_type(name, tmp_path):
    network = ARCHS.build({"type": f"spandrel/{name}", **NETWORKS[name]})
    image = picture(16, 16)
    assert type(network).__bases__[1] is type(theirs(name))
    assert network(image).shape[2] == network.info.scale * 16
    network.eval()
    save_model(tmp_path / "a.safetensors", ModelFile(network))
    again = load_model(tmp_path / "a.safetensors").network
    with torch.no_grad():
        assert torch.equal(again(image), network(image))
    assert again.spec == network.spec


@needs_spandrel
def test_a_checkpoint_of_spandrel_is_a_model_like_any_other(tmp_path):
    network = loaded("SAFMN", tmp_path)
    found = load_model(tmp_path / "SAFMN.pth").network
    assert (type(found), found.spec) == (type(network), network.spec)
    save_model(tmp_path / "a.safetensors", ModelFile(network))
    assert load_model(tmp_path / "a.safetensors").network.spec == network.spec


@needs_spandrel
@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"type": "spandrel/SPAM"}, "registry.unknown-name"),
        ({"type": "spandrel/../os"}, "registry.unknown-name"),
        ({"type": "spandrel/SPANArch"}, "registry.unknown-name"),
        ({"type": "spandrel/SPAN", "num_in_ch": 3, "num_out_ch": 3, "depth": 2}, "registry.unknown-option"),
        ({"type": "spandrel/SPAN"}, "registry.missing-option"),
        ({"type": "spandrel/SAFMN", "dim": "wide"}, "registry.invalid-value"),
    ],
)
def test_what_cannot_be_built_by_type_is_refused(spec, code):
    with refused(code):
        ARCHS.build(spec)


def test_without_spandrel_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None)
    assert how_to_install("train") in message_of(lambda: load_spandrel(tmp_path / "a.pth"), "model.needs-spandrel")


def test_a_broken_spandrel_is_one_line(monkeypatch, tmp_path):
    def broken(name):
        raise OSError("libGL.so.1: cannot open\nmore")

    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(ours.importlib, "import_module", broken)
    message = message_of(lambda: load_spandrel(tmp_path / "a.pth"), "model.needs-spandrel")
    assert "importing it fails (OSError: libGL.so.1: cannot open more)" in message


@pytest.mark.processes
def test_spandrel_is_not_imported_before_it_is_needed():
    code = "import sys, imdn_kd.integrations.spandrel; print(*{'spandrel', 'torchvision', 'einops'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
