import copy
import gc
import pickle
import weakref

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel

from imdn_kd.distill.hooks import FeatureHooks
from imdn_kd.errors import InputError
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import needs_basicsr
from tests.integrations.test_spandrel import loaded, needs_spandrel
from tests.reference.imdn import act, cca, conv, imdb
from tests.refused import refused

RGB = {"num_in_ch": 3, "num_out_ch": 3}


def build(**spec):
    torch.manual_seed(0)
    return ARCHS.build(spec).eval()


def imdn():
    return build(type="IMDN", num_feat=16, num_block=2, upscale=2)


def picture(height=9, width=14, batch=2):
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(1))


def record(network, names, image, *, probe=True):
    taps = FeatureHooks(network, names)
    if probe:
        taps.probe(image[:1])
    with taps.recording() as features:
        network(image)
    taps.remove()
    return features


def without_in_place(network):
    """A copy whose activations make new tensors."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return network


def tokens_to_map(tokens, height, width):
    """By the definition: position i of the sequence is row i // W, column i % W."""
    rows = [torch.stack([tokens[:, row * width + column] for column in range(width)], -1) for row in range(height)]
    return torch.stack(rows, -2)


def assert_features(network, expected, image):
    """Hooks give what was computed by hand, and the network gives the same with them as without."""
    plain = network(image)
    features = record(network, list(expected), image)
    assert set(features) == set(expected)
    for name, value in expected.items():
        assert features[name].shape == value.shape, name
        assert torch.allclose(features[name], value, rtol=1e-5, atol=1e-6 * float(value.abs().max())), name
    assert torch.equal(network(image), plain)


@torch.no_grad()
def test_features_of_imdn_are_those_of_the_formulas():
    network, image = imdn(), picture()
    w = network.state_dict()
    head = conv(image, w, "fea_conv")
    first = imdb(head, w, "IMDB1", attention=True)
    second = imdb(first, w, "IMDB2", attention=True)
    kept1 = conv(first, w, "IMDB2.c1")
    kept2 = conv(act(kept1)[:, 4:], w, "IMDB2.c2")
    kept3 = conv(act(kept2)[:, 4:], w, "IMDB2.c3")
    last = conv(act(kept3)[:, 4:], w, "IMDB2.c4")
    distilled = torch.cat([act(kept1)[:, :4], act(kept2)[:, :4], act(kept3)[:, :4], last], 1)
    fused = conv(torch.cat([first, second], 1), w, "c.0")
    body = conv(act(fused), w, "LR_conv")
    expected = {
        "fea_conv": head,
        "IMDB1": first,
        "IMDB2": second,
        "IMDB2.c1": kept1,
        "IMDB2.c2": kept2,
        "IMDB2.c3": kept3,
        "IMDB2.act@0:input": kept1,
        "IMDB2.act@0": act(kept1),
        "IMDB2.act@2": act(kept3),
        "IMDB2.c2:input": act(kept1)[:, 4:],
        "IMDB2.cca:input": distilled,
        "IMDB2.cca": cca(distilled, w, "IMDB2.cca"),
        "c.0": fused,
        "c": act(fused),
        "LR_conv": body,
        "upsampler:input": body + head,
        ":input": image,
        "sr": network(image),
        "": network(image),
    }
    assert_features(network, expected, image)


@torch.no_grad()
def test_features_of_imdn_rtc_are_those_of_the_formulas():
    network, image = build(type="IMDN_RTC", num_block=2), picture()
    w = network.state_dict()
    head = conv(image, w, "model.0")
    first = imdb(head, w, "model.1.sub.0", attention=False)
    second = imdb(first, w, "model.1.sub.1", attention=False)
    end = conv(second, w, "model.1.sub.2")
    expected = {
        "model.0": head,
        "model.1.sub.0": first,
        "model.1.sub.0.c1": conv(head, w, "model.1.sub.0.c1"),
        "model.1.sub.1": second,
        "model.1.sub.2": end,
        "model.1": head + end,
        "sr": network(image),
    }
    assert_features(network, expected, image)


