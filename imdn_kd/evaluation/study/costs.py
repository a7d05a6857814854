"""What the runs of a study took: a table of times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean

from imdn_kd.evaluation.study.folder import RunResult, StudyFolder
from imdn_kd.evaluation.study.schema import StudyOptions, beginnings
from imdn_kd.evaluation.tables import Report, Table


def report_costs(study: StudyOptions, folder: StudyFolder, done: Mapping[str, Mapping[int, RunResult]]) -> Report:
    """Lay out what the arms of a study took.

    Args:
        study: the study.
        folder: its folder.
        done: complete runs by arm and seed.

    Returns:
        A table of arms; `arms`, `caches` and `machines` as data.
    """
    rows, arms = [], []
    machines: dict[str, None] = {}
    for arm, runs in done.items():
        known = [
            (one, cost) for seed, one in runs.items() if (cost := folder.cost(f"{arm}_{seed}")) and cost.iterations
        ]
        if not known:
            continue
        machines |= dict.fromkeys(cost.machine for _, cost in known)
        wall, cpu = (fmean(getattr(cost, key) / cost.iterations for _, cost in known) for key in ("seconds", "cpu"))
        updates = fmean(one.updates for one, _ in known)
        row = {"arm": arm, "updates": updates, "seconds_per_update": wall, "cpu_per_update": cpu}
        row |= {"seconds": updates * wall, "cpu": updates * cpu, "on_cpu": known[0][1].on_cpu}
        arms.append(row)
        rows.append(
            (
                arm,
                f"{updates:,.0f}",
                f"{1000 * wall:.1f}",
                f"{1000 * cpu:.1f}",
                f"{updates * wall:.0f}",
                f"{updates * cpu:.0f}",
            )
        )
    caches = folder.caches()
    notes = [
        "Means over seeds, without validation and checkpoints; the time of a run is that of an iteration times their "
        "number. CPU time is that of all threads of the process.",
        f"Measured on: {'; '.join(machines) or 'not measured'}.",
        f"Made by imdn-kd study from options/study/{study.name}.yml, with the iterations above.",
    ]
    notes += [*beginnings(study)]
    notes += [
        f"Caching outputs of the teacher of {cost.arm} ({cost.teacher}): {cost.images} images, {cost.seconds:.0f} s, "
        f"{cost.cpu:.0f} s of CPU time; once, for all runs."
        for cost in caches
    ]
    if not caches:
        notes.append("Outputs of teachers were cached before this study, or not at all.")
    heads = ("Arm", "Iterations", "ms/iteration", "CPU ms/iteration", "s/run", "CPU s/run")
    table = Table("Times", heads, tuple(rows), tuple(notes), frozenset({"Arm"}))
    return Report((table,), {"arms": arms, "caches": [asdict(cost) for cost in caches], "machines": [*machines]})
