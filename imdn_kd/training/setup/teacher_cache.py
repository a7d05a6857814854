"""What teachers do before training: show that they are worth learning from, and write down their results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.data.store import Store
from imdn_kd.data.store_writer import add_plane
from imdn_kd.distill.schema import TeacherOptions
from imdn_kd.distill.teacher import Teacher, mean_of
from imdn_kd.errors import InputError, naming
from imdn_kd.evaluation.benchmark import EvalTask, SetScore, Upsampler, bicubic, make_upsampler, score
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.image.rgb import RgbImage
from imdn_kd.inference.upscaler import Upscaler

logger = logging.getLogger(__name__)


class TeacherCache:
    """The results of teachers for all images of a store, as a plane of it.

    Args:
        store: the store.
        scale: the factor.
        teachers: in the order of `options`.
        options: which teachers these are.

    Attributes:
        key: name of the plane, made from the weights and settings of the teachers: other teachers get another one.
    """

    def __init__(
        self, store: Store, scale: int, teachers: Sequence[Teacher], options: Sequence[TeacherOptions]
    ) -> None:
        self._store, self._teachers = store, teachers
        self._source = store.lq_plane(Fraction(scale))
        self._description = {
            "scale": str(scale),
            "teachers": [
                {
                    "network": teacher.network.spec,
                    "weights": _checksum(teacher.network),
                    "value_range": teacher.value_range,
                    "mean": each.mean,
                    "self_ensemble": each.self_ensemble,
                    "weight": each.weight,
                    "precision": str(teacher.precision).removeprefix("torch."),
                }
                for each, teacher in zip(options, teachers, strict=True)
            ],
        }
        stamp = hashlib.sha256(json.dumps(self._description, sort_keys=True).encode()).hexdigest()
        self.key = f"sr_x{scale}_{stamp[:12]}"

    @property
    def is_there(self) -> bool:
        """Whether it is complete."""
        return Store(self._store.path).has(self.key)

    def fill(self, device: torch.device, on_image: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compute what is missing; can be interrupted and resumed.

        Args:
            device: where.
            on_image: called with the number of images that are done, and of all.

        Raises:
            InputError: the store cannot be written.
        """
        for teacher in self._teachers:
            teacher.to(device)
        total = len(self._store)

        def make(index: int) -> RgbImage:
            on_image(index, total)
            with naming(f"{self._store.path}: {self._store.name(index)}"):
                return _enlarge(self._teachers, self._store.image(index, self._source))

        try:
            add_plane(self._store.path, self.key, make, description=self._description)
        except OSError as error:
            advice = "see to it, and do the same again, which resumes from here"
            raise InputError(
                f"{self._store.path}: cannot be written ({error.strerror}); {advice}", code="store.cannot-write"
            ) from error
        on_image(total, total)


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
    asked = Upsampler("the teacher", images.scale, lambda lr: _enlarge(teachers, lr))
    return score(EvalTask(asked, images), protocol=protocol)


def _enlarge(teachers: Sequence[Teacher], lr: RgbImage) -> RgbImage:
    lq = torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].to(teachers[0].mean.device).float() / 255
    sr = mean_of(teachers, [teacher(lq) for teacher in teachers])
    if not sr.isfinite().all():
        names = ", ".join(teacher.name for teacher in teachers)
        raise InputError(
            f"{names}: gives values that are not finite; check weights, value_range and precision",
            code="teacher.not-finite",
        )
    sr = sr.clamp(0, 1).mul(255).round().byte()
    pixels: RgbImage = sr[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def _checksum(network: nn.Module) -> str:
    """SHA-256 over the names and the values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