@needs_basicsr
@torch.no_grad()
def test_features_of_edsr_and_rcan():
    edsr = build(type="EDSR", **RGB, num_feat=8, num_block=2, upscale=2)
    rcan = build(type="RCAN", **RGB, num_feat=8, num_group=2, num_block=1, squeeze_factor=4, upscale=2)
    image = picture()
    for network in (edsr, rcan):
        hand = without_in_place(network)
        head = hand.conv_first((image - hand.mean) * hand.img_range)
        first = hand.body[0](head)
        second = hand.body[1](first)
        body = hand.conv_after_body(second)
        expected = {
            "conv_first": head,
            "body.0": first,
            "body.1": second,
            "body": second,
            "conv_after_body": body,
            "upsample:input": body + head,
            "sr": network(image),
        }
        # Its activation changes it in place.
        inner = "body.0.conv1" if network is edsr else "body.0.residual_group.0.rcab.0"
        expected[inner] = hand.get_submodule(inner)(head)
        assert_features(network, expected, image)


@needs_basicsr
@torch.no_grad()
def test_features_of_rrdbnet():
    network, image = build(type="RRDBNet", **RGB, num_feat=8, num_block=2, num_grow_ch=4), picture()
    hand = without_in_place(network)
    head = hand.conv_first(image)
    first = hand.body[0](head)
    body = hand.conv_body(hand.body[1](first))
    enlarged = hand.conv_up1(F.interpolate(head + body, scale_factor=2))
    expected = {
        "body.0": first,
        "body.0.rdb1.conv1": hand.body[0].rdb1.conv1(head),
        "conv_body": body,
        "conv_up1": enlarged,
        "lrelu@0": F.leaky_relu(enlarged, 0.2),
    }
    assert_features(network, expected, image)


SWINIR = {"img_size": 16, "window_size": 8, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "mlp_ratio": 2}


@needs_basicsr
@torch.no_grad()
def test_features_of_swinir_are_maps():
    network, image = build(type="SwinIR", **SWINIR, upsampler="pixelshuffledirect", upscale=2), picture(16, 24)
    size = (16, 24)
    head = network.conv_first(image - network.mean)
    tokens = network.patch_embed(head)
    first = network.layers[0](tokens, size)
    second = network.layers[1](first, size)
    normed = network.norm(second)
    block = network.layers[0].residual_group.blocks[0]
    expected = {
        "conv_first": head,
        "patch_embed": tokens_to_map(tokens, *size),
        "layers.0": tokens_to_map(first, *size),
        "layers.1:input": tokens_to_map(first, *size),
        "layers.1": tokens_to_map(second, *size),
        "layers.0.residual_group.blocks.0.norm1": tokens_to_map(block.norm1(tokens), *size),
        "norm": tokens_to_map(normed, *size),
        "conv_after_body": network.conv_after_body(tokens_to_map(normed, *size)),
    }
    assert_features(network, expected, image)
    # Without a dry run, too, since this network pads nothing.
    assert torch.equal(record(network, ["norm"], image, probe=False)["norm"], record(network, ["norm"], image)["norm"])


@needs_spandrel
@torch.no_grad()
def test_features_of_a_network_that_pads_its_input(tmp_path):
    network, image, size = loaded("SwinIR", tmp_path), picture(13, 21), (16, 24)
    padded = F.pad(image, (0, 3, 0, 3), mode="reflect")
    tokens = network.patch_embed(network.conv_first(padded - network.mean))
    first = network.layers[0](tokens, size)
    normed = network.norm(network.layers[1](first, size))
    expected = {"layers.0": tokens_to_map(first, *size), "norm": tokens_to_map(normed, *size)}
    assert_features(network, expected, image)
    # The size of the dry run is not kept.
    taps = FeatureHooks(network, ["norm"])
    taps.probe(picture(40, 17, batch=1))
    with taps.recording() as features:
        network(image)
    assert torch.allclose(features["norm"], expected["norm"], atol=1e-6)


