import pytest
import torch
from torch import nn

from imdn_kd.archs.critic import Critic
from imdn_kd.losses.adversarial import critic_loss, generator_loss, gradient_penalty, hinge_critic_loss
from tests.refused import refused


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def flat(values, side=4):
    """One image of one grey each, N x 1 x side x side."""
    return values.reshape(-1, 1, 1, 1).expand(-1, 1, side, side)


def train(critic, draw, steps=100):
    """Train a critic on what `draw` gives: conditions, real and fake images."""
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2, betas=(0.0, 0.9))
    for _ in range(steps):
        update(critic, optimizer, *draw())
    return critic


def update(critic, optimizer, condition, real, fake):
    loss = critic_loss(critic(condition, real), critic(condition, fake))
    loss = loss + 10 * gradient_penalty(critic, condition, real, fake)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def norms(critic, condition, real, fake):
    """Norm of each sample's gradient halfway between real and fake, sample by sample."""
    result = []
    for k in range(len(real)):
        image = ((real[k : k + 1] + fake[k : k + 1]) / 2).detach().requires_grad_()
        critic(condition[k : k + 1], image).backward()
        result.append(image.grad.norm().item())
    return torch.tensor(result)


def test_losses_are_differences_of_means():
    real, fake = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([-1.0, 2.0])

    assert critic_loss(real, fake).item() == pytest.approx(0.5 - 3.0)
    assert generator_loss(fake).item() == pytest.approx(-0.5)


def test_the_hinge_loss_leaves_scores_beyond_the_margin_alone():
    real, fake = torch.tensor([1.5, 0.25, -2.0]), torch.tensor([-1.5, 0.5, -0.5, 3.0])
    expected = (0 + 0.75 + 3) / 3 + (0 + 1.5 + 0.5 + 4) / 4
    assert hinge_critic_loss(real, fake).item() == pytest.approx(expected)


def test_the_critic_is_to_score_the_teacher_higher_and_the_student_to_be_scored_higher():
    real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
    critic_loss(real, fake).backward()
    assert torch.equal(-real.grad, torch.full((4,), 0.25))
    assert torch.equal(-fake.grad, torch.full((4,), -0.25))

    fake.grad = None
    generator_loss(fake).backward()
    assert torch.equal(-fake.grad, torch.full((4,), 0.25))


@pytest.mark.parametrize("count", [1, 3])
def test_the_penalty_of_a_linear_critic_is_known(count):
    # <w, x> has the gradient w everywhere, and (|w| - 1)^2 has the gradient 2 (|w| - 1) w / |w|.
    weights = torch.randn(2, 5, 4, requires_grad=True)
    condition, real, fake = (torch.rand(count, 2, 5, 4) for _ in range(3))
    penalty = gradient_penalty(lambda _, image: (image * weights).sum((1, 2, 3)), condition, real, fake)
    penalty.backward()

    norm = weights.detach().square().sum().sqrt()
    torch.testing.assert_close(penalty.detach(), (norm - 1) ** 2, rtol=1e-5, atol=0)
    torch.testing.assert_close(weights.grad, 2 * (norm - 1) * weights.detach() / norm, rtol=1e-5, atol=1e-6)


def test_the_penalty_is_of_each_sample_by_itself():
    # The gradient of |x|^2 / 2 is x: of norms 3, 1 and 0 where real and fake are alike, far from 1 on average.
    image = torch.tensor([3.0, 1.0, 0.0]).reshape(3, 1, 1, 1) * torch.full((3, 1, 2, 2), 0.5)
    penalty = gradient_penalty(lambda _, image: image.square().sum((1, 2, 3)) / 2, image, image, image)

    assert penalty.item() == pytest.approx((4 + 0 + 1) / 3)


def test_the_penalty_is_taken_anywhere_between_real_and_fake_anew_for_each_sample():
    seen = []

    def critic(condition, image):
        seen.append((condition, image.detach()))
        return image.sum((1, 2, 3))

    condition, real, fake = torch.rand(400, 1, 1, 1), torch.rand(400, 2, 3, 3), 2 + torch.rand(400, 2, 3, 3)
    for _ in range(2):
        gradient_penalty(critic, condition, real, fake)
    shares = [(image - real) / (fake - real) for _, image in seen]

    assert torch.equal(seen[0][0], condition)
    for share in shares:
        one = share[:, :1, :1, :1]
        torch.testing.assert_close(share, one.expand_as(share), rtol=0, atol=1e-5)
        counts = one.flatten().histc(4, 0, 1)
        assert counts.sum() == 400
        assert counts.min() > 70
    assert not torch.equal(*shares)


