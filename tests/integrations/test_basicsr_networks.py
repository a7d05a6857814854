import copy
import inspect
import io
import json
import pickle
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from imdn_kd.archs import SRNetwork
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.integrations import basicsr_networks
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import import_basicsr, needs_basicsr
from tests.refused import refused

RGB = {"num_in_ch": 3, "num_out_ch": 3}
SWINIR = {"img_size": 16, "window_size": 8, "embed_dim": 8, "depths": [2], "num_heads": [2], "mlp_ratio": 2}

# Name of the case: where BasicSR defines the class, and its options.
NETWORKS = {
    "EDSR": ("edsr_arch", {**RGB, "num_feat": 8, "num_block": 1, "upscale": 2}),
    "RCAN": ("rcan_arch", {**RGB, "num_feat": 8, "num_group": 1, "num_block": 1, "squeeze_factor": 4, "upscale": 3}),
    "RRDBNet": ("rrdbnet_arch", {**RGB, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}),
    "RRDBNet x2": ("rrdbnet_arch", {**RGB, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}),
    "RRDBNet x1": ("rrdbnet_arch", {**RGB, "scale": 1, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}),
    "MSRResNet": ("srresnet_arch", {"num_feat": 8, "num_block": 1, "upscale": 4}),
    "MSRResNet grey": ("srresnet_arch", {"num_in_ch": 1, "num_out_ch": 1, "num_feat": 8, "num_block": 1, "upscale": 2}),
    "SwinIR": ("swinir_arch", {**SWINIR, "upsampler": "pixelshuffledirect", "upscale": 2}),
    "SwinIR 7": ("swinir_arch", {**SWINIR, "img_size": 14, "window_size": 7}),
    "ECBSR": (
        "ecbsr_arch",
        {**RGB, "num_block": 1, "num_channel": 8, "with_idt": True, "act_type": "prelu", "scale": 2},
    ),
    "SRVGGNetCompact": ("srvgg_arch", {"num_feat": 8, "num_conv": 2, "upscale": 2}),
}

# Scale, multiple of sides, smallest side.
INFO = {
    "EDSR": (2, 1, 1),
    "RCAN": (3, 1, 1),
    "RRDBNet": (4, 1, 1),
    "RRDBNet x2": (2, 2, 2),
    "RRDBNet x1": (1, 4, 4),
    "MSRResNet": (4, 1, 1),
    "MSRResNet grey": (2, 1, 1),
    "SwinIR": (2, 8, 8),
    "SwinIR 7": (1, 7, 7),
    "ECBSR": (2, 1, 1),
    "SRVGGNetCompact": (2, 1, 1),
}

every_network = pytest.mark.parametrize("case", NETWORKS)


def ours(case, seed=0) -> SRNetwork:
    torch.manual_seed(seed)
    return ARCHS.build({"type": case.split()[0], **NETWORKS[case][1]})


def theirs(case, seed=0):
    module, options = NETWORKS[case]
    torch.manual_seed(seed)
    return getattr(import_basicsr(f"basicsr.archs.{module}"), case.split()[0])(**options)


def picture(network, *size, seed=0):
    return torch.rand((1, network.info.num_in_ch, *size), generator=torch.Generator().manual_seed(seed))


@needs_basicsr
@every_network
def test_is_the_network_of_basicsr(case):
    network, expected = ours(case), theirs(case)
    assert isinstance(network, type(expected))
    assert [path for path, _ in network.named_modules()] == [path for path, _ in expected.named_modules()]
    state, expected_state = network.state_dict(), expected.state_dict()
    assert list(state) == list(expected_state)
    assert all(torch.equal(state[key], expected_state[key]) for key in state)

    other = theirs(case, seed=1)
    network.load_state_dict(other.state_dict())
    image = picture(network, 56, 112)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), other.eval()(image))


