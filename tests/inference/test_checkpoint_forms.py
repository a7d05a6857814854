"""Weights in all the forms in which trainers leave them are those of the network; no others are taken for weights."""

import itertools
import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from imdn_kd.archs import IMDN, IMDN_RTC, IMDN_RTE, Plain
from imdn_kd.archs.base import ModelInfo
from imdn_kd.archs.detect import detect
from imdn_kd.errors import InputError
from imdn_kd.inference.checkpoint_forms import WRAPPERS, find_weights, named_as, namings
from imdn_kd.inference.model_file import load_model
from imdn_kd.inference.weights import load_weights
from imdn_kd.integrations import spandrel
from imdn_kd.registry import ARCHS
from tests.refused import refused

PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "generator.", "module.generator.")
OWNERS = ("generator_ema.", "ema_model.module.", "net_g.", "netG.", "model.", "net.", "_fsdp_wrapped_module.", "sr.")


FAMILIES = {
    "ours": {"type": "Plain", "num_feat": 4, "num_block": 1},
    "spandrel": {"type": "spandrel/Compact", "num_feat": 4, "num_conv": 1, "upscale": 2},
}


def compiled_inside(weights):
    """As after `network.body = torch.compile(network.body)`."""
    return {name.replace(".", "._orig_mod.", 1): value for name, value in weights.items()}


def counted(weights):
    """As after `thop.profile(network, ...)`."""
    modules = {"", *(f"{name.rpartition('.')[0]}." for name in weights)}
    return {**weights, **{f"{module}total_{what}": torch.zeros(1) for module in modules for what in ("ops", "params")}}


def prefixed(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def wrapped(wrapper, weights):
    """As a trainer saves it: weights beside its state, other sets left empty."""
    if wrapper is None:
        return weights
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(2)}}, "param_groups": [{"lr": 1e-4}]}
    others = {"params_ema": None, "meta": {"epoch": 1, "time": "now"}, "optimizer": optimizer, "epoch": 3}
    return {**others, "loss": torch.tensor(0.1), "lr_schedulers": [], wrapper: weights}


def same(network, weights):
    own = network.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


def forms(weights):
    """The same weights in every combination of what trainers do to them."""
    changes = (dict, counted, compiled_inside)
    for change, prefix, wrapper in itertools.product(changes, PREFIXES + OWNERS, (None, *WRAPPERS, "my_own")):
        yield wrapped(wrapper, prefixed(prefix, change(weights)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: IMDN_RTC(num_feat=8, num_block=1),
        lambda: IMDN(num_feat=8, num_block=1, attention=False),
        lambda: Plain(num_feat=4, num_block=1),
    ],
)
def test_every_combination_is_the_same_network(make, tmp_path):
    network = make()
    weights, path = network.state_dict(), tmp_path / "model.safetensors"
    for number, form in enumerate(forms(weights)):
        found, _ = find_weights(form)
        assert named_as(weights, found).keys() == weights.keys()
        spec = next(filter(None, map(detect, namings(found))))
        assert spec.items() <= network.spec.items()
        if number % 17 == 0:  # no divisor of the wrappers or prefixes: each of them is met
            torch.save(form, path)
            assert same(load_model(path).network, weights)


@pytest.mark.parametrize("prefix", PREFIXES + OWNERS)
def test_safetensors_under_other_names_are_the_same_network(prefix, tmp_path):
    network = Plain(num_feat=4, num_block=1)
    save_file(counted(prefixed(prefix, network.state_dict())), tmp_path / "model.pth")
    assert same(load_model(tmp_path / "model.pth").network, network.state_dict())


@pytest.fixture
def measured(monkeypatch):
    """Do not measure the network of spandrel at every loading."""
    info = ModelInfo(scale=2, receptive_radius=3)
    monkeypatch.setattr(spandrel, "measure_info", lambda *_: info)
    monkeypatch.setattr(spandrel, "info_of", lambda _: info)


@pytest.mark.usefixtures("measured")
def test_a_network_that_spandrel_knows_is_found_under_any_name(tmp_path):
    network = ARCHS.build(FAMILIES["spandrel"])
    path = tmp_path / "model.pth"
    for prefix in ("", "module._orig_mod.", "generator.", "sr."):
        torch.save({"state_dict": counted(prefixed(prefix, network.state_dict()))}, path)
        assert same(load_model(path).network, network.state_dict()), prefix


def test_weights_go_into_a_network_that_is_given(tmp_path):
    # A network may call its own modules as trainers call theirs.
    network = torch.nn.ModuleDict({"module": torch.nn.Conv2d(3, 3, 1), "generator": torch.nn.Conv2d(3, 3, 1)})
    weights, path = {name: value.clone() for name, value in network.state_dict().items()}, tmp_path / "weights.pth"
    for prefix in PREFIXES + OWNERS:
        torch.save(wrapped("state_dict", prefixed(prefix, counted(weights))), path)
        for parameter in network.parameters():
            parameter.data.zero_()
        assert load_weights(network, path) == []
        assert same(network, weights), prefix


