"""The critic of holistic distillation, which learns to tell teacher outputs from student outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations

from imdn_kd.errors import InputError


class Critic(nn.Module):
    """Scores images, each given its LR image (SKD, Liu et al., CVPR 2019, https://arxiv.org/abs/1903.04197, section 3).

    Convolutions of 4x4 and stride 2 that double the width, self-attention after the last two, a mean over all pixels
    and one linear layer. There is no batch norm, nor anything else that mixes samples: the gradient penalty is one of
    each sample. It can be differentiated twice.

    Args:
        num_in_ch: channels of an image; the critic sees twice as many, those of the condition first.
        num_feat: width after the first convolution, doubled by each further one.
        stages: number of convolutions; an image has `min_size` px a side or more.
        spectral_norm: divide every weight by its largest singular value, estimated by a step of the power method in
            each forward pass in training mode (Miyato et al., ICLR 2018, https://arxiv.org/abs/1802.05957).

    Attributes:
        min_size: smallest side of an image, px: 2 ** stages. Any larger one will do, a multiple or not.

    Raises:
        InputError: an argument is less than 1.
    """

    def __init__(self, *, num_in_ch: int = 3, num_feat: int = 64, stages: int = 4, spectral_norm: bool = False) -> None:
        super().__init__()
        if min(num_in_ch, num_feat, stages) < 1:
            given = f"num_in_ch {num_in_ch}, num_feat {num_feat}, stages {stages}"
            raise InputError(f"Critic cannot have {given}; give 1 or more of each", code="critic.invalid-options")
        self.num_in_ch, self.min_size = num_in_ch, 2**stages
        self.body = nn.Sequential()
        width = 2 * num_in_ch
        for stage in range(stages):
            channels_in, width = width, num_feat * 2**stage
            self.body.append(nn.Conv2d(channels_in, width, 4, stride=2, padding=1))
            self.body.append(nn.LeakyReLU(0.1))
            if stage >= stages - 2:
                self.body.append(SelfAttention(width))
        self.score = nn.Linear(width, 1)
        if spectral_norm:
            for layer in self.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    parametrizations.spectral_norm(layer)

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        """Return one score for each image, N, at least float32 even under autocast; higher means more like a teacher's.

        Args:
            condition: N x num_in_ch x H x W in [0, 1], the LR image enlarged to the size of `image`, as by
                bicubic interpolation.
            image: of the same shape, nominally in [0, 1]: an output of the teacher or of the student.

        Raises:
            InputError: the shapes differ or are not as described, or a side is less than `min_size`.
        """
        shape = tuple(image.shape)
        if condition.shape != image.shape or len(shape) != 4 or shape[1] != self.num_in_ch:
            shapes = f"{tuple(condition.shape)} and {shape}"
            raise InputError(
                f"Critic: condition and image must both be N x {self.num_in_ch} x H x W, but are {shapes}",
                code="critic.shapes-differ",
            )
        if min(shape[2:]) < self.min_size:
            size = f"{shape[3]}x{shape[2]}"
            raise InputError(
                f"Critic: images of {size} px are too small; give {self.min_size} px a side or more, or fewer stages",
                code="critic.image-too-small",
            )
        features = self.body(torch.cat((condition, image), 1))
        # Scores are large numbers whose differences count: half precision would round these away.
        with torch.autocast(features.device.type, enabled=False):
            pooled = features.mean((2, 3), dtype=torch.promote_types(features.dtype, torch.float32))
            scores: Tensor = self.score(pooled).squeeze(1)
        return scores


class SelfAttention(nn.Module):
    """Self-attention over all pixels (SAGAN, Zhang et al., ICML 2019, https://arxiv.org/abs/1805.08318, section 3).

    out = gamma * o + x, where o is the mean of the values of all pixels, weighted by the softmax over the keys of
    <query, key>, without the 1 / sqrt(d) of transformers. `gamma` is learnt and 0 at first.

    Args:
        channels: width; that of queries and keys is an eighth of it, at least 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 8)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """From N x C x H x W to the same shape; needs memory for N * (H * W)^2 weights."""
        query, key, value = (layer(features).flatten(2).mT.unsqueeze(1) for layer in (self.query, self.key, self.value))
        # The fused kernels, of CPUs and GPUs alike, have no second derivative, which the gradient penalty needs.
        with sdpa_kernel(SDPBackend.MATH):
            attended = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return features + self.gamma * attended.squeeze(1).mT.reshape(features.shape)
