"""Whether teachers are worth learning from: their score before training."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.distill.teacher import Teacher
from imdn_kd.errors import InputError
from imdn_kd.evaluation.benchmark import EvalTask, SetScore, Upsampler, bicubic, make_upsampler, score
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.training.setup.teacher_cache import enlarge

logger = logging.getLogger(__name__)


def compare_teachers(
    teachers: Sequence[Teacher],
    student: SRNetwork | None,
    images: ImageSet,
    *,
    count: int,
    protocol: Protocol | None,
    device: torch.device,
) -> SetScore:
    """Make sure that there is something to learn; return the score of the teachers.

    Args:
        teachers: asked on `device`.
        student: as it is now, if it is trained already.
        images: a set for validation, for the factor of the teachers.
        count: how many images of it are enlarged, from the first on.
        protocol: how they are measured (default: the usual protocol).
        device: where.

    Raises:
        InputError: bicubic interpolation (at scale 1 the input itself) or the student does better.
    """
    few, scale = dataclasses.replace(images, pairs=images.pairs[:count]), images.scale
    rivals = [bicubic(scale)]
    if student is not None:
        rivals.append(
            make_upsampler(Upscaler(student, device=device, precision="fp32", engine="torch"), "the student", scale)
        )
    found = score_teachers(teachers, few, protocol=protocol, device=device)
    others = {rival.name: score(EvalTask(rival, few), protocol=protocol).psnr for rival in rivals}
    where = f"the first {len(few.pairs)} of the {len(images.pairs)} images of {images.name}"
    figures = ", ".join(f"{name} {psnr:.2f} dB" for name, psnr in {found.model: found.psnr, **others}.items())
    if not all(found.psnr > other for other in others.values()):
        raise InputError(
            f"on {where}: {figures}; there is nothing to learn; check the weights, value_range and scale of the "
            "teacher, or set distill.check_images: 0",
            code="teacher.no-better",
        )
    logger.info("on %s: %s", where, figures)
    return found


def score_teachers(
    teachers: Sequence[Teacher], images: ImageSet, *, protocol: Protocol | None, device: torch.device
) -> SetScore:
    """Score the mean output of the teachers."""
    for teacher in teachers:
        teacher.to(device)
    asked = Upsampler("the teacher", images.scale, lambda lr: enlarge(teachers, lr))
    return score(EvalTask(asked, images), protocol=protocol)