def test_the_trainers_other_modules_are_left_out(tmp_path):
    student, other = Plain(num_feat=4, num_block=1), Plain(num_feat=8, num_block=1)
    path = tmp_path / "model.pth"
    content = prefixed("discriminator.", other.state_dict()) | prefixed("generator.", student.state_dict())
    torch.save({"state_dict": {"step_counter": torch.zeros(1), **content}}, path)
    assert same(load_model(path).network, student.state_dict())
    assert same(load_model(path, key="discriminator").network, other.state_dict())
    averaged = torch.optim.swa_utils.AveragedModel(student)
    torch.save(averaged.state_dict(), path)
    assert same(load_model(path).network, student.state_dict())


def test_averaged_weights_come_first_and_any_key_chooses(tmp_path):
    sets = {key: Plain(num_feat=4, num_block=1) for key in ("state_dict", "ema", "params_ema", "mine")}
    path = tmp_path / "model.pth"
    torch.save({key: network.state_dict() for key, network in sets.items()}, path)
    assert same(load_model(path).network, sets["params_ema"].state_dict())
    for key, network in sets.items():
        assert same(load_model(path, key=key).network, network.state_dict())
    for key in ("params", "", "optimizer"):
        with refused("model.no-such-key"):
            load_model(path, key=key)
    torch.save({key: sets["mine"].state_dict() for key in ("one", "two")}, path)
    with refused("model.several-weights") as caught:
        load_model(path)
    assert "one, two" in str(caught.value)
    assert same(load_model(path, key="two").network, sets["mine"].state_dict())


def test_the_official_weights_of_rte_keep_their_range_in_any_form(tmp_path):
    weights, path = IMDN_RTE().state_dict(), tmp_path / "model.pth"
    for wrapper, white in ((None, 255), ("state_dict", 255), ("params", 1), ("params_ema", 1)):
        torch.save(wrapped(wrapper, weights), path)
        assert load_model(path).value_range == white


DTYPES = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
LAYOUTS = {
    "sparse_coo": torch.Tensor.to_sparse,
    "sparse_csr": lambda value: value.flatten(1).to_sparse_csr() if value.dim() > 1 else value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "nested": lambda value: torch.nested.nested_tensor([value]),
}


def outcome(path, *arguments):
    """A network that holds what the file says, or None where it is refused in a line."""
    try:
        return load_model(path, *arguments).network.state_dict()
    except InputError as error:
        assert "\n" not in str(error)
        assert error.code in ("model.bad-dtype", "model.bad-tensor", "model.not-a-model-file", "model.holds-code")
        return None


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_of_every_type_are_taken_as_they_are_or_refused(family, tmp_path):
    network, path = ARCHS.build(FAMILIES[family]), tmp_path / "model.pth"
    spec = network.spec
    taken = set()
    for dtype, given in itertools.product(dict.fromkeys(DTYPES), ((), (spec,))):
        try:
            weights = {name: value.to(dtype) for name, value in network.state_dict().items()}
            torch.save(weights, path)
        except (RuntimeError, TypeError, NotImplementedError):
            continue  # no conversion to this type
        found = outcome(path, *given)
        if found is not None:
            taken.add(dtype)
            assert all(torch.equal(found[name], value.float()) for name, value in weights.items()), dtype
    assert taken == {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:.*quantize")
@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_without_plain_values_are_refused(family, tmp_path):
    network, path = ARCHS.build(FAMILIES[family]), tmp_path / "model.pth"
    quantised = {"quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)}
    for name, change in {**LAYOUTS, **quantised}.items():
        torch.save({key: change(value) for key, value in network.state_dict().items()}, path)
        assert outcome(path) is None, name
        assert outcome(path, network.spec) is None, name


def test_values_too_large_for_the_network_are_refused(tmp_path):
    weights = {key: value.double() + 1e300 for key, value in Plain(num_feat=4, num_block=1).state_dict().items()}
    torch.save(weights, tmp_path / "model.pth")
    with refused("model.not-finite"):
        load_model(tmp_path / "model.pth")


@pytest.mark.parametrize("depth", [900, 100_000])
@pytest.mark.parametrize("key", ["architecture", "training", "value_range"])
def test_deeply_nested_metadata_are_one_line(depth, key, tmp_path):
    network, path = Plain(num_feat=4, num_block=1), tmp_path / "model.safetensors"
    for nested in ("[" * depth + "]" * depth, '{"type":' * depth + "1" + "}" * depth, "[" * depth):
        save_file(network.state_dict(), path, {"architecture": json.dumps(network.spec), key: nested})
        try:
            load_model(path)
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 1000
        else:
            assert key == "training"


@pytest.mark.parametrize("depth", [5, 10_000])
@pytest.mark.parametrize("level", [(b"]", b"a"), (b"}X\x0a\0\0\0state_dict", b"s"), (b"}X\x01\0\0\0x", b"s")])
def test_deeply_nested_checkpoints_are_one_line(depth, level, tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    with zipfile.ZipFile(tmp_path / "empty.pth") as empty, zipfile.ZipFile(tmp_path / "model.pth", "w") as deep:
        for name in empty.namelist():
            opened, closed = level
            nested = b"\x80\x02" + opened * depth + b"}" + closed * depth + b"."
            deep.writestr(name, nested if name.endswith("data.pkl") else empty.read(name))
    with refused("model.no-weights") as caught:
        load_model(tmp_path / "model.pth")
    assert len(str(caught.value).splitlines()) == 1
