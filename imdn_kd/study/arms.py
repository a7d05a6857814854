"""From an arm of a study to the options of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imdn_kd.config.layers import DROP
from imdn_kd.errors import InputError
from imdn_kd.evaluation.study.schema import ArmOptions, StudyOptions

Content = dict[str, Any]


def arm_content(study: StudyOptions, base: Content, name: str) -> Content:
    """What an option file of an arm would hold, before its budget; plain values.

    Args:
        study: the study.
        base: content of the base run.
        name: of the arm.

    Raises:
        InputError: a control cannot be made of what it is made of, or a key to drop is not there.
    """
    arm, place = study.arms[name], f"arms.{name}"
    if arm.of is not None and arm.control != "scratch_equal_time":
        content = arm_content(study, base, arm.of)
    else:
        content = overlay(base, study.options, "options")
    begins = study.initial_arm(name) is not None
    return overlay(_as_control(content, arm, place, begins=begins), arm.options, f"{place}.options")


def overlay(content: Content, changes: Mapping[Any, Any], place: str) -> Content:
    """Content with changes laid over it: sections key by key, other values replaced, keys of `_drop_` removed.

    Raises:
        InputError: a key to drop is not there; the message begins with `place`.
    """
    result = dict(content)
    dropped = changes.get(DROP, [])
    if not isinstance(dropped, list) or any(key not in result for key in dropped):
        there = ", ".join(map(str, result)) or "none"
        raise InputError(f"{place}.{DROP}: give a list of keys that are there: {there}", code="options.drop-unknown")
    for key in dropped:
        del result[key]
    for key, value in changes.items():
        if isinstance(value, Mapping):
            inside = result.get(key)
            result[key] = overlay(inside if isinstance(inside, dict) else {}, value, f"{place}.{key}")
        elif key != DROP:
            result[key] = value
    return result


def _as_control(content: Content, arm: ArmOptions, place: str, *, begins: bool) -> Content:
    if arm.control is None:
        return content
    path = content.get("path") or {}
    if arm.control == "teacher_replaced_by_gt":
        distill = content.get("distill")
        if not isinstance(distill, dict):
            raise InputError(f"{place}: {arm.of} has no teacher; name an arm with one", code="study.no-teacher")
        kept = {key: value for key, value in distill.items() if key != "cache"}
        return {**content, "distill": {**kept, "replace_by_gt": True, "check_images": 0}}
    content = _without_teacher(content)
    if arm.control == "warm_start":
        given = any(each.get(key) for each in (path, arm.options.get("path") or {}) for key in _WARM)
        if not given and not begins:
            raise InputError(
                f"{place}: {arm.of} begins with random weights; give it begins_with or path.pretrain_network_g, or use "
                "scratch",
                code="study.no-warm-start",
            )
        return content
    return {key: value for key, value in content.items() if key != "path"}


_WARM = ("pretrain_network_g", "pretrain_model_g")


def _without_teacher(content: Content) -> Content:
    result = {key: value for key, value in content.items() if key not in ("network_t", "distill")}
    train = result.get("train")
    if isinstance(train, dict):
        of_teachers = ("optim_a", "optim_d", "scheduler_d")
        result["train"] = {key: value for key, value in train.items() if key not in of_teachers}
    return result