def test_a_critic_that_is_flat_has_a_finite_penalty_and_gradient():
    critic = Critic(num_in_ch=1, num_feat=2, stages=1)
    nn.init.zeros_(critic.score.weight)
    penalty = gradient_penalty(critic, *(torch.rand(2, 1, 4, 4) for _ in range(3)))
    penalty.backward()

    assert penalty.item() == 1
    assert all(torch.isfinite(weight.grad).all() for weight in critic.parameters() if weight.grad is not None)


def test_the_gradient_of_the_penalty_is_that_of_its_formula():
    critic = Critic(num_in_ch=1, num_feat=2, stages=2).double()
    for name, weight in critic.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(weight, 0.7)
    weights = dict(critic.named_parameters())
    condition, real, fake = (torch.rand(2, 1, 4, 5, dtype=torch.float64) for _ in range(3))

    def penalty(*values):
        torch.manual_seed(1)
        named = dict(zip(weights, values, strict=True))
        return gradient_penalty(lambda *pair: torch.func.functional_call(critic, named, pair), condition, real, fake)

    assert torch.autograd.gradcheck(penalty, tuple(weights.values()), fast_mode=True)


def test_the_images_get_no_gradient_from_the_penalty():
    critic = Critic(num_in_ch=1, num_feat=2, stages=1)
    leaves = [torch.rand(2, 1, 4, 4, requires_grad=True) for _ in range(3)]
    gradient_penalty(critic, *leaves).backward()

    assert all(leaf.grad is None for leaf in leaves)
    assert critic.body[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_penalty_is_computed_in_full_precision_under_autocast(dtype):
    critic = Critic(num_in_ch=1, num_feat=4, stages=2)
    batch = [torch.rand(3, 1, 8, 8).to(dtype) for _ in range(3)]
    features = []
    critic.body.register_forward_hook(lambda _, __, result: features.append(result))
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(critic, *batch)
    torch.manual_seed(1)
    expected = gradient_penalty(critic, *(images.float() for images in batch))

    assert [each.dtype for each in (penalty, *features)] == [torch.float32] * 3
    assert torch.equal(penalty, expected)
    penalty.backward()


def test_results_that_differ_in_shape_are_refused():
    with refused("loss.shapes-differ"):
        gradient_penalty(Critic(num_in_ch=1), *(torch.rand(n, 1, 4, 4) for n in (2, 2, 1)))


@pytest.mark.slow
def test_training_brings_the_norm_of_each_gradient_to_one():
    critic = Critic(num_in_ch=1, num_feat=4, stages=2)

    def draw():
        condition = torch.rand(8, 1, 4, 4)
        return condition, condition, condition.roll(2, 3) * 0.5

    batch = draw()
    before = norms(critic, *batch)
    after = norms(train(critic, draw), *batch)

    assert before.max() < 0.5
    assert ((after - 1).abs() < 0.25).all()


@pytest.mark.slow
def test_only_a_critic_that_sees_the_condition_tells_right_from_wrong_images():
    # Real and fake images are equally often bright; which is which depends on the condition alone.
    def draw(sees):
        condition = flat(torch.rand(16).round())
        real, fake = 0.25 + 0.5 * condition, 0.75 - 0.5 * condition
        return condition if sees else torch.zeros_like(condition), real, fake

    margins = []
    for sees in (True, False):
        critic = train(Critic(num_in_ch=1, num_feat=4, stages=2), lambda sees=sees: draw(sees))
        condition, real, fake = draw(sees)
        margins.append((critic(condition, real) - critic(condition, fake)).detach())

    # A 1-Lipschitz critic can tell images apart by as much as their distance, here 4 * 0.5.
    seeing, blind = margins
    assert (seeing > 1).all()
    assert blind.min() < 0.1


@pytest.mark.slow
def test_the_student_moves_to_the_teacher():
    # Images of one grey: the teacher's is brighter than the condition by 0.3, the student's darker by 0.2 at first.
    critic = Critic(num_in_ch=1, num_feat=4, stages=2)
    offset = torch.tensor(-0.2, requires_grad=True)
    for_critic = torch.optim.Adam(critic.parameters(), 1e-2, betas=(0.0, 0.9))
    for_student = torch.optim.SGD([offset], 3e-3)
    path = []
    for _ in range(120):
        condition = flat(torch.rand(8))
        for _ in range(3):
            update(critic, for_critic, condition, condition + 0.3, condition + offset.detach())
        for_student.zero_grad()
        generator_loss(critic(condition, condition + offset)).backward()
        for_student.step()
        path.append(offset.item())

    # It swings around the teacher's.
    assert sum(path[-50:]) / 50 == pytest.approx(0.3, abs=0.1)
