from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from imdn_kd.training.muon import Muon, orthogonalised


def parameters(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def with_gradients(given, seed):
    generator = torch.Generator().manual_seed(seed)
    for each in given:
        each.grad = torch.randn(each.shape, generator=generator)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16), (1, 9), (9, 1)])
def test_orthogonalised_has_the_directions_of_the_matrix_and_singular_values_near_one(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(torch.from_numpy(matrix), 5).numpy()
    core = left.T @ found @ right.T
    assert abs(core - np.diag(np.diag(core))).max() < 1e-6
    # The published iteration does not converge; tiny values are not reached in five steps.
    large = np.diag(core)[values > 0.05 * np.linalg.norm(values)]
    assert large.min() > 0.6
    assert large.max() < 1.3


def test_a_matrix_of_zeros_stays_one():
    assert torch.equal(orthogonalised(torch.zeros(3, 5), 5), torch.zeros(3, 5))


def test_steps_of_matrices_are_those_of_pytorch_which_computes_in_bf16():
    ours, theirs = parameters((12, 30)), parameters((12, 30))
    mine = Muon(ours, 0.1, momentum=0.9, weight_decay=0.1)
    other = torch.optim.Muon(theirs, 0.1, momentum=0.9, weight_decay=0.1)
    start = ours[0].detach().clone()
    for step in range(5):
        for given, optimizer in ((ours, mine), (theirs, other)):
            with_gradients(given, step)
            optimizer.step()
    moved = (ours[0] - start).norm()
    assert (ours[0] - theirs[0]).norm() < 0.02 * moved


def test_vectors_follow_adam():
    ours, theirs = parameters((7,), ()), parameters((7,), ())
    mine, other = Muon(ours, vector_lr=1e-2), torch.optim.Adam(theirs, 1e-2)
    for step in range(4):
        for given, optimizer in ((ours, mine), (theirs, other)):
            with_gradients(given, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_kernel_steps_as_its_matrix_in_any_memory_format():
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(parameters((6, 4, 3, 3))[0].detach().to(memory_format=layout))
        optimizer = Muon([kernel])
        for step in range(3):
            with_gradients([kernel], step)
            kernel.grad = kernel.grad.to(memory_format=layout)
            optimizer.step()
        results.append(kernel.detach().contiguous())
    (matrix,) = parameters((6, 4, 3, 3))
    matrix = nn.Parameter(matrix.detach().flatten(1))
    optimizer = Muon([matrix])
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        matrix.grad = torch.randn((6, 4, 3, 3), generator=generator).flatten(1)
        optimizer.step()
    for result in results:
        assert (result.flatten(1) - matrix).abs().max() < 1e-6


def test_goes_on_from_its_state_bit_for_bit():
    ours, others = parameters((5, 3, 3, 3), (5,)), parameters((5, 3, 3, 3), (5,))
    first = Muon(ours)
    for step in range(3):
        with_gradients(ours, step)
        first.step()
    with torch.no_grad():
        for mine, other in zip(ours, others, strict=True):
            other.copy_(mine)
    second = Muon(others)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(3, 6):
        for given, optimizer in ((ours, first), (others, second)):
            with_gradients(given, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))


def test_what_has_no_gradient_stays():
    given = parameters((4, 4), (4,), (3, 3))
    before = [each.detach().clone() for each in given]
    optimizer = Muon(given)
    given[2].grad = torch.ones(3, 3)
    optimizer.step()
    assert [torch.equal(a, b) for a, b in zip(given, before, strict=True)] == [True, True, False]


def test_a_quadratic_is_solved():
    (weight,) = parameters((8, 8))
    target = torch.eye(8)
    optimizer = Muon([weight], 0.05)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight - target).norm() < 0.05


@pytest.mark.parametrize(
    "options", [{"momentum": 1}, {"momentum": -0.1}, {"ns_steps": 0}, {"weight_decay": -1}, {"lr": -1}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="0 or more"):
        Muon(parameters((2, 2)), **options)
