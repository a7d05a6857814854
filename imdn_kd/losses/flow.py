"""Flow of the solution procedure: how two layers of a network go together, matched with the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.losses.base import SHAPES_DIFFER, upcast
from imdn_kd.losses.products import products_of

Layers = tuple[Tensor, Tensor]
"""Features of an earlier and a later layer, N x C x H x W and N x D x H x W."""


class FlowLoss(nn.Module):
    """Mean squared difference of the FSP matrices of student and teacher (Yim et al., CVPR 2017, section 3).

    https://doi.org/10.1109/CVPR.2017.754. The matrix of two layers has the inner products of their channels, over the
    pixels: G = F1 F2^T / (H W), C x D. It says how the network goes from one layer to the other, not what is in them.
    Published as the sum over the matrix; here, the mean. `FspTerm` uses it.

    Attributes:
        requires_same_channels: matrices must be of the same size.
        adapts: a 1x1 convolution is trained for the student where widths differ.
    """

    requires_same_channels = True
    adapts = True

    def forward(self, student: Layers, teacher: Layers) -> Tensor:
        """Return the loss, a scalar, at least float32; the teacher gets no gradient.

        Raises:
            InputError: the shapes do not fit.
        """
        shapes = [[tuple(each.shape) for each in layers] for layers in (student, teacher)]
        (first, second), theirs = shapes
        if shapes[0] != theirs or len(first) != 4 or (first[0], *first[2:]) != (second[0], *second[2:]):
            raise InputError(
                "FlowLoss: layers of student and teacher must have the same shapes, both layers the same batch size, "
                f"height and width, but they are {shapes[0]} and {theirs}",
                code=SHAPES_DIFFER,
            )
        with torch.autocast(student[0].device.type, enabled=False):
            ours = flow_matrix(*(upcast(layer) for layer in student))
            return (ours - flow_matrix(*(upcast(layer.detach()) for layer in teacher))).square().mean()


def flow_matrix(first: Tensor, second: Tensor) -> Tensor:
    """The FSP matrix of two layers, N x C x D."""
    pixels = first.shape[2] * first.shape[3]
    return products_of(first.flatten(2), second.flatten(2)) / pixels