@needs_basicsr
@every_network
def test_info_is_true(case):
    network, expected = ours(case), theirs(case).eval()
    info = network.info
    assert (info.scale, info.size_multiple, info.min_size) == INFO[case]
    assert info.receptive_radius is None

    def works(height, width):
        try:
            with torch.no_grad():
                result = expected(picture(network, height, width))
        except (RuntimeError, AssertionError):
            return False
        return result.shape == (1, info.num_in_ch, info.scale * height, info.scale * width)

    for side in range(1, 2 * info.size_multiple + 3):
        fits = side >= info.min_size and side % info.size_multiple == 0
        assert works(side, 2 * info.min_size) == works(info.min_size, side) == fits, side


@needs_basicsr
def test_global_poolings_are_found():
    paths = ours("RCAN").info.global_pool_modules
    assert paths == ("body.0.residual_group.0.rcab.3.attention.0",)
    assert isinstance(theirs("RCAN").get_submodule(paths[0]), torch.nn.AdaptiveAvgPool2d)


@needs_basicsr
@every_network
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (13, 21)])
def test_images_of_any_size_are_enlarged(case, size):
    network, expected = ours(case), theirs(case).eval()
    scale, multiple, smallest = INFO[case]
    image = picture(network, *size)
    below, right = (max(smallest - side, -side % multiple) for side in size)
    with torch.no_grad():
        plain = expected(F.pad(image, (0, right, 0, below), mode="replicate"))
    result = Upscaler(network, device="cpu")(image)
    assert result.shape[2:] == (scale * size[0], scale * size[1])
    assert (result - plain[..., : result.shape[2], : result.shape[3]]).abs().max() <= 1e-5


@needs_basicsr
@every_network
def test_a_step_of_training_is_that_of_basicsr(case):
    states = []
    for network in (ours(case), theirs(case)):
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-3)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        torch.manual_seed(5)
        network(torch.rand(2, before[next(iter(before))].shape[1] if "grey" in case else 3, 56, 56)).mean().backward()
        optimizer.step()
        states.append(network.state_dict())
        assert any(not torch.equal(value, before[key]) for key, value in states[-1].items())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


@needs_basicsr
@every_network
def test_saving_and_loading(case, tmp_path):
    network = ours(case)
    save_model(tmp_path / "model.safetensors", ModelFile(network))
    again = load_model(tmp_path / "model.safetensors").network
    assert (type(again), again.spec, again.info) == (type(network), network.spec, network.info)
    assert json.loads(json.dumps(network.spec)) == network.spec
    image = picture(network, 56, 56)
    with torch.no_grad():
        assert torch.equal(again(image), network.eval()(image))


def by_torch(network):
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@needs_basicsr
@every_network
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), by_torch])
def test_copies_are_equal_and_apart(case, copied):
    network = ours(case).eval()
    again = copied(network)
    image = picture(network, 56, 56)
    with torch.no_grad():
        expected = network(image)
        assert torch.equal(again(image), expected)
        assert (again.spec, again.info, again.training) == (network.spec, network.info, False)
        for parameter in again.parameters():
            parameter.zero_()
        assert torch.equal(network(image), expected)


