"""Option files of `imdn-kd train`: the training options of BasicSR, and what it lacks, checked against a schema."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from imdn_kd import zoo
from imdn_kd.config.options import Integer, Options, UserPath
from imdn_kd.config.problems import UNKNOWN
from imdn_kd.data.schema import TrainDataOptions
from imdn_kd.distill import foreign_keys
from imdn_kd.distill.schema import CRITIC_OPTIM, GROUND_TRUTH_OPTIONS, DistillOptions, TeacherOptions
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.evaluation.schema import DatasetOptions, ValOptions

PHASES = ("val", "test")
"""How the names of data sets begin that are measured: during training, and at its end."""


class DatasetsOptions(Options):
    """`datasets`: `train`, and any number of data sets to measure on.

    Those called `val`, `val_2`, `val_kodak`, ... are scored every `val.val_freq` iterations; those called `test`,
    `test_1`, ... once, at the end, with the weights that were selected.

    Attributes:
        train: what is trained on.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, DatasetOptions]

    train: TrainDataOptions

    @model_validator(mode="before")
    @classmethod
    def _known_phases(cls, content: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """Tell of other keys before what is in them is judged as if it were a data set to measure on."""
        keys = map(str, content) if isinstance(content, dict) else ()
        strange = [key for key in keys if key != "train" and not key.startswith(PHASES)]
        if strange:
            raise _wrong({key: _strange(key) for key in strange}, content)
        return content

    def named(self, phase: Literal["val", "test"]) -> dict[str, DatasetOptions]:
        """The data sets of a phase by their keys, in the order of the file."""
        return {key: dataset for key, dataset in self.__pydantic_extra__.items() if key.startswith(phase)}

    def measured(self, phase: Literal["val", "test"]) -> list[DatasetOptions]:
        """The data sets of a phase, in the order of the file."""
        return [*self.named(phase).values()]


def _strange(key: str) -> PydanticCustomError:
    near = difflib.get_close_matches(key, ("train", *PHASES), n=1, cutoff=0.7)
    hint = f"did you mean {near[0]!r}?" if near else "data sets are called train, val, val_2, ... or test, test_2, ..."
    return PydanticCustomError(UNKNOWN, "no option is called '{key}'; {hint}", {"key": key, "hint": hint})


def _wrong(problems: Mapping[str, PydanticCustomError | str], content: Any) -> ValidationError:  # noqa: ANN401
    """What is wrong with keys of a section, for validators that see it as it stands in the file."""
    details = [InitErrorDetails(type=problem, loc=(key,), input=content) for key, problem in problems.items()]
    return ValidationError.from_exception_data("options", details)


class NetworkOptions(Options):
    """`network_g`: a network by name, with its own options.

    Attributes:
        type: one of ours (`imdn`, `imdn_s`, `imdn_l`, `imdn_rtc`, `IMDN`, ...), or of BasicSR (`EDSR`, `RCAN`, ...).
    """

    model_config = ConfigDict(extra="allow")

    type: str

    def spec(self) -> dict[str, Any]:
        """What the registry builds from."""
        return self.model_dump()


class PathOptions(Options):
    """`path`.

    Attributes:
        pretrain_network_g: weights to start from, a file or the name of a student that ships; a run that is resumed has
            its own.
        param_key_g: which of the weights in a checkpoint, any key in it; by default the averaged ones if there are any.
        strict_load_g: refuse weights that do not fit; with false, what fits is taken and the rest is named.
        resume_state: training state to resume from, where --auto_resume is not given or finds none.
        pretrain_model_g: older name of `pretrain_network_g`.
        strict_load: older name of `strict_load_g`.
    """

    moved = foreign_keys.PATH

    pretrain_network_g: UserPath | None = None
    param_key_g: str | None = None
    strict_load_g: bool = True
    resume_state: UserPath | None = None
    pretrain_model_g: UserPath | None = None
    strict_load: bool | None = None

    @model_validator(mode="after")
    def _given_once(self) -> PathOptions:
        for old, new in (("pretrain_model_g", "pretrain_network_g"), ("strict_load", "strict_load_g")):
            if {old, new} <= self.model_fields_set:
                raise PydanticCustomError("twice", f"{old} is the older name of {new}; give {new} alone")
        return self

    @property
    def pretrained(self) -> str | None:
        """The file of the weights to start from."""
        given = self.pretrain_network_g or self.pretrain_model_g
        student = None if given is None else zoo.find(given)
        return given if student is None else str(student.path)

    @property
    def strict(self) -> bool:
        """Whether these must fit."""
        return self.strict_load_g if self.strict_load is None else self.strict_load


class OptimOptions(Options):
    """`train.optim_g`: an optimiser, with its own options.

    Attributes:
        type: its name in `torch.optim`, as `Adam`; or `Muon`, which orthogonalises the steps of kernels (options
            `vector_lr`, `momentum`, `ns_steps`, `weight_decay`).
        lr: learning rate.
    """

    model_config = ConfigDict(extra="allow")

    type: str = "Adam"
    lr: float = Field(gt=0)

    def settings(self) -> dict[str, Any]:
        """What its constructor takes."""
        return self.model_dump(exclude={"type"})


class MultiStepOptions(Options):
    """`train.scheduler`: the rate is multiplied at milestones.

    Attributes:
        type: `MultiStepLR`, or `MultiStepRestartLR`, the same.
        milestones: after how many iterations.
        gamma: by how much.
        restarts: after how many iterations the rate goes back to the first one.
        restart_weights: times this, one for each restart.
    """

    type: Literal["MultiStepLR", "MultiStepRestartLR"]
    milestones: list[Integer]
    gamma: float = Field(0.1, gt=0)
    restarts: list[Integer] = Field(default_factory=lambda: [0])
    restart_weights: list[float] = Field(default_factory=lambda: [1.0])


class CosineOptions(Options):
    """`train.scheduler`: cosine annealing with restarts (https://arxiv.org/abs/1608.03983).

    Attributes:
        type: `CosineAnnealingRestartLR`.
        periods: iterations of each cosine.
        restart_weights: factor of the rate in each.
        eta_min: rate where each ends.
    """

    type: Literal["CosineAnnealingRestartLR"]
    periods: list[Integer]
    restart_weights: list[float] = Field(default_factory=lambda: [1.0])
    eta_min: float = Field(0, ge=0)


class StableDecayOptions(Options):
    """`train.scheduler`: the rate is constant, then decays as 1 - sqrt(x) (https://arxiv.org/abs/2405.18392).

    Attributes:
        type: `WarmupStableDecayLR`; with `warmup_iter`, the schedule of https://arxiv.org/abs/2404.06395.
        decay_iter: iterations of the decay, the last ones of `total_iter`.
        restart_weights: the first is a factor of the rate; with `--minutes`, the last is that of later segments.
        eta_min: rate of the last iteration.
    """

    type: Literal["WarmupStableDecayLR"]
    decay_iter: Integer = Field(0, ge=0)
    restart_weights: list[float] = Field(default_factory=lambda: [1.0], min_length=1)
    eta_min: float = Field(0, ge=0)


Scheduler = Annotated[MultiStepOptions | CosineOptions | StableDecayOptions, Field(discriminator="type")]

SCHEDULERS = ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR", "WarmupStableDecayLR")

OPEN_END = 10**9
"""`total_iter` of a run that `--minutes` ends."""


class LossOptions(Options):
    """`train.pixel_opt` and `train.fft_opt`: a loss between output and ground truth, with its own options.

    Attributes:
        type: `L1Loss`, `MSELoss`, `CharbonnierLoss` or `FFTLoss`.
        loss_weight: factor of the loss in the sum.
        reduction: only `mean`: with others the step would depend on the batch size.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    loss_weight: float = Field(1.0, gt=0)
    reduction: Literal["mean"] = "mean"

    def spec(self) -> dict[str, Any]:
        """What the registry builds from."""
        return self.model_dump(exclude={"loss_weight", "reduction"})


class ReparamOptions(Options):
    """`train.reparam`: 3x3 convolutions are trained as wider linear blocks, and saved plain.

    Sources: https://arxiv.org/abs/2103.09404; of the edge operators, https://doi.org/10.1145/3474085.3475291.

    Attributes:
        width: hidden channels of a block per channel of its convolution.
        edge_operators: blocks also have branches with the Sobel operators and the Laplacian.
    """

    width: Integer = Field(4, ge=1)
    edge_operators: bool = False


class QuantizeOptions(Options):
    """`train.quantize`: convolutions are trained as they run in 8 bits (fake quantisation), and saved so.

    Source: https://arxiv.org/abs/1712.05877.

    Attributes:
        calibration_iter: the ranges of the inputs of convolutions are the extremes in the batches of so many
            iterations, found before the first one with the weights that training starts from.
        float_layers: paths of convolutions that stay in floating point.
    """

    calibration_iter: Integer = Field(20, ge=1)
    float_layers: list[str] = Field(default_factory=list)


class TrainingOptions(Options):
    """`train`.

    Attributes:
        total_iter: iterations in all.
        warmup_iter: iterations in which the learning rate rises from 0; -1 is none.
        optim_g: the optimiser.
        scheduler: learning rate schedule; without it the rate is constant.
        optim_a: the optimiser of adapters, which bring features of the student to the width of the teacher's; its rate
            follows the same schedule. By default `optim_g`.
        optim_d: the optimiser of the critic, for `HolisticTerm`.
        scheduler_d: its learning rate schedule; without it the rate is constant.
        ema_decay: decay of the EMA of the weights, which is validated and saved; 0: no EMA.
        pixel_opt: pixel loss to the ground truth.
        fft_opt: loss between the Fourier spectra, in addition.
        reparam: train 3x3 convolutions as wider linear blocks (re-parameterisation); models are saved without them.
        quantize: train convolutions in 8 bits (quantisation-aware training).
        precision: `fp32`, or mixed precision with `bf16` or `fp16` (GPU only).
        channels_last: memory layout of the network, faster in most cases.
        compile: compile the network (torch.compile): a minute or more at the start, then faster on GPUs.
        grad_clip: largest norm of the student's gradient; larger ones are scaled down. None is no limit.
        accumulation: batches per iteration, whose gradients are averaged (gradient accumulation).
        max_skipped: iterations with non-finite gradients are skipped; so many in a row end the run.
    """

    moved = foreign_keys.TRAIN

    total_iter: Integer = Field(ge=1)
    warmup_iter: Integer = Field(-1, ge=-1)
    optim_g: OptimOptions
    scheduler: Scheduler | None = None
    optim_a: OptimOptions | None = None
    optim_d: OptimOptions = OptimOptions.model_validate(CRITIC_OPTIM)
    scheduler_d: Scheduler | None = None
    ema_decay: float = Field(0, ge=0, lt=1)
    pixel_opt: LossOptions | None = None
    fft_opt: LossOptions | None = None
    reparam: ReparamOptions | None = None
    quantize: QuantizeOptions | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    grad_clip: float | None = Field(None, gt=0)
    accumulation: Integer = Field(1, ge=1)
    max_skipped: Integer = Field(20, ge=1)

    @field_validator("scheduler", "scheduler_d", mode="before")
    @classmethod
    def _known_scheduler(cls, value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        if isinstance(value, dict) and value.get("type") not in SCHEDULERS:
            known = PydanticCustomError("scheduler", "is to be {one}", {"one": " or ".join(SCHEDULERS)})
            raise _wrong({"type": known if "type" in value else "missing"}, value)
        return value

    @model_validator(mode="after")
    def _one_form(self) -> TrainingOptions:
        if self.reparam is not None and self.quantize is not None:
            raise PydanticCustomError(
                "twice", "quantize trains the convolutions that reparam collapses to; give one of the two"
            )
        return self

    @property
    def is_open(self) -> bool:
        """Whether the clock ends the run, see `imdn_kd.training.timed`."""
        return self.total_iter == OPEN_END

    def losses(self) -> dict[str, LossOptions]:
        """The losses that are asked for, by the names in `GROUND_TRUTH_OPTIONS`."""
        named = {name: getattr(self, option) for name, option in GROUND_TRUTH_OPTIONS.items()}
        return {name: loss for name, loss in named.items() if loss is not None}


class ValidationOptions(ValOptions):
    """`val`.

    Attributes:
        val_freq: iterations from one validation to the next.
        save_img: keep the results in `experiments/NAME/visualization`.
        metrics: how images are measured; without it, by the protocol of published tables.
        pbar: accepted for BasicSR's sake.
        suffix: likewise; the iteration stands in the names of saved images.
        select_on: name of the data set by whose figures the best weights are kept; or several, for their mean.
        select_on_benchmark: allow this to be one that results are reported on, which makes these look better than
            they are.
    """

    val_freq: Integer = Field(ge=1)
    pbar: bool | None = None
    suffix: str | None = None
    select_on: str | list[str] | None = None
    select_on_benchmark: bool = False

    @field_validator("select_on")
    @classmethod
    def _selects_on_something(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(set(value)) < max(len(value), 1):
            raise PydanticCustomError("select_on", "give the name of a data set, or a list of different ones")
        return value

    @property
    def selection(self) -> list[str]:
        """The data sets that weights are selected on; empty if there is no selection."""
        if self.select_on is None:
            return []
        return self.select_on if isinstance(self.select_on, list) else [self.select_on]


class WandbOptions(Options):
    """`logger.wandb`.

    Attributes:
        project: name of the project; without it, wandb is not used.
        resume_id: the run to resume.
    """

    harmless = foreign_keys.HARMLESS_WANDB

    project: str | None = None
    resume_id: str | None = None


class LoggerOptions(Options):
    """`logger`.

    Attributes:
        print_freq: iterations from one line of the log to the next.
        save_checkpoint_freq: iterations from one checkpoint to the next.
        keep_last: how many training states are kept, 0 for all; models are always kept.
        use_tb_logger: write curves for TensorBoard.
        wandb: Weights & Biases.
    """

    harmless = foreign_keys.HARMLESS_LOGGER

    print_freq: Integer = Field(default=100, ge=1)
    save_checkpoint_freq: Integer = Field(default=5000, ge=1)
    keep_last: Integer = Field(default=3, ge=0)
    use_tb_logger: bool = True
    wandb: WandbOptions = WandbOptions()


class DistOptions(Options):
    """`dist_params`: accepted for BasicSR's sake; the launcher says how processes find each other.

    Attributes:
        backend: not used: NCCL on GPUs, Gloo on CPUs.
        port: not used.
    """

    backend: str | None = None
    port: Integer | None = None


class TrainOptions(Options):
    """A whole option file.

    Attributes:
        name: of the run, and of its folder in `experiments`.
        scale: the factor; 1 trains a network that restores images: denoises, deblurs, ...
        datasets: what is trained and measured on.
        network_g: the network.
        path: weights to begin with.
        train: how it is trained.
        val: how it is measured meanwhile; without it, not at all.
        logger: what is written when.
        network_t: the teacher, or several, whose results count by their weights.
        distill: what the student learns from them.
        manual_seed: of all random numbers; where BasicSR draws one if it is not given, it is 0 here.
        num_gpu: 0 for the CPU; otherwise a GPU for each process, if there are any.
        model_type: those of BasicSR that are trained with losses between pixels.
        find_unused_parameters: for networks of which a part has no gradient, when several processes train.
        imports: your own files (`my_networks.py`, as seen from this file) or modules that register networks, losses and
            loss terms; imported before anything is built.
        dist_params: accepted for BasicSR's sake.
    """

    moved = foreign_keys.WHOLE
    harmless = foreign_keys.HARMLESS_WHOLE

    name: str
    scale: Integer = Field(ge=1)
    datasets: DatasetsOptions
    network_g: NetworkOptions
    train: TrainingOptions
    network_t: TeacherOptions | list[TeacherOptions] | None = None
    distill: DistillOptions | None = None
    path: PathOptions = PathOptions()
    val: ValidationOptions | None = None
    logger: LoggerOptions = LoggerOptions()
    manual_seed: Integer = Field(0, ge=0, le=2**63)
    num_gpu: Integer | Literal["auto"] = "auto"
    model_type: Literal["SRModel", "SwinIRModel"] = "SRModel"
    find_unused_parameters: bool = False
    imports: list[str] | None = None
    dist_params: DistOptions = DistOptions()

    @model_validator(mode="before")
    @classmethod
    def _trained_here(cls, content: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """Refuse files of BasicSR's other models as a whole: hardly one of their options would be known."""
        kind = content.get("model_type") if isinstance(content, dict) else None
        if isinstance(kind, str) and kind.endswith("Model") and kind not in ("SRModel", "SwinIRModel"):
            message = "{kind} is not trained here, but SRModel and SwinIRModel: pixel losses alone; use BasicSR for it"
            raise _wrong({"model_type": PydanticCustomError("other_model", message, {"kind": kind})}, content)
        return content

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        # 255 bytes are the limit of file systems; names of log files are longer than that of the run.
        if name in ("", ".", "..") or set(name) & set("/\\\0") or len(name.encode()) > 200:
            raise PydanticCustomError("name", "is to be the name of a folder: no slashes, 200 bytes at most")
        return name

    @field_validator("num_gpu", mode="before")
    @classmethod
    def _num_gpu_counts(cls, value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "auto" and not (number and value >= 0 and float(value).is_integer()):
            raise PydanticCustomError("num_gpu", "give the number of GPUs, 0 for the CPU, or auto")
        return value

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> TrainOptions:
        if self.distill is None and not self.train.losses():
            raise PydanticCustomError("no_loss", "train: there is no loss; give pixel_opt")
        if self.distill is not None and not self.teachers():
            raise PydanticCustomError("no_teacher", "distill: there is no teacher; give network_t")
        return self

    def teachers(self) -> list[TeacherOptions]:
        """The teachers."""
        if self.network_t is None:
            return []
        return self.network_t if isinstance(self.network_t, list) else [self.network_t]

    def protocol(self) -> Protocol | None:
        """How images are measured; None for the usual protocol."""
        return None if self.val is None else self.val.protocol(self.scale)
