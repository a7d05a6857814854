"""What the student's scores stand beside: those of bicubic interpolation and of the teachers, on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from imdn_kd.evaluation.benchmark import SetScore


@dataclass(frozen=True)
class TeacherScore:
    """PSNR of the teachers (their mean output) before training.

    Attributes:
        data: name of the data set.
        psnr: in dB, by name of the image; of as many images as were asked for.
    """

    data: str
    psnr: Mapping[str, float]


def teacher_score(score: SetScore) -> TeacherScore:
    """Keep of a score what a training state holds."""
    return TeacherScore(score.data, {image.name: image.psnr for image in score.images})


def beside(score: SetScore, bicubic: SetScore | None, teacher: TeacherScore | None) -> str:
    """Describe what others reach on the images of a score, in dB; empty if nothing is known.

    Args:
        score: of the student.
        bicubic: of bicubic interpolation on the same data set; at scale 1 of its input.
        teacher: perhaps on fewer of its images, of which the student's mean is then given as well.
    """
    parts = [] if bicubic is None else [f"{bicubic.model}: {bicubic.psnr:.3f}"]
    if teacher is not None and teacher.data == score.data:
        mean = fmean(teacher.psnr.values())
        same = [image.psnr for image in score.images if image.name in teacher.psnr]
        few = len(same) < len(score.images)
        where = f"on the first {len(same)} of {len(score.images)} images: {fmean(same):.3f}, " if few and same else ""
        parts.append(f"{where}the teacher: {mean:.3f}")
    return f" ({'; '.join(parts)})" if parts else ""


def below_bicubic(figures: Iterable[tuple[str, float, float]], name: str) -> Iterator[str]:
    """One line for each data set on which the student is worse than bicubic interpolation, or at scale 1 its input.

    Args:
        figures: name of the data set, PSNR of the student and of bicubic interpolation in dB.
        name: of the latter.
    """
    for data, student, bicubic in figures:
        if not student >= bicubic:
            yield f"{data}: {student:.2f} dB, less than the {bicubic:.2f} of {name}"
