import pytest
import torch
from torch import nn
from torch.nn import functional

from imdn_kd.archs.base import ModelInfo
from imdn_kd.distill.step_context import StepContext

every_memory_format = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])


def context(lq, gt):
    return StepContext({"lq": lq, "gt": gt}, student=nn.Identity(), info=ModelInfo(scale=1, receptive_radius=0))


@every_memory_format
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 4), (1, 6)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_enlarged_is_bicubic_interpolation_in_the_memory_format_of_gt(memory_format, size, scale, channels):
    generator = torch.Generator().manual_seed(0)
    lq = torch.rand(2, channels, *size, generator=generator).round()  # overshoots beyond [0, 1]
    gt = torch.zeros(2, channels, *(int(side * scale) for side in size)).contiguous(memory_format=memory_format)

    enlarged = context(lq.contiguous(memory_format=memory_format), gt).enlarged

    expected = functional.interpolate(lq, gt.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1)
    torch.testing.assert_close(enlarged, expected, rtol=0, atol=1e-5)
    assert enlarged.is_contiguous(memory_format=memory_format)


def test_enlarged_is_computed_in_full_precision_under_autocast():
    lq, gt = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 3, 12, 12)
    exact = context(lq, gt).enlarged
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(context(lq, gt).enlarged, exact, rtol=0, atol=0)