@needs_spandrel
@torch.no_grad()
def test_features_of_dat_are_maps(tmp_path):
    network, image, size = loaded("DAT", tmp_path), picture(17, 20), (17, 20)
    head = network.conv_first(image - network.mean)
    tokens = network.before_RG(head)
    layer = network.layers[0]
    first = layer.blocks[0](tokens, size)
    attention = layer.blocks[1].attn(layer.blocks[1].norm1(first), *size)
    expected = {
        "conv_first": head,
        "before_RG": tokens_to_map(tokens, *size),
        "layers.0.blocks.0": tokens_to_map(first, *size),
        "layers.0.blocks.1.norm1": tokens_to_map(layer.blocks[1].norm1(first), *size),
        "layers.0.blocks.1.attn": tokens_to_map(attention, *size),
        "layers.0": tokens_to_map(layer(tokens, size), *size),
        "conv_after_body": network.conv_after_body(network.forward_features(head)),
    }
    assert_features(network, expected, image)


@needs_spandrel
@torch.no_grad()
def test_features_of_safmn_rcan_and_span(tmp_path):
    image = picture(16, 24)
    safmn = loaded("SAFMN", tmp_path)
    head = safmn.to_feat(image)
    first = safmn.feats[0](head)
    assert_features(safmn, {"to_feat": head, "feats.0": first, "feats": safmn.feats[1](first)}, image)

    rcan = loaded("RCAN", tmp_path)
    head = rcan.head(rcan.sub_mean(image * 255))
    hand = without_in_place(rcan)
    assert_features(rcan, {"head": head, "body.0": hand.body[0](head), "body": hand.body(head)}, image)

    # Its blocks return three tensors.
    span = loaded("SPAN", tmp_path)
    first = span.block_1(span.conv_1((image - span.mean) * span.img_range))[0]
    assert_features(span, {"block_1": first, "block_2": span.block_2(first)[0]}, image)


def test_the_dry_run_reports_shapes_ranges_and_copies():
    network, image = imdn(), picture()
    reports = FeatureHooks(network, ["IMDB2.c1", "c", "sr"]).probe(image)
    w = network.state_dict()
    block = imdb(conv(image, w, "fea_conv"), w, "IMDB1", attention=True)
    before = conv(block, w, "IMDB2.c1")
    assert [(report.name, report.path, report.shape, report.copied) for report in reports] == [
        ("IMDB2.c1", "IMDB2.c1", (2, 16, 9, 14), True),
        ("c", "c", (2, 16, 9, 14), False),
        ("sr", "", (2, 3, 18, 28), False),
    ]
    assert reports[0].minimum == pytest.approx(before.min().item(), rel=1e-5)
    assert reports[0].maximum == pytest.approx(before.max().item(), rel=1e-5)


