"""Teachers from options: model files of ours, checkpoints of BasicSR, the official IMDN and spandrel."""

from __future__ import annotations

import torch

from imdn_kd.distill.schema import TeacherOptions
from imdn_kd.distill.teacher import STUDENT_MISMATCH, Teacher
from imdn_kd.errors import InputError
from imdn_kd.inference.device import Precision, choose_dtype
from imdn_kd.inference.model_file import load_model


def open_teacher(
    options: TeacherOptions,
    *,
    scale: int,
    num_in_ch: int = 3,
    device: torch.device | None = None,
    precision: Precision = "fp32",
) -> Teacher:
    """Open a teacher, on the CPU.

    Args:
        options: which one.
        scale: of the student.
        num_in_ch: channels of its images.
        device: where it will run (default: the CPU).
        precision: default of `options.precision`: `fp32`, `bf16` or `fp16`.

    Raises:
        InputError: no such file or network, one that cannot be used, or one of another scale.
    """
    model = load_model(options.weights, options.spec(), key=options.param_key)
    name, info = options.weights, model.network.info
    if info.scale != scale:
        raise InputError(
            f"{name}: upscales x{info.scale}, but scale is {scale}; give a teacher for x{scale}", code=STUDENT_MISMATCH
        )
    if info.num_in_ch != num_in_ch:
        raise InputError(
            f"{name}: takes images of {info.num_in_ch} channels, but the student's have {num_in_ch}; give another one",
            code=STUDENT_MISMATCH,
        )
    return Teacher(
        model.network,
        name=name,
        value_range=options.value_range or model.value_range,
        mean=options.mean,
        self_ensemble=options.self_ensemble,
        precision=choose_dtype(options.precision or precision, device or torch.device("cpu")),
        weight=options.weight,
    )
