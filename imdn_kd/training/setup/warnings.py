"""Options that do nothing, or not quite what they do in BasicSR: said before training, never silently passed over."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from imdn_kd.data.schema import TrainDataOptions
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, Distiller
from imdn_kd.distill.terms import FeatureTerm
from imdn_kd.training import distributed as launch
from imdn_kd.training.schema import CosineOptions, MultiStepOptions, TrainOptions

EMA_FIRST = 0.01
"""Part of the first weights in their EMA at the end of a run, from which on it is told."""


def config_warnings(options: TrainOptions, processes: int = 1) -> list[str]:
    """One line for each option whose meaning differs from BasicSR's or which has no effect in this file.

    Args:
        options: of the run.
        processes: how many train together.
    """
    parts = (
        options.ignored_keys(),
        _without_counterpart(options),
        _old_names(options),
        _data(options.datasets.train),
        _schedule(options),
        length_warnings(options, options.train.total_iter),
        _measuring(options),
    )
    return [*_run(options, processes), *(line for part in parts for line in part)]


def distill_warnings(options: TrainOptions, distiller: Distiller) -> Iterator[str]:
    """One line for each option about teachers, and what is learned from them, that has no effect.

    Args:
        options: of the run.
        distiller: made of these.
    """
    given, modules = options.train.model_fields_set, distiller.trainable_modules()
    if options.distill is None:
        if options.teachers():
            yield "network_t: no effect, since there is no section distill"
    else:
        looked_at = options.val is not None and options.datasets.measured("val")
        if "check_images" in options.distill.model_fields_set and options.distill.check_images and not looked_at:
            yield "distill.check_images: the teacher is not looked at, since there is no set for validation"
        cacheable = [term for term in distiller.terms if term.uses_teacher_output or isinstance(term, FeatureTerm)]
        if options.distill.cache and not cacheable:
            yield "distill.cache: no effect, since no loss term compares outputs or features for the batch"
        if "cache_limit" in options.distill.model_fields_set and not options.distill.cache:
            yield "distill.cache_limit: no effect without distill.cache"
        if options.train.compile:
            yield "train.compile: the norms of the gradients of single losses are not logged"
    for compared in (term for term in distiller.terms if isinstance(term, FeatureTerm)):
        for pair in (pair for of_teacher in compared.pairs for pair in of_teacher if pair.pooled):
            yield f"distill.objectives.{compared.name}: {pair.pooled}"
    if "optim_a" in given and ADAPTERS not in modules:
        yield "train.optim_a: no effect, since there are no adapters: VidTerm has some, MimicLoss for unequal widths"
    for key in ("optim_d", "scheduler_d"):
        if key in given and CRITIC not in modules:
            yield f"train.{key}: no effect, since there is no HolisticTerm"


def device_warnings(options: TrainOptions, device: torch.device) -> Iterator[str]:
    """One line if the run is on another device than the options ask for, or leaves GPUs idle."""
    gpus = torch.cuda.device_count()
    if options.num_gpu != 0 and device.type == "cpu":
        yield "num_gpu: there is no GPU here; the run is on the CPU"
    if options.num_gpu == "auto" and gpus > 1 and launch.world_size() == 1:
        yield f"num_gpu: one of {gpus} GPUs is used; all with torchrun --nproc_per_node {gpus} -m imdn_kd train ..."


def _run(options: TrainOptions, processes: int) -> Iterator[str]:
    if "debug" in options.name:
        yield "name: 'debug' in it has no effect; BasicSR would validate and save every 8 iterations"
    if isinstance(options.num_gpu, int) and options.num_gpu > 1 and processes == 1:
        yield (
            f"num_gpu: {options.num_gpu} GPUs need as many processes, and batches are those of one GPU; start with "
            f"torchrun --nproc_per_node {options.num_gpu} -m imdn_kd train ..."
        )
    for key in ("backend", "port"):
        if key in options.dist_params.model_fields_set:
            yield f"dist_params.{key}: no effect; the launcher says how processes find each other"
    if options.model_type == "SwinIRModel":
        yield "model_type: SwinIRModel is trained as SRModel; images are padded to its windows by repeating their edges"


def _old_names(options: TrainOptions) -> Iterator[str]:
    sections = (
        ("datasets.train", options.datasets.train, {"use_flip": "use_hflip"}),
        ("path", options.path, {"pretrain_model_g": "pretrain_network_g", "strict_load": "strict_load_g"}),
    )
    for place, section, names in sections:
        for old, new in names.items():
            if old in section.model_fields_set:
                yield f"{place}.{old}: read as {new}, as BasicSR calls it now"
    start = options.path.pretrained
    if start is not None and options.path.param_key_g is None and not start.endswith(".safetensors"):
        yield "path.param_key_g: not given, so params_ema is taken if it is there; BasicSR takes params"


def _without_counterpart(options: TrainOptions) -> Iterator[str]:
    """Options that only mean something beside another one."""
    val, wandb = options.val, options.logger.wandb
    if wandb.resume_id is not None and wandb.project is None:
        yield "logger.wandb.resume_id: no effect without project"
    if val is not None and val.select_on_benchmark and val.select_on is None:
        yield "val.select_on_benchmark: no effect without select_on"
    for name, metric in {} if val is None else val.metrics.items():
        if metric.better == "lower" and metric.type in ("calculate_psnr", "calculate_ssim"):
            yield f"val.metrics.{name}.better: no effect; higher is better"


def _data(data: TrainDataOptions) -> Iterator[str]:
    given = data.model_fields_set
    for key in ("dataset_enlarge_ratio", "use_shuffle"):
        if key in given:
            yield f"datasets.train.{key}: no effect; there are no epochs, every iteration draws its patches at random"
    for key in ("prefetch_mode", "persistent_workers"):
        if getattr(data, key) is not None:
            yield f"datasets.train.{key}: no effect; threads cut patches ahead, for as long as the run lasts"
    if "num_worker_per_gpu" in given:
        yield "datasets.train.num_worker_per_gpu: threads rather than processes; which patches are cut is the same"
    if "num_prefetch_queue" in given and data.num_worker_per_gpu == 0:
        yield "datasets.train.num_prefetch_queue: no effect, since num_worker_per_gpu is 0"
    elsewhere = {
        "StoreDataset": ("dataroot_gt", "dataroot_lq", "meta_info_file", "filename_tmpl", "io_backend"),
        "PairedImageDataset": ("dataroot",),
    }
    for key in elsewhere.get(data.type, ()):
        if key in given:
            yield f"datasets.train.{key}: no effect with {data.type}"
    if data.type == "PairedImageDataset" and data.io_backend.type == "lmdb":
        for key in ("meta_info_file", "filename_tmpl"):
            if key in given:
                yield f"datasets.train.{key}: no effect with LMDB, whose two sides have the same keys, all of them used"
    if data.gt_sizes:
        yield "datasets.train.gt_size and batch_size_per_gpu: no effect beside gt_sizes and mini_batch_sizes"


def _schedule(options: TrainOptions) -> Iterator[str]:
    train = options.train
    total = train.total_iter
    if isinstance(train.scheduler, MultiStepOptions):
        late = [step for step in (*train.scheduler.milestones, *train.scheduler.restarts) if step >= total]
        if late:
            yield f"train.scheduler: what is to happen at {', '.join(map(str, late))} comes after total_iter, {total}"
    if isinstance(train.scheduler, CosineOptions):
        covered = sum(train.scheduler.periods)
        if covered < total:
            yield f"train.scheduler.periods: end at {covered}; the rate stays at its last value until {total}"
        elif covered > total:
            yield f"train.scheduler.periods: end at {covered}, after total_iter, {total}"


def length_warnings(options: TrainOptions, total: int) -> Iterator[str]:
    """One line for each option that is too long for a run.

    Args:
        options: of the run.
        total: its iterations, perhaps an estimate.
    """
    warm_up, decay = options.train.warmup_iter, options.train.ema_decay
    if warm_up >= total:
        yield f"train.warmup_iter: {warm_up:,} of {total:,} iterations, so training ends while the rate still rises"
    elif warm_up > total / 2:
        yield f"train.warmup_iter: {warm_up:,} of {total:,} iterations; give less than half, or train longer"
    # The average begins as the weights after the first iteration.
    first = decay ** (total - 1) if decay else 0.0
    if first > EMA_FIRST:
        fitting = f"{max(1 - 5 / total, 0):.4g}"
        yield (
            f"train.ema_decay: {decay:g} averages over about {1 / (1 - decay):,.0f} iterations, so after {total:,} the "
            f"first weights still count {first:.0%} of what is validated and saved; give {fitting} at most, or train "
            "longer"
        )
    for stage in options.datasets.train.stages():
        if stage.start >= total:
            yield f"datasets.train.gt_sizes: patches of {stage.gt_size} px would come at {stage.start}, after the end"
    for name, term in {} if options.distill is None else options.distill.objectives.items():
        if term.start_iter >= total:
            yield f"distill.objectives.{name}.start_iter: after the end at {total:,}, so it never counts"
        elif term.stop_iter is not None and term.stop_iter > total:
            yield f"distill.objectives.{name}.stop_iter: after the end at {total:,}, so it counts to the end"
    if options.val is not None and options.val.val_freq > total:
        yield f"val.val_freq: {options.val.val_freq:,} of {total:,} iterations, so there are no scores before the end"


def _measuring(options: TrainOptions) -> Iterator[str]:
    val, measured = options.val, options.datasets.measured("val")
    if val is None:
        if measured:
            yield "datasets.val: never scored, since there is no section val; give val.val_freq"
        return
    if not measured:
        yield "val: nothing is scored during training, since datasets has no val"
    for key in ("pbar", "suffix"):
        if key in val.model_fields_set:
            yield f"val.{key}: no effect"
    for name in val.ignored():
        yield f"val.metrics.{name}: not measured; there are PSNR and SSIM"
    if measured and val.select_on is None:
        yield "val.select_on: not given, so no weights are kept as the best ones; name a data set that is not reported"
    if val.select_on is not None and val.select_on_benchmark:
        yield "val.select_on_benchmark: figures of the set that weights are selected on look better than they are"
    coloured = [f"datasets.{key}.color" for key, dataset in options.datasets.named("val").items() if dataset.color]
    if coloured and options.scale > 1:
        yield f"{', '.join(coloured)}: no effect; a network of one channel enlarges R, G and B one after the other"
