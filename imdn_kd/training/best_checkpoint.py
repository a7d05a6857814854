"""The best weights so far, by the scores of validation, and the model files that hold them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from imdn_kd.archs.base import SRNetwork
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.evaluation.benchmark import SetScore, bicubic
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.training.checkpoint import State
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.validation import score_sets, validate

METRICS = ("psnr", "ssim")

Best = dict[str, dict[str, float]]
"""For each metric, the best `value` and the `step` at which it was reached."""


class BestCheckpointTracker:
    """Scores weights, and keeps the best ones; in a copy of the network without mixed precision or compilation.

    Args:
        network: copied.
        options: of the run.
        folder: of the run; model files are written there by the main process alone.
        accelerator: the processes.
        state: that is resumed from. A best value of it counts on if it was reached on the same data sets by the same
            protocol, and if the model file still holds those weights.
    """

    def __init__(
        self,
        network: SRNetwork,
        options: TrainOptions,
        folder: RunFolder,
        accelerator: Accelerator,
        state: State | None,
    ) -> None:
        self._network = copy.deepcopy(network).eval()
        self._options, self._folder, self._accelerator = options, folder, accelerator
        self.best: Best = {}
        if state is not None and _measures(state.options) == _measures(options.model_dump(mode="json")):
            self.best = {metric: best for metric, best in state.best.items() if self._holds(metric, best)}

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that are to be judged."""
        self._network.load_state_dict(weights)

    def score(
        self, sets: Sequence[ImageSet], on_image: Callable[[int], None], *, save: Path | None = None
    ) -> list[SetScore]:
        """Score the weights; see `validate`."""
        return self._score(self._network, sets, on_image, save)

    def score_selected(self, sets: Sequence[ImageSet], on_image: Callable[[int], None]) -> list[SetScore]:
        """Score the weights of the model file that the run results in."""
        return self._score(load_model(self.selected).network, sets, on_image, None)

    def score_bicubic(self, sets: Sequence[ImageSet], on_image: Callable[[int], None]) -> list[SetScore]:
        """Score bicubic interpolation instead."""
        protocol = self._options.protocol()
        return score_sets(bicubic(sets[0].scale), sets, self._accelerator, protocol=protocol, on_image=on_image)

    @property
    def selected(self) -> Path:
        """The model file that the run results in: the best one if there was a selection, otherwise the latest."""
        return self._folder.model_file(f"best_{METRICS[0]}" if METRICS[0] in self.best else "latest")

    def keep_best(self, step: int, scores: Sequence[SetScore]) -> None:
        """Write model files if the weights are the best so far, by the mean over the sets named for selection."""
        names = [] if self._options.val is None else self._options.val.selection
        chosen = [score for score in scores if score.data in names]
        for metric in METRICS if chosen else ():
            value: float = sum(getattr(score, metric) for score in chosen) / len(chosen)
            if metric not in self.best or value > self.best[metric]["value"]:
                self.best[metric] = {"value": value, "step": step}
                self._save(f"best_{metric}", step, scores)

    def keep_latest(self, step: int) -> None:
        """Write a model file of the weights, whatever they are worth."""
        self._save("latest", step, ())

    def _score(
        self, network: SRNetwork, sets: Sequence[ImageSet], on_image: Callable[[int], None], save: Path | None
    ) -> list[SetScore]:
        protocol, name = self._options.protocol(), self._options.name
        return validate(network, sets, self._accelerator, name=name, protocol=protocol, save=save, on_image=on_image)

    def _holds(self, metric: str, best: Mapping[str, float]) -> bool:
        path = self._folder.model_file(f"best_{metric}")
        return path.is_file() and load_model(path).training.get("updates") == best["step"]

    def _save(self, which: str, step: int, scores: Sequence[SetScore]) -> None:
        if not self._accelerator.is_main_process:
            return
        data = self._options.datasets.train
        stage = [stage for stage in data.stages() if stage.start < max(step, 1)][-1]
        training: dict[str, Any] = {
            "name": self._options.name,
            "updates": step,
            "batch": self._accelerator.num_processes * self._options.train.accumulation * stage.batch_size,
            "gt_size": stage.gt_size,
            "data": data.name,
            "seed": self._options.manual_seed,
        }
        if self._network.info.scale == 1:
            training["restores"] = ", ".join(dict.fromkeys(score.lr_source for score in scores)) or "as it was trained"
        training |= {f"{score.data} PSNR / SSIM": f"{score.psnr:.3f} / {score.ssim:.4f}" for score in scores}
        lines = "\n".join(f"- {key}: {value}" for key, value in training.items())
        card = f"# {self._options.name}\n\nTrained with imdn_kd.\n\n{lines}\n"
        save_model(self._folder.model_file(which), ModelFile(self._network, training=training, card=card))


def _measures(options: Mapping[str, Any]) -> tuple[object, ...]:
    """What has to be the same for two values to be compared."""
    val = options["val"] or {}
    names = val.get("select_on") or []
    names = [names] if isinstance(names, str) else names
    return names, val.get("metrics"), [each for each in options["datasets"].values() if each.get("name") in names]
