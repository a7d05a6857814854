"""Options of teachers and of the loss terms that a student learns from them."""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options, UserPath
from imdn_kd.distill import foreign_keys

CRITIC_OPTIM = {"type": "Adam", "lr": 1e-4, "betas": [0.0, 0.9]}
"""The optimizer of the critic where `train.optim_d` is not given."""

GROUND_TRUTH_OPTIONS = {"l_pix": "pixel_opt", "l_fft": "fft_opt"}
"""Options in `train` of losses against the ground truth, by the names under which these are logged."""

CRITIC_LOSSES = ("d_score", "d_penalty")
"""Names under which the losses of the critic are logged."""


class TeacherOptions(Options):
    """`network_t`: a teacher.

    Attributes:
        type: network of ours or of BasicSR, with its own options; not needed for a model file of ours, an official IMDN
            checkpoint, or one that spandrel recognises.
        weights: checkpoint, or name of a student of the zoo.
        param_key: which weights of a checkpoint, any key in it (default: the EMA weights if there are any).
        value_range: what stands for white in its input and output (default: as its file says, otherwise 1).
        mean: R, G and B in [0, 1] that are subtracted from its input and added to its output.
        self_ensemble: average over the eight rotations and mirror images, at eight times the cost.
        precision: `fp32`, or mixed precision with `bf16` or `fp16` (default: that of the training).
        weight: its weight in the mean of several teachers.
    """

    model_config = ConfigDict(extra="allow")

    moved = foreign_keys.TEACHER

    type: str | None = None
    weights: UserPath
    param_key: str | None = None
    value_range: float | None = Field(None, gt=0)
    mean: list[float] | None = None
    self_ensemble: bool = False
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _options_have_a_type(self) -> TeacherOptions:
        _refuse_misspelt(self)
        extra = self.__pydantic_extra__
        if self.type is None and extra:
            keys = ", ".join(extra)
            raise PydanticCustomError("teacher", "{keys}: options of a network, but there is no type", {"keys": keys})
        return self

    def spec(self) -> dict[str, Any] | None:
        """The spec for the registry; None if the file says what network it is."""
        return None if self.type is None else {"type": self.type, **(self.__pydantic_extra__ or {})}


class LossTermOptions(Options):
    """`distill.objectives.NAME`: a loss term between student and teacher.

    `imdn-kd options objectives` describes every type with its own options.

    Attributes:
        type: a loss between images (`L1Loss`, ...), for the outputs of both; one between features (`PairwiseLoss`,
            `StatisticsLoss`, ...), for `taps`; `FspTerm` and `VidTerm`, for `taps`, too; `ContrastiveLoss`,
            between images, or between features of the teacher (`taps`) made of these; `HolisticTerm`, with a critic;
            or `UpcyclingTerm`.
        loss_weight: factor in the sum.
        taps: features that are compared: names for both networks (`head`, `block.3`, `fusion`, `body_out`, `sr`) or
            paths of modules, `STUDENT: TEACHER` where they differ (default: the outputs, `sr`). Where sizes differ, the
            larger one is pooled.
        tap_weights: factors of these, one for each (default: 1 / their number).
        start_iter: first iteration with a weight, from 0.
        stop_iter: first iteration without one again (default: it has one to the end).
        ramp_iter: iterations in which the weight ramps up from 0 after `start_iter`.
        decay_iter: iterations in which the weight decays to 0 before `stop_iter`, or before the end.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    loss_weight: float = Field(1.0, gt=0)
    taps: list[str | dict[str, str]] | None = None
    tap_weights: list[float] | None = None
    start_iter: Integer = Field(0, ge=0)
    stop_iter: Integer | None = Field(None, ge=1)
    ramp_iter: Integer = Field(0, ge=0)
    decay_iter: Integer = Field(0, ge=0)

    @field_validator("taps")
    @classmethod
    def _taps_are_pairs(cls, taps: list[str | dict[str, str]] | None) -> list[str | dict[str, str]] | None:
        if taps is not None and (not taps or any(isinstance(tap, dict) and len(tap) != 1 for tap in taps)):
            raise PydanticCustomError("taps", "give a list of names, or of STUDENT: TEACHER, one pair each")
        return taps

    @model_validator(mode="after")
    def _fits_together(self) -> LossTermOptions:
        _refuse_misspelt(self)
        for key in ("name", "weight"):
            if key in (self.__pydantic_extra__ or {}):
                said = "no option is called '{key}'; the name is the key of the section, the weight is loss_weight"
                raise PydanticCustomError("misspelt", said, {"key": key})
        if self.tap_weights is not None and len(self.tap_weights) != len(self.taps or ["sr"]):
            raise PydanticCustomError("tap_weights", "tap_weights must be as many as taps")
        if self.tap_weights is not None and (min(self.tap_weights) < 0 or not any(self.tap_weights)):
            raise PydanticCustomError("tap_weights", "tap_weights must be 0 or more, and not all of them 0")
        if self.stop_iter is not None and self.stop_iter <= self.start_iter:
            raise PydanticCustomError("stop_iter", "stop_iter must be later than start_iter")
        return self

    def spec(self) -> dict[str, Any]:
        """The spec for the registries."""
        return {"type": self.type, **(self.__pydantic_extra__ or {})}


def _refuse_misspelt(options: Options) -> None:
    """Refuse keys that would go to a network or loss, but look like misspelt ones of the section."""
    known = type(options).model_fields.keys()
    for key in options.__pydantic_extra__ or {}:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if near:
            said = "no option is called '{key}'; did you mean '{near}'?"
            raise PydanticCustomError("misspelt", said, {"key": key, "near": near[0]})


class DistillOptions(Options):
    """`distill`.

    Attributes:
        objectives: loss terms, by the names under which they are logged, as `l_kd`.
        cache: compute what loss terms compare of the teacher for all training images once, into the store, not in every
            iteration: its outputs, and maps of its features, as far as they fit `cache_limit`.
        cache_limit: GiB that maps of features may take in the store; above, the teacher runs in every iteration. 0 is
            none.
        check_images: how many images of the selection set (without one: of the first set for validation) the teacher
            upscales before training, which is refused if bicubic interpolation, or the student's first weights, do
            better on them; validation shows the student's score on the same images beside the teacher's. 0 is none.
        replace_by_gt: a control: the ground truth stands for the teacher's output in all loss terms.
    """

    objectives: dict[str, LossTermOptions] = Field(min_length=1)
    cache: bool = False
    cache_limit: float = Field(32.0, ge=0)
    check_images: Integer = Field(4, ge=0)
    replace_by_gt: bool = False

    @model_validator(mode="after")
    def _gt_is_not_cached(self) -> DistillOptions:
        if self.replace_by_gt and self.cache:
            raise PydanticCustomError("replace_by_gt", "cache has no use beside replace_by_gt; leave it out")
        return self

    @field_validator("objectives")
    @classmethod
    def _names_are_words(cls, objectives: dict[str, LossTermOptions]) -> dict[str, LossTermOptions]:
        for name in objectives:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                said = "{name}: give a name of letters, digits and _ that begins with a letter, as l_kd"
                raise PydanticCustomError("name", said, {"name": name})
            if name in CRITIC_LOSSES:
                raise PydanticCustomError("name", "{name}: a critic's loss has this name; give another", {"name": name})
        return objectives