@needs_basicsr
def test_distributed_training(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = ours("SwinIR")
        wrapped = torch.nn.parallel.DistributedDataParallel(network)
        wrapped(picture(network, 16, 16)).mean().backward()
        assert network.conv_first.weight.grad.abs().sum() > 0
    finally:
        torch.distributed.destroy_process_group()


@needs_basicsr
@pytest.mark.parametrize("case", ["EDSR", "RRDBNet x2", "SwinIR"])
def test_bfloat16_stays_near_fp32(case):
    network = ours(case)
    image = picture(network, 24, 40)
    full, half = (Upscaler(network, device="cpu", precision=precision)(image) for precision in ("fp32", "bf16"))
    assert (half - full).abs().max() <= 0.02


@needs_basicsr
def test_all_that_basicsr_registers_is_a_network_for_images_or_refused():
    registered = [name for name, _ in import_basicsr("basicsr.utils.registry").ARCH_REGISTRY]
    usable = {"ECBSR", "EDSR", "MSRResNet", "RCAN", "RIDNet", "RRDBNet", "SRVGGNetCompact", "SwinIR"}
    assert set(basicsr_networks.names()) == usable
    others = [name for name in registered if name.removesuffix("_basicsr") not in usable]
    assert len(others) >= 15
    for name in others:
        with refused("model.not-super-resolution") as caught:
            ARCHS.build({"type": name})
        assert str(caught.value).startswith(f"{name} of BasicSR ")


@needs_basicsr
@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"type": "EDSR"}, "registry.missing-option"),
        ({"type": "EDSR", **RGB, "scale": 2}, "registry.unknown-option"),
        ({"type": "EDSR", **RGB, "upscale": 5}, "registry.invalid-value"),
        ({"type": "EDSR", "num_in_ch": 1, "num_out_ch": 1}, "model.not-super-resolution"),
        ({"type": "MSRResNet", "upscale": 8}, "registry.invalid-value"),
        (
            {"type": "RRDBNet", "num_in_ch": 4, "num_out_ch": 3, "num_feat": 4, "num_block": 1},
            "model.not-super-resolution",
        ),
        ({"type": "SRVGGNetCompact", "act_type": "gelu"}, "registry.invalid-value"),
        ({"type": "SwinIR"}, "registry.invalid-value"),  # 64 px are not a multiple of its window of 7 px
        ({"type": "SwinIR", "windowsize": 8}, "registry.unknown-option"),
        ({"type": "SwinIR", "norm_layer": "x"}, "registry.unknown-option"),
        ({"type": "SwinIR", **SWINIR, "img_size": 64, "ape": True}, "model.not-super-resolution"),
    ],
)
def test_impossible_options_are_one_line(spec, code):
    with refused(code) as caught:
        ARCHS.build(spec)
    assert "\n" not in str(caught.value)


@needs_basicsr
def test_the_name_in_the_registry_of_basicsr_is_meant_as_well():
    options = NETWORKS["SRVGGNetCompact"][1]
    networks = [ARCHS.build({"type": name, **options}) for name in ("SRVGGNetCompact", "SRVGGNetCompact_basicsr")]
    assert type(networks[0]) is type(networks[1])
    assert networks[0].spec == networks[1].spec


@needs_basicsr
def test_options_can_be_asked_for():
    assert list(inspect.signature(ARCHS.get("MSRResNet")).parameters) == [
        *("num_in_ch", "num_out_ch", "num_feat", "num_block", "upscale"),
    ]


@needs_basicsr
def test_what_a_project_registers_is_found(monkeypatch):
    registry = import_basicsr("basicsr.utils.registry").ARCH_REGISTRY

    class Doubler(torch.nn.Module):
        def __init__(self, gain=1.0):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(gain))

        def forward(self, x):
            return F.interpolate(self.gain * x, scale_factor=2)

    monkeypatch.setitem(registry._obj_map, "Doubler", Doubler)
    network = ARCHS.build({"type": "Doubler", "gain": 0.5})
    assert network.info.scale == 2
    assert network.spec == {"type": "Doubler", "gain": 0.5}
    assert torch.equal(network(torch.ones(1, 3, 2, 2)), torch.full((1, 3, 4, 4), 0.5))


def test_a_broken_basicsr_is_one_line_and_keeps_ours_usable(monkeypatch):
    def broken(name):
        raise OSError("libGL.so.1: cannot open shared object file\nmore")

    monkeypatch.setattr(basicsr_networks.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(basicsr_networks.importlib, "import_module", broken)
    assert basicsr_networks.find("EDSR") is None
    assert basicsr_networks.names() == []
    assert "libGL.so.1: cannot open shared object file more" in basicsr_networks.advice()
    assert "\n" not in basicsr_networks.advice()


@pytest.mark.processes
@needs_basicsr
def test_basicsr_is_imported_when_it_is_needed_and_quietly():
    code = (
        "import sys; from imdn_kd.integrations import basicsr_networks; before = set(sys.modules);"
        "names = basicsr_networks.names();"
        "print(*before & {'basicsr', 'torchvision', 'cv2'}, len(names))"
    )
    result = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("8\n", "")
