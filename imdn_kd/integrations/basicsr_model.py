"""`DistillModel`: distillation in the training loop of BasicSR."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.config.options import check_options
from imdn_kd.distill.builder import build_distiller
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT, Distiller
from imdn_kd.distill.schema import CRITIC_OPTIM, GROUND_TRUTH_OPTIONS, DistillOptions, TeacherOptions
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.terms import OutputTerm
from imdn_kd.errors import InputError, Problems
from imdn_kd.integrations.basicsr_networks import find, import_basicsr
from imdn_kd.integrations.teachers import open_teacher
from imdn_kd.registry import ARCHS

LABELS = {ADAPTERS: "net_a", CRITIC: "net_d"}
"""Prefixes of the files of what is trained beside the student."""

_models = import_basicsr("basicsr.models.sr_model")

logger = logging.getLogger("basicsr")


class DistillModel(_models.SRModel):  # type: ignore[misc, name-defined]
    """BasicSR's SRModel with knowledge distillation from teachers.

    An option file says `model_type: DistillModel` and has `network_t` and `distill` as our own have, besides what
    SRModel needs, of which losses (`pixel_opt`, and `fft_opt` as here) may be left out. Adapters learn by
    `train.optim_a` (by default as the student does), the critic by `train.optim_d`; all rates follow
    `train.scheduler`, as BasicSR has it. `distill.check_images` has no effect, and `distill.cache` is refused. What
    is trained beside the student is saved beside it, as `net_a_*.pth` and `net_d_*.pth`.

    Args:
        opt: option file as `basicsr.utils.options.parse_options` gives it. Outside training, only the student is built.

    Raises:
        InputError: options that cannot be used, a line each.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        # Not by SRModel, whose network would not state its info and be on the device.
        _models.BaseModel.__init__(self, opt)
        network = _student(opt)
        if self.is_train:
            self._distiller = _distiller(opt, network, self.device)
        self.net_g = self.model_to_device(network)
        self.print_network(self.net_g)
        self._load_pretrained(self.net_g, opt["path"].get("param_key_g", "params"))
        if self.is_train:
            self.init_training_settings()

    def init_training_settings(self) -> None:
        """Make everything ready that is trained."""
        self.ema_decay = self.opt["train"].get("ema_decay", 0)
        if self.ema_decay > 0:
            self.net_g_ema = _student(self.opt).to(self.device).eval()
            self.model_ema(0)
            self._load_pretrained(self.net_g_ema, "params_ema")
        self.net_g.train()
        self._others = self._distiller.to(self.device).trainable_modules()
        if self.opt["dist"]:
            # As BasicSR does for the student by wrapping it, which what is called inside of objectives cannot be.
            for module in self._others.values():
                for value in module.state_dict().values():
                    torch.distributed.broadcast(value, 0)
        self._distiller.student = self.net_g
        self.setup_optimizers()
        self.setup_schedulers()

    def setup_optimizers(self) -> None:
        """Make an optimizer for each trainable module."""
        train = _plain(self.opt["train"])
        optims = {
            STUDENT: train["optim_g"],
            ADAPTERS: train.get("optim_a") or train["optim_g"],
            CRITIC: train.get("optim_d") or CRITIC_OPTIM,
        }
        self._optimizers = {}
        for name, module in {STUDENT: self.net_g, **self._others}.items():
            settings = {**optims[name]}
            kind = settings.pop("type")
            parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
            self._optimizers[name] = self.get_optimizer(kind, parameters, **settings)
        self.optimizers = [*self._optimizers.values()]

    def optimize_parameters(self, current_iter: int) -> None:
        """One update: each optimizer in it takes a step.

        Args:
            current_iter: its number, from 1.
        """
        losses: dict[str, Tensor] = {}
        context: StepContext | None = None
        for optim_step in self._distiller.optim_steps(current_iter - 1):
            optimizers = [self._optimizers[name] for name in optim_step.trains]
            for optimizer in optimizers:
                optimizer.zero_grad()
            if context is None:
                context = self._distiller.run_student({"lq": self.lq, "gt": self.gt})
            parts = optim_step.losses(context)
            torch.autograd.backward(torch.stack([*parts.values()]).sum())
            self._share_gradients([self._others[name] for name in optim_step.trains if name != STUDENT])
            for optimizer in optimizers:
                optimizer.step()
            self.output = context.release_graph().sr
            losses |= {name: part.detach() for name, part in parts.items()}
        self.log_dict = self.reduce_loss_dict(losses)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def save(self, epoch: int, current_iter: int) -> None:
        """Save all trainable modules, and the training state last."""
        for name, module in self._others.items():
            self.save_network(module, LABELS[name], current_iter)
        super().save(epoch, current_iter)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Resume from a training state and what was saved with it.

        Raises:
            InputError: the state is of a run with other trainable modules.
        """
        saved, needed = len(resume_state["optimizers"]), len(self.optimizers)
        if saved != needed:
            raise InputError(
                f"path.resume_state: has {saved} optimisers, but {needed} are needed; give the loss terms of that run",
                code="resume.changed",
            )
        for name, module in self._others.items():
            path = Path(self.opt["path"]["models"]) / f"{LABELS[name]}_{resume_state['iter']}.pth"
            self.load_network(module, str(path))
        super().resume_training(resume_state)

    def _load_pretrained(self, network: nn.Module, key: str) -> None:
        path = self.opt["path"]
        if path.get("pretrain_network_g") is not None:
            self.load_network(network, path["pretrain_network_g"], path.get("strict_load_g", True), key)

    def _share_gradients(self, modules: list[nn.Module]) -> None:
        """Take the mean of the gradients over all processes."""
        if not self.opt["dist"]:
            return
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.opt["world_size"]


def _student(opt: Mapping[str, Any]) -> SRNetwork:
    spec = _plain(opt["network_g"])
    with Problems() as problems, problems.at("network_g"):
        name = spec.get("type")
        if name in ARCHS and find(name) is not None:
            raise InputError(
                f"the project has registered a network of its own as {name!r}; rename it",
                code="registry.name-taken",
            )
        network: SRNetwork = ARCHS.build(spec)
        if network.info.scale != opt["scale"]:
            raise InputError(
                f"{name} enlarges x{network.info.scale}, but scale is {opt['scale']}",
                code="model.scale-mismatch",
            )
    return network


def _distiller(opt: Mapping[str, Any], student: SRNetwork, device: torch.device) -> Distiller:
    """The student with its teachers and loss terms, on the CPU."""
    train, side, scale = opt["train"], opt["datasets"]["train"].get("gt_size"), opt["scale"]
    teachers, distill = _checked(opt)
    if not side:
        raise InputError(
            "datasets.train.gt_size: not given, but DistillModel tries loss terms out on such a patch",
            code="options.missing",
        )
    opened = []
    with Problems() as problems, problems.at("network_t"):
        for each in teachers:
            opened.append(open_teacher(each, scale=scale, num_in_ch=student.info.num_in_ch, device=device))
    build_loss = import_basicsr("basicsr.losses").build_loss
    total = int(train["total_iter"])
    terms = [
        OutputTerm(build_loss(_plain(train[key])), name=name)
        for name, key in GROUND_TRUTH_OPTIONS.items()
        if train.get(key)
    ]
    with Problems() as problems, problems.at("distill"):
        return build_distiller(distill, student, opened, terms=terms, total=total, sides=[side // scale])


def _checked(opt: Mapping[str, Any]) -> tuple[list[TeacherOptions], DistillOptions]:
    for key in ("network_t", "distill"):
        if not opt.get(key):
            raise InputError(
                f"{key}: not given, but DistillModel needs it; SRModel trains without a teacher",
                code="options.missing",
            )
    if opt["num_gpu"] > 1 and not opt["dist"]:
        raise InputError(
            f"num_gpu: {opt['num_gpu']} GPUs need as many processes for DistillModel; start with torchrun and "
            "--launcher pytorch",
            code="options.conflict",
        )
    for key in ("perceptual_opt", "scheduler_d", "reparam", "quantize"):
        if opt["train"].get(key):
            raise InputError(f"train.{key}: not for DistillModel; leave it out", code="options.conflict")
    if opt["train"]["optim_g"].get("type") == "Muon":
        raise InputError(
            "train.optim_g.type: Muon is for imdn-kd train, BasicSR does not know it; give Adam",
            code="options.conflict",
        )
    given = _plain(opt["network_t"])
    several = {f"network_t.{number}": each for number, each in enumerate(given)} if isinstance(given, list) else {}
    teachers = [
        check_options(content, TeacherOptions, where) for where, content in (several or {"network_t": given}).items()
    ]
    distill = check_options(_plain(opt["distill"]), DistillOptions, "distill")
    if distill.cache:
        raise InputError(
            "distill.cache: teacher outputs are cached in stores, which data sets of BasicSR are not; leave it out",
            code="options.conflict",
        )
    if distill.replace_by_gt:
        raise InputError(
            "distill.replace_by_gt: a control of imdn-kd study, not for DistillModel; leave it out",
            code="options.conflict",
        )
    if distill.check_images and "check_images" in distill.model_fields_set:
        logger.info("distill.check_images: no effect in BasicSR; `imdn-kd train` checks the teacher")
    return teachers, distill


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Without BasicSR's ordered dictionaries."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
