"""Option files of `imdn-kd study`: runs that differ in one thing, and the controls that they are compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options

Control = Literal["scratch", "scratch_equal_time", "warm_start", "teacher_replaced_by_gt"]

OF_AN_ARM = ("scratch_equal_time", "warm_start", "teacher_replaced_by_gt")
"""Controls that are made of another arm."""


class ArmOptions(Options):
    """`arms.NAME`: the runs of one kind, one for each seed.

    Attributes:
        control: what makes this arm a control. `scratch`: no teacher, random first weights. `scratch_equal_time`: the
            same for as many more iterations as an iteration of the arm `of` takes longer. `warm_start`: the arm `of`
            without its teacher, with the weights that it begins with. `teacher_replaced_by_gt`: the arm `of` with the
            ground truth in place of the teacher's output.
        of: the arm that a control is made of.
        begins_with: another arm: a run begins with the weights that its run with the same seed selected. Controls made
            of an arm begin with what that one begins with; `scratch` and `scratch_equal_time` with random weights.
        against: the arms that this one is compared with (default: the control of the study, and the controls that are
            made of this arm); [] is none but these controls.
        options: options of `imdn-kd train` over those of the base run and of the study; `_drop_: [KEY, ...]` in a
            section removes keys.
        budget: iterations, instead of those of the study.
        found: what the source found, in a sentence or two.
        source: link to it.
        expect: what that lets one expect of the arm beside what it is compared with: `better`, `worse` or `same`.
    """

    control: Control | None = None
    of: str | None = None
    begins_with: str | None = None
    against: list[str] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    budget: Integer | None = Field(None, ge=1)
    found: str | None = None
    source: str | None = None
    expect: Literal["better", "worse", "same"] | None = None

    @model_validator(mode="after")
    def _control_is_whole(self) -> ArmOptions:
        if self.control in OF_AN_ARM and self.of is None:
            raise PydanticCustomError(
                "control", "control: {control} is made of another arm; name it by `of`", {"control": self.control}
            )
        if self.of is not None and self.control not in OF_AN_ARM:
            raise PydanticCustomError("control", "of: only the controls {names} take it", {"names": _listed(OF_AN_ARM)})
        if self.control is not None and self.begins_with is not None:
            raise PydanticCustomError("control", "begins_with: a control cannot choose its first weights; leave it out")
        if self.control == "scratch_equal_time" and self.budget is not None:
            raise PydanticCustomError("control", "budget: that of scratch_equal_time is measured; leave it out")
        return self


class StudyOptions(Options):
    """A whole option file.

    Attributes:
        name: of the study, and of its folder in `--root`.
        question: what is asked, in a sentence; the head of the report.
        base: option file of `imdn-kd train` that all arms begin with, as seen from this file.
        options: options over those of the base run, for all arms.
        budget: iterations of each run; schedules, the intervals of validations and of loss terms are brought to it in
            proportion, and warm-up is a tenth at most (default: those of the base run).
        seeds: one run of each arm for each.
        control: the arm that the others are compared with.
        select: names of the data sets for validation on which the weights of a run are selected.
        report: names of the data sets for testing on which arms are compared; none of `select`.
        arms: by name.
    """

    name: str
    question: str = ""
    base: str
    options: dict[str, Any] = Field(default_factory=dict)
    budget: Integer | None = Field(None, ge=1)
    seeds: list[Integer] = Field(min_length=1)
    control: str
    select: list[str] = Field(min_length=1)
    report: list[str] = Field(min_length=1)
    arms: dict[str, ArmOptions] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        return _plain(name)

    @field_validator("arms")
    @classmethod
    def _arms_are_plain(cls, arms: dict[str, ArmOptions]) -> dict[str, ArmOptions]:
        for name in arms:
            _plain(name)
        return arms

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise PydanticCustomError("seeds", "give different numbers of 0 or more")
        return seeds

    @model_validator(mode="after")
    def _sets_differ(self) -> StudyOptions:
        both = [name for name in self.select if name in self.report]
        if both:
            raise PydanticCustomError(
                "same_sets",
                "{names}: weights may not be selected on a data set that is reported; name others in select or report",
                {"names": ", ".join(both)},
            )
        return self

    @model_validator(mode="after")
    def _arms_are_there(self) -> StudyOptions:
        for place, name in self._named():
            if name not in self.arms:
                there = ", ".join(self.arms)
                said = "{place}: no arm is called {name}; there are {there}"
                raise PydanticCustomError("no_arm", said, {"place": place, "name": repr(name), "there": there})
        for name, arm in self.arms.items():
            if arm.of is not None and self.arms[arm.of].control is not None:
                said = "arms.{name}.of: {of} is a control itself; name an arm with a teacher"
                raise PydanticCustomError("control", said, {"name": name, "of": arm.of})
            if name in (arm.against or ()):
                raise PydanticCustomError("control", "arms.{name}.against: names the arm itself", {"name": name})
            if arm.control == "scratch_equal_time" and self.scratch is None:
                said = "arms.{name}: is measured against an arm with control: scratch; add one"
                raise PydanticCustomError("no_scratch", said, {"name": name})
            self._check_initial(name)
        return self

    def _check_initial(self, name: str) -> None:
        """Refuse arms that would wait for each other, or whose time would leave out that of another arm."""
        arm, passed, before = self.arms[name], [name], self.arms[name].begins_with
        while before is not None:
            if before in passed:
                raise PydanticCustomError(
                    "begins_with", "arms.{name}.begins_with: leads back to {before}", {"name": name, "before": before}
                )
            if self.arms[before].control == "scratch_equal_time":
                said = "arms.{name}.begins_with: the length of {before} is measured last; name another arm"
                raise PydanticCustomError("begins_with", said, {"name": name, "before": before})
            passed.append(before)
            before = self.initial_arm(before)
        if arm.control == "scratch_equal_time" and arm.of is not None and self.initial_arm(arm.of) is not None:
            said = "arms.{name}: {of} begins with another arm, whose time would not count; name an arm that does not"
            raise PydanticCustomError("begins_with", said, {"name": name, "of": arm.of})

    def initial_arm(self, name: str) -> str | None:
        """The arm whose weights the runs of an arm begin with; None if these come from its options, or are random."""
        arm = self.arms[name]
        if arm.control in ("warm_start", "teacher_replaced_by_gt") and arm.of is not None:
            return self.arms[arm.of].begins_with
        return arm.begins_with

    def _named(self) -> Iterator[tuple[str, str]]:
        yield "control", self.control
        for name, arm in self.arms.items():
            if arm.of is not None:
                yield f"arms.{name}.of", arm.of
            if arm.begins_with is not None:
                yield f"arms.{name}.begins_with", arm.begins_with
            yield from ((f"arms.{name}.against", other) for other in arm.against or ())

    @property
    def scratch(self) -> str | None:
        """The arm without a teacher whose time an iteration the others are compared with."""
        return next((name for name, arm in self.arms.items() if arm.control == "scratch"), None)

    def comparisons(self) -> list[tuple[str, str]]:
        """Which arm is compared with which, in the order of the arms."""
        found = []
        for name, arm in self.arms.items():
            own = [other for other, control in self.arms.items() if control.of == name]
            usual = [] if name == self.control else [self.control]
            found += [
                (name, other) for other in dict.fromkeys([*(usual if arm.against is None else arm.against), *own])
            ]
        return found


def beginnings(study: StudyOptions) -> Iterator[str]:
    """A note on arms that begin with another arm, for tables; none if there are no such arms."""
    begun = [f"{arm} (with {before})" for arm in study.arms if (before := study.initial_arm(arm))]
    if begun:
        yield f"Arms that begin with weights of another arm, whose iterations are not counted: {', '.join(begun)}."


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        said = "{name}: give a name of letters, digits, - and _, which folders are called by"
        raise PydanticCustomError("name", said, {"name": repr(name)})
    return name


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
