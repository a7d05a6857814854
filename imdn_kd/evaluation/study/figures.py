"""Curves of a study, drawn by matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from imdn_kd.evaluation.study.folder import RunResult
from imdn_kd.evaluation.study.schema import StudyOptions
from imdn_kd.utils.extras import how_to_install
from imdn_kd.utils.files import atomic_path

MISSING = f"Curves are not drawn, since matplotlib is not installed: {how_to_install('study')}"

Results = Mapping[str, Mapping[int, RunResult]]


def draw_curves(study: StudyOptions, done: Results, path: Path) -> bool:
    """Draw PSNR on the sets for selection over iterations: means over seeds, and from the lowest to the highest.

    Args:
        study: the study.
        done: complete runs by arm and seed.
        path: of the PNG.

    Returns:
        Whether matplotlib is installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    figure, axes = _figure()
    for arm, runs in done.items():
        curves = [dict(run.curve) for run in runs.values()]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        if steps:
            values = [[curve[step] for curve in curves] for step in steps]
            (line,) = axes.plot(steps, [*map(fmean, values)], marker=".", label=arm)
            axes.fill_between(steps, [*map(min, values)], [*map(max, values)], color=line.get_color(), alpha=0.15)
    axes.set_xlabel("iterations")
    axes.set_ylabel(f"PSNR on {', '.join(study.select)}, dB")
    _save(figure, axes, path)
    return True


def draw_times(study: StudyOptions, done: Results, costs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw PSNR on the reported sets over the time of a run: means over seeds, +- their standard deviation.

    Args:
        study: the study.
        done: complete runs by arm and seed.
        costs: by arm: `seconds`, `cpu` and `on_cpu`.
        path: of the PNG.
    """
    figure, axes = _figure()
    clock = "CPU time" if all(cost["on_cpu"] for cost in costs.values()) else "time"
    for arm, runs in done.items():
        if not runs or arm not in costs:
            continue
        means = [fmean(run.mean(name, 0) for name in study.report) for run in runs.values()]
        seconds = costs[arm]["cpu" if clock == "CPU time" else "seconds"]
        spread = stdev(means) if len(means) > 1 else 0.0
        axes.errorbar([seconds], [fmean(means)], yerr=[spread], marker="o", capsize=3, label=arm)
    axes.set_xlabel(f"{clock} of a run, s")
    axes.set_ylabel(f"mean PSNR on {', '.join(study.report)}, dB")
    _save(figure, axes, path)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib may be missing
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:  # none while no run is complete
        axes.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
