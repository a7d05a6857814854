import math

import pytest
import torch
from torch import nn

from imdn_kd.archs import IMDN
from imdn_kd.training.nonfinite import find_first_nonfinite

FINE = {"l_pix": torch.tensor(0.1), "l_fft": torch.tensor(2.0)}


class Gain(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return x * self.value


class InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(math.nan)


class Parent(nn.Module):
    """Spoils what lies between two of its modules."""

    def __init__(self, spoil):
        super().__init__()
        self.first, self.second, self.spoil = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), spoil

    def forward(self, x):
        return self.second(self.spoil(self.first(x)))


class Several(nn.Module):
    """Gives features of several kinds."""

    def forward(self, x):
        return {"sr": x, "features": [x, (x / 0,)]}


def network():
    torch.manual_seed(0)
    return IMDN(num_feat=16, num_block=2, upscale=2)


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)


def hooks(module):
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())


def ask(module, lq=None, gt=None, losses=FINE):
    answer = find_first_nonfinite(module, batch()[0] if lq is None else lq, batch()[1] if gt is None else gt, losses)
    assert "\n" not in answer
    assert not hooks(module)
    return answer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_batch_is_named(value):
    lq, gt = batch()
    lq[1, 2, 3, 4] = value
    word = "1 NaN" if math.isnan(value) else "1 infinite"

    answer = ask(network(), lq)
    assert answer == (
        f"the input batch is not finite: lq has {word} among 384 values of float32, first in image 1 of the batch"
    )
    gt[:] = value
    assert "gt has" in ask(network(), gt=gt)


def test_a_weight_is_named():
    module = network()
    names = [name for name, _ in module.named_parameters()]
    with torch.no_grad():
        module.get_parameter(names[5]).view(-1)[:2] = math.nan
        module.get_parameter(names[8]).view(-1)[0] = math.inf

    assert f"the weight {names[5]!r} is not finite: it has 2 NaN among" in ask(module)


def test_a_buffer_is_named():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module[1].running_var[2] = math.nan

    assert "the buffer '1.running_var' is not finite: it has 1 NaN among 4 values" in ask(module.eval())


def test_infinite_buffers_may_be_meant():
    module = Gain(1.0)
    module.register_buffer("mask", torch.tensor([0.0, -math.inf]))

    assert "all finite" in ask(module)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "384 NaN"), (math.inf, "infinite")])
def test_the_first_module_is_named_with_its_type(value, word):
    module = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity(), Gain(value)), nn.Conv2d(3, 3, 1))
    answer = ask(module)

    assert answer.startswith("the output of '1.1' (Gain) is not finite: it has")
    assert word in answer
    assert answer.endswith("its input is finite")


def test_a_module_that_works_in_place_is_the_culprit_itself():
    answer = ask(nn.Sequential(nn.Conv2d(3, 3, 1), InPlace()))

    assert "'1' (InPlace)" in answer
    assert answer.endswith("its input is finite")


def test_what_arises_between_modules_is_told_apart():
    answer = ask(nn.Sequential(Parent(lambda x: x / 0)))

    assert "'0.second' (Conv2d)" in answer
    assert "its input is not finite either" in answer


def test_the_network_itself_is_named_for_what_it_does_last():
    assert "the output of the network (Several) is not finite" in ask(Several())
    assert "384 infinite" in ask(Several(), lq=torch.ones(2, 3, 8, 8))


def test_half_precision_that_overflows_shows_under_the_autocast_of_training():
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity())
    with torch.no_grad():
        module[0].weight.fill_(3e4)
    lq = torch.ones(2, 3, 8, 8)

    assert "all finite" in ask(module, lq)
    with torch.autocast("cpu", torch.float16):
        assert "the output of '0' (Conv2d) is not finite: it has 384 infinite among 384 values of float16" in ask(
            module, lq
        )


def test_losses_are_named():
    losses = {**FINE, "l_fft": torch.tensor(math.nan, requires_grad=True), "l_x": torch.tensor(math.inf)}

    answer = ask(network(), losses=losses)
    assert answer == "the loss is not finite, though the output of the network is: l_fft is nan, l_x is inf"


def test_the_gradient_nearest_to_the_output_is_named():
    class RootOfNothing(nn.Module):
        def forward(self, x):
            return x + (x * 0).sqrt()

    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), RootOfNothing(), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    lq, _ = batch()
    module(lq).mean().backward()

    answer = ask(module, lq)
    assert answer.startswith("the gradient of '1.bias' is not finite, though the loss is: it has 4 NaN among 4 values")
    assert answer.endswith("; 3 other parameters have such gradients too")


def test_the_first_in_the_order_of_an_iteration_is_named():
    module = network()
    lq, _ = batch()
    name, parameter = next(iter(module.named_parameters()))
    module(lq).mean().backward()
    parameter.grad[:] = math.nan
    assert f"the gradient of {name!r}" in ask(module)
    losses = {"l_pix": torch.tensor(math.nan)}
    assert "the loss" in ask(module, losses=losses)
    with torch.no_grad():
        parameter[:] = math.nan
    assert f"the weight {name!r}" in ask(module, losses=losses)
    lq[:] = math.nan
    assert "the input batch" in ask(module, lq, losses=losses)


def test_where_all_is_finite_it_says_so():
    assert "all finite" in ask(network())


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_no_trace(training):
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(), Gain(math.nan)).train(training)
    module[0].train(not training)
    modes = [each.training for each in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()

    assert "'3' (Gain)" in ask(module)
    assert [each.training for each in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_no_hooks_stay_behind_where_the_network_fails():
    def fail(x):
        raise ValueError("broken")

    module = Parent(fail)
    with pytest.raises(ValueError, match="broken"):
        find_first_nonfinite(module, *batch(), FINE)
    assert not hooks(module)
