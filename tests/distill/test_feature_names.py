import pytest
import torch
from torch import nn

from imdn_kd.distill.feature_names import match, resolve, semantic_names
from imdn_kd.distill.hooks import FeatureHooks
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import needs_basicsr
from tests.integrations.test_spandrel import needs_spandrel, theirs
from tests.refused import refused

RGB = {"num_in_ch": 3, "num_out_ch": 3}
SWINIR = {"img_size": 16, "window_size": 8, "embed_dim": 8, "mlp_ratio": 2}


def names(head, blocks, body_out, *, fusion=None):
    found = {"head": head, **{f"block.{k}": path for k, path in enumerate(blocks, 1)}}
    found |= {} if fusion is None else {"fusion": fusion}
    return found | ({} if body_out is None else {"body_out": body_out}) | {"sr": "sr"}


def imdn(depth):
    return names("fea_conv", [f"IMDB{k}" for k in range(1, depth + 1)], "LR_conv", fusion="c")


OURS = {
    "imdn": ({"type": "imdn"}, imdn(6)),
    "imdn_s": ({"type": "imdn_s", "upscale": 2}, imdn(6)),
    "imdn_l": ({"type": "imdn_l"}, imdn(12)),
    "imdn_as": ({"type": "imdn_as"}, imdn(6)),
    "IMDN": ({"type": "IMDN", "num_feat": 16, "num_block": 1}, imdn(1)),
    "imdn_rtc": ({"type": "imdn_rtc"}, names("model.0", [f"model.1.sub.{k}" for k in range(5)], "model.1.sub")),
    "imdn_rte": ({"type": "imdn_rte"}, names("fea_conv", [f"block{k}" for k in range(1, 7)], "LR_conv")),
}

BASICSR = {
    "EDSR": (
        {**RGB, "num_feat": 8, "num_block": 3},
        names("conv_first", ["body.0", "body.1", "body.2"], "conv_after_body"),
    ),
    "EDSR 1": ({**RGB, "num_feat": 8, "num_block": 1}, names("conv_first", ["body.0"], "conv_after_body")),
    "RCAN": (
        {**RGB, "num_feat": 8, "num_group": 2, "num_block": 3, "squeeze_factor": 4},
        names("conv_first", ["body.0", "body.1"], "conv_after_body"),
    ),
    "RRDBNet": (
        {**RGB, "num_feat": 8, "num_block": 2, "num_grow_ch": 4},
        names("conv_first", ["body.0", "body.1"], "conv_body"),
    ),
    "MSRResNet": ({"num_feat": 8, "num_block": 2}, names("body:input", ["body.0", "body.1"], "body")),
    "SwinIR": (
        {
            **SWINIR,
            "depths": [2, 2, 2],
            "num_heads": [2, 2, 2],
            "upsampler": "pixelshuffle",
            "resi_connection": "3conv",
        },
        names("conv_first", ["layers.0", "layers.1", "layers.2"], "conv_after_body"),
    ),
    "SwinIR 1": (
        {**SWINIR, "depths": [3], "num_heads": [2], "upsampler": "pixelshuffledirect"},
        names("conv_first", [f"layers.0.residual_group.blocks.{k}" for k in range(3)], "conv_after_body"),
    ),
    "ECBSR": (
        {**RGB, "num_block": 2, "num_channel": 8, "with_idt": True, "act_type": "prelu", "scale": 2},
        names("backbone.0", ["backbone.1", "backbone.2"], "backbone.3:input"),
    ),
    "SRVGGNetCompact": ({"num_feat": 8, "num_conv": 2}, names("body.1", ["body.3", "body.5"], "body.5")),
}

SPANDREL = {
    "DAT": names("conv_first", ["layers.0.blocks.0", "layers.0.blocks.1"], "conv_after_body"),
    "SAFMN": names("to_feat", ["feats.0", "feats.1"], "feats"),
    "SwinIR": names("conv_first", ["layers.0", "layers.1"], "conv_after_body"),
    "RCAN": names("head", ["body.0", "body.1"], "body"),
    "SPAN": names("conv_1", [f"block_{k}" for k in range(1, 7)], "conv_2", fusion="conv_cat"),
    "Compact": names("body.1", ["body.3", "body.5"], "body.5"),
    "ESRGAN": names("model.0", ["model.1.sub.0", "model.1.sub.1"], "model.1.sub"),
    "OmniSR": names("input", ["residual_layer.0", "residual_layer.1"], "output"),
}