class Restless(nn.Module):
    """Has whatever a run can change: random numbers, statistics, a tensor that it puts in another's place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout()
        self.register_buffer("count", torch.zeros(()))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.pooled_norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return self.drop(self.norm(x)) + self.pooled_norm(self.pool(x))


@pytest.mark.parametrize("training", [True, False])
def test_the_dry_run_leaves_everything_as_it_was(training):
    network = Restless().train(training)
    network.norm.eval()
    buffers = dict(network.named_buffers())
    state = copy.deepcopy(network.state_dict())
    generator = torch.get_rng_state()
    FeatureHooks(network, ["norm", "drop"]).probe(picture(batch=1))
    assert {key: id(value) for key, value in network.named_buffers()} == {k: id(v) for k, v in buffers.items()}
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert (network.training, network.drop.training, network.norm.training) == (training, training, False)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert set(map(len, (m._forward_hooks for m in network.modules() if m is network.pool))) == {0}


class ChangesInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.training:
            y += x
        return y


def test_what_is_changed_in_place_in_training_alone_is_found():
    network, image = ChangesInTraining().train(), picture()
    assert FeatureHooks(network, ["conv"]).probe(image)[0].copied
    assert not FeatureHooks(network.eval(), ["conv"]).probe(image)[0].copied
    features = record(network.train(), ["conv"], image)
    assert torch.equal(features["conv"], network.conv(image))


def test_a_change_in_place_that_was_not_foreseen_is_an_error():
    network = imdn()
    taps = FeatureHooks(network, ["IMDB1", "IMDB2.c1"])
    assert code_of(lambda: run(taps, network)) == "hooks.not-probed"
    taps.probe(picture())
    run(taps, network)


def test_a_result_that_is_changed_within_the_recording_is_an_error():
    network = imdn()
    taps = FeatureHooks(network, ["sr"])
    taps.probe(picture())

    def clamp():
        with torch.no_grad(), taps.recording():
            network(picture()).clamp_(0, 1)

    assert code_of(clamp) == "hooks.not-probed"


def test_gradients_go_through_features():
    network, image = imdn().train(), picture()
    features = record(network, ["IMDB2.c1", "IMDB1"], image)
    (features["IMDB2.c1"].square().mean() + features["IMDB1"].mean()).backward()
    w = {key: value.detach().clone().requires_grad_() for key, value in network.state_dict().items()}
    first = imdb(conv(image, w, "fea_conv"), w, "IMDB1", attention=True)
    (conv(first, w, "IMDB2.c1").square().mean() + first.mean()).backward()
    for key, parameter in network.named_parameters():
        expected = w[key].grad
        assert (parameter.grad is None) == (expected is None), key
        if expected is not None:
            assert torch.allclose(parameter.grad, expected, rtol=1e-4, atol=1e-7), key


def test_the_gradient_of_the_result_is_that_without_taps():
    gradients = []
    for tapped in (False, True):
        network = imdn().train()
        if tapped:
            taps = FeatureHooks(network, ["IMDB*.c1", "c.0"])
            taps.probe(picture())
            with taps.recording():
                sr = network(picture())
        else:
            sr = network(picture())
        sr.square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(map(torch.equal, *gradients))


def test_nothing_is_recorded_outside_and_nothing_is_kept():
    network = imdn()
    taps = FeatureHooks(network, ["IMDB1"])
    with taps.recording() as features:
        network(picture())
    reference = weakref.ref(features["IMDB1"])
    recorded = features["IMDB1"].clone()
    network(picture() / 2)
    assert torch.equal(features["IMDB1"], recorded)
    del features
    gc.collect()
    assert reference() is None


def test_each_recording_has_features_of_its_own():
    network = imdn()
    taps = FeatureHooks(network, ["IMDB1"])
    both = []
    for factor in (1, 2):
        with taps.recording() as features:
            network(factor * picture())
        both.append(features["IMDB1"])
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_a_run_that_fails_ends_the_recording():
    network = imdn()
    taps = FeatureHooks(network, ["IMDB1"])
    with pytest.raises(RuntimeError, match="expected input"), taps.recording():
        network(torch.rand(1, 5, 8, 8))
    run(taps, network)


def test_taps_can_be_removed():
    network = imdn()
    taps = FeatureHooks(network, ["IMDB*", "c:input"])
    taps.probe(picture())
    taps.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert code_of(lambda: run(taps, network)) == "hooks.not-one-run"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_runs_without_gradients(mode):
    network = imdn()
    expected = record(network, ["IMDB1", "IMDB2.c1"], picture())
    taps = FeatureHooks(network, ["IMDB1", "IMDB2.c1"])
    with mode():
        taps.probe(picture())
        with taps.recording() as features:
            network(picture())
    assert all(torch.equal(features[name], expected[name]) for name in taps.names)
    assert not features["IMDB1"].requires_grad


def copies(network):
    averaged = AveragedModel(network)
    averaged.update_parameters(network)
    return [copy.deepcopy(network), averaged.module, pickle.loads(pickle.dumps(network))]


def test_copies_of_a_network_record_nothing():
    network, image = imdn(), picture()
    taps = FeatureHooks(network, ["IMDB1", "IMDB2.c1", "c:input"])
    taps.probe(image)
    expected = run(taps, network)
    for copied in copies(network):
        assert torch.equal(copied(image), network(image))
        assert code_of(lambda copied=copied: run(taps, copied)) == "hooks.not-one-run"
        with taps.recording() as features:
            network(image)
            copied(image / 2)
        assert all(torch.equal(features[name], expected[name]) for name in taps.names)
        # Copies can have taps of their own.
        assert torch.equal(record(copied, ["IMDB1"], image)["IMDB1"], expected["IMDB1"])


def test_a_network_in_several_processes(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = imdn().train()
        taps = FeatureHooks(network, ["IMDB1", "IMDB2.c1"])
        taps.probe(picture())
        wrapped = nn.parallel.DistributedDataParallel(network)
        with taps.recording() as features:
            sr = wrapped(picture())
        expected = record(imdn(), ["IMDB1", "IMDB2.c1"], picture())
        assert all(torch.equal(features[name], expected[name]) for name in taps.names)
        (sr.mean() + features["IMDB2.c1"].mean()).backward()
        assert network.IMDB1.c1.weight.grad.abs().sum() > 0
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("tapped_first", [True, False])
def test_a_network_in_mixed_precision(tapped_first):
    AcceleratorState._reset_state(True)
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        network = imdn()
        taps = FeatureHooks(network, ["IMDB2.c1", "sr"]) if tapped_first else None
        prepared = accelerator.prepare_model(network)
        taps = taps or FeatureHooks(network, ["IMDB2.c1", "sr"])
        assert [report.copied for report in taps.probe(picture())] == [True, False]
        with taps.recording() as features:
            sr = prepared(picture())
        expected = record(imdn(), ["IMDB2.c1"], picture())["IMDB2.c1"]
        assert features["IMDB2.c1"].dtype == torch.bfloat16
        assert 0 < (features["IMDB2.c1"] - expected).abs().max() < 0.03
        assert torch.equal(features["sr"], sr)
    finally:
        AcceleratorState._reset_state(True)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["taps, compile", "compile, taps"])
def test_a_compiled_network(order):
    torch.compiler.reset()
    network = imdn().train()
    expected = record(network, ["IMDB1", "IMDB2.c1"], picture())
    if order.startswith("compile"):
        network.compile(backend="eager")
    taps = FeatureHooks(network, ["IMDB1", "IMDB2.c1"])
    if order.startswith("taps"):
        network.compile(backend="eager")
    assert [report.copied for report in taps.probe(picture())] == [False, True]
    network(picture())
    features = run(taps, network)
    assert all(torch.allclose(features[name], expected[name], atol=1e-6) for name in taps.names)
    features["IMDB2.c1"].mean().backward()
    assert network.IMDB1.c1.weight.grad.abs().sum() > 0
    torch.compiler.reset()


def test_wildcards_stand_for_the_modules_in_their_order():
    network = build(type="IMDN", num_feat=16, num_block=11, upscale=2)
    assert FeatureHooks(network, ["IMDB*"]).names == tuple(f"IMDB{k}" for k in range(1, 12))
    assert FeatureHooks(network, ["IMDB1*.c[13]:input", "IMDB11.*1:input"]).names == (
        *("IMDB1.c1:input", "IMDB1.c3:input", "IMDB10.c1:input", "IMDB10.c3:input"),
        *("IMDB11.c1:input", "IMDB11.c3:input"),
    )
    assert FeatureHooks(network, ["*.act@2"]).names == tuple(f"IMDB{k}.act@2" for k in range(1, 12))


class Tokens(nn.Module):
    """Sequences of positions, of which the sizes are told in one way or another, or not."""

    def __init__(self, told: str) -> None:
        super().__init__()
        self.told = told
        self.body = nn.ModuleDict({"inner": nn.Identity(), "block": _Told()})

    def forward(self, image: Tensor) -> Tensor:
        x = image if self.told == "nothing" else F.pad(image, (0, -image.shape[3] % 8, 0, -image.shape[2] % 8))
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        if self.told == "pair, after a turned map":
            self.body["inner"](x.transpose(2, 3))
        if self.told.startswith("pair"):
            return self.body["block"](tokens, (height, width))
        if self.told == "two numbers":
            return self.body["block"](tokens, height, width)
        if self.told == "names":
            return self.body["block"](tokens, a=height, b=width)
        if self.told == "a map beside":
            self.body["inner"](x)
        return self.body["block"](tokens)


class _Told(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.norm(x)


@pytest.mark.parametrize(
    "told", ["pair", "pair, after a turned map", "two numbers", "names", "a map beside", "nothing"]
)
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20))
def test_sizes_of_maps_are_found(told, height, width):
    network = Tokens(told)
    taps = FeatureHooks(network, ["body.block", "body.block:input", "body.block.norm"])
    taps.probe(picture(11, 30, batch=1))
    image = picture(height, width)
    with taps.recording() as features:
        network(image)
    expected = image if told == "nothing" else F.pad(image, (0, -width % 8, 0, -height % 8))
    assert all(torch.equal(features[name], expected) for name in taps.names)


class Odd(nn.Module):
    """Modules that give what is no map."""

    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ModuleList([nn.Identity()])
        self.pair, self.unused, self.often = _Both(), nn.Identity(), nn.Identity()
        self.windows, self.flat, self.whole, self.twins = (nn.Identity() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        self.pair(x)
        for _ in range(3):
            self.often(x)
        tokens = F.pad(x, (0, 6)).flatten(2).transpose(1, 2)
        self.windows(tokens.reshape(-1, 4, 3))
        self.flat(x.flatten(1))
        self.whole(x.long())
        self.twins(tokens)
        self.list[0](x)
        return x


class _Both(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"x": x}


def run(taps, network):
    with taps.recording() as features:
        network(picture())
    return features


def code_of(call):
    with pytest.raises(InputError) as caught:
        call()
    assert len(caught.value.lines) == 1
    return caught.value.code


@pytest.mark.parametrize(
    ("tap", "code", "hint"),
    [
        ("IMDB3", "hooks.unknown-module", "IMDB"),
        ("imdb1.C1", "hooks.unknown-module", "IMDB1.c1"),
        ("xyz", "hooks.unknown-module", "IMDB1, IMDB2, c, LR_conv, upsampler, fea_conv"),
        ("X*", "hooks.unknown-module", "IMDB1"),
        ("IMDB1:out", "hooks.unreadable", "PATH[@CALL][:input]"),
        ("IMDB1@last", "hooks.unreadable", "IMDB1@last"),
        ("IMDB1@-1", "hooks.unreadable", "IMDB1@-1"),
        ("IMDB1:input@0", "hooks.unreadable", "IMDB1:input@0"),
    ],
)
def test_features_that_do_not_exist_are_refused(tap, code, hint):
    with refused(code) as caught:
        FeatureHooks(imdn(), ["IMDB1", tap])
    (line,) = caught.value.lines
    assert hint in line


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize(
    ("tap", "code", "hint"),
    [
        ("often", "hooks.module-calls", "often@0 to often@2"),
        ("often:input", "hooks.module-calls", "often@0:input to often@2:input"),
        ("often@3", "hooks.module-calls", "often@0 to often@2"),
        ("unused", "hooks.module-calls", "never"),
        ("list", "hooks.module-calls", "list.*"),
        ("pair", "hooks.no-map", "dict"),
        ("whole", "hooks.no-map", "torch.int64"),
        ("flat", "hooks.no-map", "2x378"),
        ("windows", "hooks.no-map", "90x4x3"),
        ("twins", "hooks.no-map", "2x180x3"),
    ],
)
def test_features_that_are_no_maps_are_refused(tap, code, hint, probe):
    network = Odd()
    taps = FeatureHooks(network, [tap])
    with refused(code) as caught:
        taps.probe(picture()) if probe else run(taps, network)
    (line,) = caught.value.lines
    assert hint in line
    record(network, ["list.0", "often@2"], picture())


def test_a_recording_is_of_one_run():
    network = imdn()
    taps = FeatureHooks(network, ["IMDB1"])

    def twice():
        with taps.recording():
            network(picture())
            network(picture())

    def nested():
        with taps.recording():
            run(taps, network)

    def never():
        with taps.recording():
            network.fea_conv(picture())
            network.IMDB1(torch.rand(1, 16, 8, 8))

    assert {code_of(call) for call in (twice, nested, never)} == {"hooks.not-one-run"}
    run(taps, network)


def test_two_sets_of_taps_do_not_meet():
    network = imdn()
    first, second = FeatureHooks(network, ["IMDB1"]), FeatureHooks(network, ["IMDB1", "IMDB2"])
    with first.recording() as one, second.recording() as other:
        network(picture())
    assert torch.equal(one["IMDB1"], other["IMDB1"])
    assert set(one) == {"IMDB1"}


def test_modules_that_are_run_again_for_their_gradients_are_counted_once():
    class Frugal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(self.conv, x, use_reentrant=False)

    network = Frugal().train()
    taps = FeatureHooks(network, ["conv", "conv:input"])
    with taps.recording() as features:
        network(picture()).mean().backward()
    assert torch.equal(features["conv"], network.conv(picture()))
    assert torch.equal(features["conv:input"], picture())
    assert network.conv.weight.grad.abs().sum() > 0
