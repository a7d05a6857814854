import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.archs.critic import Critic, SelfAttention
from tests.refused import refused


def images(seed, *shape, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(build):
    """A network whose attention takes part: at first it would not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
    for module in network.modules():
        if isinstance(module, SelfAttention):
            torch.nn.init.constant_(module.gamma, 0.7)
    return network


def tiny(**keywords):
    return seeded(lambda: Critic(**{"num_in_ch": 2, "num_feat": 3, "stages": 3, **keywords}))


def values(module):
    return {name: tensor.detach().double().numpy() for name, tensor in module.named_parameters()}


def slow_convolution(image, weight, bias):
    """One image, C x H x W; 4x4, stride 2, one pixel of zeros around."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((len(weight), image.shape[1] // 2, image.shape[2] // 2))
    for channel, y, x in np.ndindex(out.shape):
        window = padded[:, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4]
        out[channel, y, x] = (weight[channel] * window).sum() + bias[channel]
    return out


def slow_attention(features, weights):
    """One feature map, C x H x W, pixel by pixel."""

    def project(name, pixel):
        return weights[f"{name}.weight"][:, :, 0, 0] @ pixel + weights[f"{name}.bias"]

    pixels = list(features.reshape(len(features), -1).T)
    out = []
    for here in pixels:
        scores = np.array([project("query", here) @ project("key", there) for there in pixels])
        shares = np.exp(scores) / np.exp(scores).sum()
        taken = sum(share * project("value", there) for share, there in zip(shares, pixels, strict=True))
        out.append(weights["gamma"] * taken + here)
    return np.stack(out, 1).reshape(features.shape)


def slow_score(critic, condition, image):
    features = np.concatenate((condition, image))
    for layer in critic.body:
        weights = values(layer)
        if isinstance(layer, torch.nn.Conv2d):
            features = slow_convolution(features, weights["weight"], weights["bias"])
        elif isinstance(layer, SelfAttention):
            features = slow_attention(features, weights)
        else:
            features = np.where(features > 0, features, 0.1 * features)
    weights = values(critic.score)
    return float(weights["weight"][0] @ features.mean((1, 2)) + weights["bias"][0])


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_score_is_what_the_formulas_say(stages):
    critic = tiny(stages=stages)
    condition, image = images(0, 2, 2, 13, 17), images(1, 2, 2, 13, 17)
    pairs = zip(condition.double().numpy(), image.double().numpy(), strict=True)
    expected = [slow_score(critic, *pair) for pair in pairs]

    np.testing.assert_allclose(critic(condition, image).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_attention_is_what_its_formula_says_and_sharp_where_keys_are_large():
    attention = seeded(lambda: SelfAttention(16))
    for layer in (attention.query, attention.key):
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    features = images(0, 2, 16, 4, 5)
    expected = [slow_attention(each, values(attention)) for each in features.double().numpy()]

    np.testing.assert_allclose(attention(features).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_attention_does_nothing_at_first_and_learns_to():
    attention, features = SelfAttention(8), images(0, 1, 8, 4, 4)
    result = attention(features)
    assert torch.equal(result, features)

    result.square().sum().backward()
    assert attention.gamma.grad.abs() > 1e-3


def test_widths_are_those_of_the_paper():
    body = Critic().body
    widths = [(layer.in_channels, layer.out_channels) for layer in body if isinstance(layer, torch.nn.Conv2d)]
    attentions = [layer for layer in body if isinstance(layer, SelfAttention)]

    assert widths == [(6, 64), (64, 128), (128, 256), (256, 512)]
    assert [(layer.query.out_channels, layer.value.out_channels) for layer in attentions] == [(32, 256), (64, 512)]
    assert isinstance(body[-1], SelfAttention)


@given(st.integers(1, 3), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
def test_images_of_any_size_that_is_not_too_small(stages, more_rows, more_columns, count):
    critic = tiny(stages=stages)
    shape = (count, 2, critic.min_size + more_rows, critic.min_size + more_columns)
    scores = critic(images(0, *shape), images(1, *shape))

    assert scores.shape == (count,)
    assert torch.isfinite(scores).all()


def test_a_score_does_not_depend_on_the_other_samples():
    critic = tiny()
    condition, image = images(0, 3, 2, 16, 16), images(1, 3, 2, 16, 16).requires_grad_()
    scores = critic(condition, image)
    (gradient,) = torch.autograd.grad(scores[1], image)

    alone = torch.cat([critic(condition[k : k + 1], image[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-6)
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[1] != 0).any()


def test_a_score_depends_on_the_condition_as_on_the_image():
    critic = tiny()
    first, second = images(0, 1, 2, 16, 16), images(1, 1, 2, 16, 16)
    scores = [critic(*pair).item() for pair in [(first, first), (second, first), (first, second)]]

    assert len({round(score, 5) for score in scores}) == 3


def test_first_and_second_derivatives_are_those_of_the_formula():
    critic = tiny(num_in_ch=1, num_feat=2, stages=2).double()
    parameters = dict(critic.named_parameters())
    condition, image = (images(seed, 2, 1, 5, 6, dtype=torch.float64).requires_grad_() for seed in (0, 1))

    def scores(condition, image, *weights):
        return torch.func.functional_call(critic, dict(zip(parameters, weights, strict=True)), (condition, image))

    arguments = (condition, image, *parameters.values())
    assert torch.autograd.gradcheck(scores, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(scores, arguments, fast_mode=True)


def test_attention_has_a_second_derivative_where_a_fused_kernel_would_serve():
    # That of CPUs serves if queries are as wide as values, and the channels of a pixel side by side; those of GPUs,
    # more often.
    attention = seeded(lambda: SelfAttention(2))
    attention.query, attention.key = torch.nn.Conv2d(2, 2, 1), torch.nn.Conv2d(2, 2, 1)
    attention.double().to(memory_format=torch.channels_last)
    features = images(0, 2, 2, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()

    assert torch.autograd.gradgradcheck(attention, features)


def test_scores_have_full_precision_under_autocast():
    critic = tiny()
    torch.nn.init.constant_(critic.score.bias, 1000)
    condition, image = images(0, 4, 2, 16, 16), images(1, 4, 2, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        scores = critic(condition, image)

    # bfloat16 has steps of 4 here.
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, critic(condition, image), rtol=0, atol=0.05)
    assert len(scores.unique()) == 4


@pytest.mark.parametrize("shape", [(1, 2, 7, 9), (1, 2, 9, 7)])
def test_images_that_are_too_small_are_refused(shape):
    with refused("critic.image-too-small") as caught:
        tiny()(images(0, *shape), images(1, *shape))
    assert f"{shape[3]}x{shape[2]} px" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 2, 16, 16), (1, 2, 16, 17)),
        ((1, 2, 16, 16), (2, 2, 16, 16)),
        ((1, 3, 16, 16), (1, 3, 16, 16)),
        ((2, 16, 16), (2, 16, 16)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(first, second):
    with refused("critic.shapes-differ") as caught:
        tiny()(images(0, *first), images(1, *second))
    assert str(second) in str(caught.value)


@pytest.mark.parametrize("keywords", [{"num_in_ch": 0}, {"num_feat": 0}, {"stages": 0}])
def test_a_critic_of_nothing_is_refused(keywords):
    with refused("critic.invalid-options"):
        Critic(**keywords)


def test_spectral_norm_makes_the_largest_singular_value_of_every_layer_1():
    critic = seeded(lambda: Critic(num_in_ch=2, num_feat=3, stages=3, spectral_norm=True))
    image = images(0, 2, 2, 16, 16)
    with torch.no_grad():
        for _ in range(60):  # a step of the power method each
            critic(image, image)
    layers = [each for each in critic.modules() if isinstance(each, (torch.nn.Conv2d, torch.nn.Linear))]
    for layer in layers:
        largest = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False)[0]
        assert largest == pytest.approx(1, rel=1e-2)
    assert len(layers) == 3 + 2 * 3 + 1