def assert_names(network, expected):
    """Names and their order, and that all of them can be tapped: N x C x h x w with one size but for the result."""
    found = semantic_names(network)
    assert list(found.items()) == list(expected.items())
    assert all(resolve(network, name) == tap for name, tap in expected.items())
    taps = FeatureHooks(network, list(expected.values()))
    shapes = {report.name: report.shape for report in taps.probe(torch.rand(1, 3, 16, 24))}
    taps.remove()
    assert len({shape for name, shape in shapes.items() if name != "sr"}) == 1
    assert shapes["sr"][1] == 3


@pytest.mark.parametrize("case", OURS)
def test_names_of_the_imdn_family(case):
    spec, expected = OURS[case]
    assert_names(ARCHS.build(spec).eval(), expected)


@needs_basicsr
@pytest.mark.parametrize("case", BASICSR)
def test_names_of_networks_of_basicsr(case):
    options, expected = BASICSR[case]
    assert_names(ARCHS.build({"type": case.split()[0], **options}).eval(), expected)


@needs_spandrel
@pytest.mark.parametrize("case", SPANDREL)
def test_names_of_networks_of_spandrel(case):
    assert_names(theirs(case), SPANDREL[case])


class Block(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())


class Unknown(nn.Module):
    """Heads, blocks and tails with names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Identity()
        self.entrance = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))
        self.trunk = nn.ModuleList(Block() for _ in range(4))
        self.up = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        x = self.entrance(self.shift(x))
        for block in self.trunk:
            x = block(x)
        return self.up(x)


def test_blocks_and_head_of_unknown_networks_are_found():
    trunk = [f"trunk.{k}" for k in range(4)]
    assert_names(Unknown(), names("entrance.0", trunk, None))
    # The body has a place of its own, as in a sequence around it.
    whole = nn.Sequential(Unknown())
    assert semantic_names(whole) == names("0.entrance.0", [f"0.{path}" for path in trunk], None)


def test_networks_without_blocks_have_what_they_have():
    plain = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    assert semantic_names(plain) == {"head": "0", "sr": "sr"}
    assert semantic_names(nn.Upsample(scale_factor=2)) == {"sr": "sr"}


def rtc(depth):
    return ARCHS.build({"type": "IMDN_RTC", "num_block": depth})


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (6, 6, [1, 2, 3, 4, 5, 6]),
        (6, 12, [2, 4, 6, 8, 10, 12]),
        (4, 10, [3, 5, 8, 10]),  # 2.5, 5, 7.5, 10: halves up
        (5, 7, [1, 3, 4, 6, 7]),  # 1.4, 2.8, 4.2, 5.6, 7
        (6, 2, [1, 1, 1, 1, 2, 2]),  # .33, .67, 1, 1.33, 1.67, 2: none before the first
    ],
)
def test_blocks_of_a_student_are_matched_in_proportion(student, teacher, expected):
    student, teacher = rtc(student), rtc(teacher)
    found = [match(student, teacher, f"block.{k}") for k in range(1, len(expected) + 1)]
    assert found == [(f"model.1.sub.{k}", f"model.1.sub.{number - 1}") for k, number in enumerate(expected)]


def test_other_names_are_matched_with_their_namesakes_and_taps_are_kept():
    student, teacher = rtc(2), ARCHS.build({"type": "imdn_s"})
    assert [match(student, teacher, name) for name in ("head", "sr", "body_out", "IMDB*", "body.7@2:input")] == [
        ("model.0", "fea_conv"),
        ("sr", "sr"),
        ("model.1.sub", "LR_conv"),
        ("IMDB*", "IMDB*"),
        ("body.7@2:input", "body.7@2:input"),
    ]
    assert match(student, teacher, "block.1") == ("model.1.sub.0", "IMDB3")


def test_what_is_no_semantic_name_is_returned_as_it_is():
    network = rtc(2)
    for tap in ("model.0", "model.1.sub.*", "", "block.x", "heads", "block.1:input"):
        assert resolve(network, tap) == tap


@pytest.mark.parametrize("name", ["fusion", "block.4", "block.0"])
def test_names_that_a_network_lacks_are_refused(name):
    network, other = rtc(3), ARCHS.build({"type": "imdn_s"})
    for call in (lambda: resolve(network, name), lambda: match(network, other, name)):
        with refused("hooks.unknown-feature") as caught:
            call()
        assert "head, block.1 to block.3, body_out, sr" in str(caught.value)


def test_names_that_the_teacher_lacks_are_refused():
    for network, there in ((Unknown(), "head, block.1 to block.4, sr"), (nn.Upsample(scale_factor=2), "sr")):
        for name in ("fusion", "body_out"):
            with refused("hooks.unknown-feature") as caught:
                match(ARCHS.build({"type": "imdn_s"}), network, name)
            assert there in str(caught.value)
    with refused("hooks.unknown-feature"):
        match(ARCHS.build({"type": "imdn_s"}), nn.Upsample(scale_factor=2), "block.2")
