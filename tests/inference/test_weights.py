import pytest
import torch
from safetensors.torch import save_file

from imdn_kd.archs import IMDN, IMDN_RTC
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.weights import load_weights, read_weights
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import import_basicsr
from tests.refused import refused


def equal(found, expected):
    return list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


def fails(call, path, code, *words):
    with refused(code) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_plain_weights(save, suffix, tmp_path):
    weights = {"a.weight": torch.rand(2, 3), "module_list.0": torch.rand(4)}
    save(weights, tmp_path / f"weights{suffix}")
    assert equal(read_weights(tmp_path / f"weights{suffix}"), weights)


def test_a_model_file_is_read_as_well(tmp_path):
    network = IMDN_RTC()
    save_model(tmp_path / "model.safetensors", ModelFile(network))
    found = read_weights(tmp_path / "model.safetensors")
    assert equal({key: found[key] for key in network.state_dict()}, network.state_dict())


def test_the_key_chooses_among_the_weights_of_a_checkpoint(tmp_path):
    path = tmp_path / "net_g_10.pth"
    sets = {key: {"a": torch.rand(2)} for key in ("params", "params_ema", "other")}
    torch.save(sets, path)
    assert equal(read_weights(path), sets["params_ema"])
    for key, weights in sets.items():
        assert equal(read_weights(path, key), weights)
    torch.save({"params": sets["params"]}, path)
    assert equal(read_weights(path), sets["params"])
    fails(lambda: read_weights(path, "params_ema"), path, "model.no-such-key", "no key 'params_ema', but: params")


def test_a_key_that_is_not_there_is_one_line(tmp_path):
    torch.save({"a": torch.rand(2)}, tmp_path / "plain.pth")
    fails(
        lambda: read_weights(tmp_path / "plain.pth", "params"),
        tmp_path / "plain.pth",
        "model.no-such-key",
        "no key 'params', but: a",
    )
    save_file({"a": torch.rand(2)}, tmp_path / "w.safetensors")
    fails(
        lambda: read_weights(tmp_path / "w.safetensors", "params"),
        tmp_path / "w.safetensors",
        "model.no-such-key",
        "leave it out",
    )
    torch.save({"iter": 3}, tmp_path / "state.pth")
    fails(
        lambda: read_weights(tmp_path / "state.pth", "iter"),
        tmp_path / "state.pth",
        "model.no-weights",
        "holds no weights, but: iter",
    )


def test_weights_that_fit_are_taken_into_the_network_as_it_is(tmp_path):
    path = tmp_path / "weights.pth"
    source, network = IMDN_RTC(), IMDN_RTC().double()
    torch.save({"params": source.state_dict()}, path)
    assert load_weights(network, path) == []
    assert equal(network.float().state_dict(), source.state_dict())
    assert network.training


def test_weights_of_basicsr_fit_its_network(tmp_path):
    arch = import_basicsr("basicsr.archs.rrdbnet_arch")
    options = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    theirs, averaged = arch.RRDBNet(**options), arch.RRDBNet(**options)
    torch.save({"params": theirs.state_dict(), "params_ema": averaged.state_dict()}, tmp_path / "net_g_5.pth")
    network = ARCHS.build({"type": "RRDBNet", **options})
    load_weights(network, tmp_path / "net_g_5.pth", key="params")
    assert equal(network.state_dict(), theirs.state_dict())
    load_weights(network, tmp_path / "net_g_5.pth")
    assert equal(network.state_dict(), averaged.state_dict())


def test_x4_starts_from_x2(tmp_path):
    path = tmp_path / "x2.pth"
    small, large = IMDN(num_feat=8, num_block=1, upscale=2), IMDN(num_feat=8, num_block=1, upscale=4)
    torch.save(small.state_dict(), path)
    before = {key: value.clone() for key, value in large.state_dict().items()}
    problems = load_weights(large, path, strict=False)
    assert problems == [
        "upsampler.0.weight is (12, 8, 3, 3), not (48, 8, 3, 3)",
        "upsampler.0.bias is (12,), not (48,)",
    ]
    for key, value in large.state_dict().items():
        assert torch.equal(value, before[key] if key.startswith("upsampler") else small.state_dict()[key])
    strictly = lambda: load_weights(IMDN(num_feat=8, num_block=1, upscale=4), path)  # noqa: E731
    fails(
        strictly,
        path,
        "model.misfit",
        "does not fit IMDN: upsampler.0.weight is (12, 8, 3, 3)",
        "give weights of this network",
    )


def test_missing_and_unknown_tensors_are_told(tmp_path):
    path = tmp_path / "weights.pth"
    weights = IMDN_RTC().state_dict()
    del weights["model.0.bias"]
    torch.save({**weights, "extra": torch.zeros(1)}, path)
    network = IMDN_RTC()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fails(lambda: load_weights(network, path), path, "model.misfit", "model.0.bias is missing")
    assert equal(network.state_dict(), before)
    problems = load_weights(network, path, strict=False)
    assert problems == ["model.0.bias is missing", "has a tensor that this does not have: extra"]
    assert torch.equal(network.state_dict()["model.0.weight"], weights["model.0.weight"])


def test_what_cannot_be_taken_changes_nothing(tmp_path):
    path = tmp_path / "weights.pth"
    network = IMDN_RTC()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.save({"a": torch.zeros(1)}, path)
    fails(lambda: load_weights(network, path, strict=False), path, "model.misfit", "no tensor in it fits IMDN_RTC")
    torch.save({**before, "model.0.bias": torch.full((12,), float("inf"))}, path)
    fails(
        lambda: load_weights(network, path, strict=False),
        path,
        "model.not-finite",
        "model.0.bias has values that are not finite",
    )
    assert equal(network.state_dict(), before)
