"""The report of a study: figures of the arms, what they differ by from their controls, what they took."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from imdn_kd.errors import InputError
from imdn_kd.evaluation.study.costs import report_costs
from imdn_kd.evaluation.study.crops import draw_crops
from imdn_kd.evaluation.study.figures import MISSING, draw_curves, draw_times
from imdn_kd.evaluation.study.folder import RunResult, StudyFolder
from imdn_kd.evaluation.study.schema import StudyOptions, beginnings
from imdn_kd.evaluation.study.statistics import LEVEL, Difference, compare, plain
from imdn_kd.evaluation.tables import Report, Table
from imdn_kd.utils.files import atomic_path

Results = dict[str, dict[int, RunResult]]
"""By arm and seed."""


@dataclass(frozen=True)
class Compared:
    """An arm beside one that it is compared with, on one data set.

    Attributes:
        arm: name of the arm.
        control: what it is compared with.
        data: name of the data set.
        psnr: difference in dB.
        ssim: difference.
        images_better: on how many images the mean over seeds is higher.
        images: how many there are.
    """

    arm: str
    control: str
    data: str
    psnr: Difference
    ssim: Difference
    images_better: int
    images: int


def write_report(study: StudyOptions, folder: StudyFolder) -> Report:
    """Write what is known so far: `report.md`, `.json`, `.csv`, what it took (`costs.md`, `.json`), curves and crops.

    What was measured alone decides the bytes of the report: times stand in `costs`, which hold the machine too.

    Args:
        study: the study.
        folder: its folder.

    Returns:
        What `report.md` and `report.json` hold.

    Raises:
        InputError: `study.no-results`, no run is complete; or files are damaged or cannot be written.
    """
    results = {
        arm: {seed: found for seed in study.seeds if (found := folder.result(f"{arm}_{seed}")) is not None}
        for arm in study.arms
    }
    done = {arm: {seed: one for seed, one in runs.items() if not one.failed} for arm, runs in results.items()}
    if not any(done.values()):
        raise InputError(f"{folder.path}: no run of the study is complete yet; run it", code="study.no-results")
    compared = [*_compared(study, done)]
    costs = report_costs(study, folder, done)
    crops = draw_crops(study, folder, [arm for arm in study.arms if study.seeds[0] in done[arm]])
    drawn = draw_curves(study, done, folder.path / "curves.png")
    if drawn:
        draw_times(study, done, {row["arm"]: row for row in costs.data["arms"]}, folder.path / "psnr_time.png")
    head = [f"# {study.name}", study.question, _progress(study, results), *_failures(results)]
    tables = (_figures_table(study, done), _differences_table(study, compared))
    sources = [*_sources(study, compared)]
    pictures = ["![PSNR over iterations](curves.png)" if drawn else MISSING, *crops]
    text = "\n\n".join(
        [
            *(line for line in head if line),
            *(table.markdown().rstrip() for table in tables),
            *(["### What the sources found", *sources] if sources else []),
            "### Pictures",
            *pictures,
            "Times, and what they give: [costs.md](costs.md).",
        ]
    )
    data = {
        "study": study.model_dump(mode="json", exclude_none=True),
        "runs": [asdict(one) for runs in results.values() for one in runs.values()],
        "comparisons": [
            {**asdict(one), "verdict": one.psnr.verdict, "in_words": one.psnr.in_words()} for one in compared
        ],
        "level": LEVEL,
    }
    report = Report(tables, data)
    _write(folder.path / "report.md", text + "\n")
    _write(folder.path / "report.json", report.json() + "\n")
    _write(folder.path / "report.csv", _csv(results))
    times = ["![PSNR over time](psnr_time.png)\n"] if drawn else []
    _write(folder.path / "costs.md", "\n".join([f"# {study.name}: what it took\n", costs.markdown(), *times]))
    _write(folder.path / "costs.json", costs.json() + "\n")
    return report


def _progress(study: StudyOptions, results: Results) -> str:
    total, complete = len(study.arms) * len(study.seeds), sum(map(len, results.values()))
    left = f" {complete} of {total} runs are complete; the figures are of these." if complete < total else ""
    seeds = ", ".join(map(str, study.seeds))
    return (
        f"{len(study.arms)} arms with seed{'s' if len(study.seeds) > 1 else ''} {seeds}; weights selected on "
        f"{', '.join(study.select)}, reported on {', '.join(study.report)}.{left}"
    )


def _failures(results: Results) -> Iterator[str]:
    for arm, runs in results.items():
        for seed, one in runs.items():
            if one.failed:
                yield f"No figures of {arm}, seed {seed}: {one.failed}."


def _figures_table(study: StudyOptions, done: Results) -> Table:
    rows = []
    for arm, runs in done.items():
        if not runs:
            rows.append((arm, *(["-"] * (3 + 2 * len(study.report)))))
            continue
        several = [*runs.values()]
        parts = [part for name in study.report for part in _mean_and_spread(several, name)]
        lengths = dict.fromkeys(f"{one.updates:,}" for one in several)
        sizes = dict.fromkeys(f"{one.parameters:,}" for one in several)
        rows.append((arm, " or ".join(sizes), " or ".join(lengths), str(len(several)), *parts))
    first = next(one for runs in done.values() for one in runs.values())
    low = [part for name in study.report for part in _baseline(first, name)]
    rows.append((first.baseline_name, "-", "-", "-", *low))
    columns = [column for name in study.report for column in (f"{name} PSNR dB", "SSIM")]
    notes = (
        "PSNR and SSIM by the protocol of `imdn-kd benchmark`: means over images and seeds, +- the standard deviation "
        "over seeds.",
        *beginnings(study),
    )
    heads = ("Arm", "Params", "Iterations", "Seeds", *columns)
    return Table("Figures", heads, tuple(rows), notes, frozenset({"Arm"}))


def _mean_and_spread(runs: Sequence[RunResult], data: str) -> Iterator[str]:
    for figure, digits in ((0, 3), (1, 4)):
        values = [run.mean(data, figure) for run in runs]
        spread = f" +- {stdev(values):.{digits}f}".replace("+- 0.", "+- .") if len(values) > 1 else ""
        yield f"{fmean(values):.{digits}f}{spread}"


def _baseline(run: RunResult, data: str) -> Iterator[str]:
    for figure, digits in ((0, 3), (1, 4)):
        yield f"{fmean(both[figure] for both in run.baseline[data].values()):.{digits}f}"


def _compared(study: StudyOptions, done: Results) -> Iterator[Compared]:
    for arm, control in study.comparisons():
        seeds = [seed for seed in study.seeds if seed in done[arm] and seed in done[control]]
        if not seeds:
            continue
        ours, theirs = ([done[name][seed] for seed in seeds] for name in (arm, control))
        for data in study.report:
            psnr, ssim = (
                compare([run.mean(data, figure) for run in ours], [run.mean(data, figure) for run in theirs])
                for figure in (0, 1)
            )
            images = [*ours[0].scores[data]]
            gains = [
                fmean(a.scores[data][name][0] - b.scores[data][name][0] for a, b in zip(ours, theirs, strict=True))
                for name in images
            ]
            yield Compared(arm, control, data, psnr, ssim, sum(gain > 0 for gain in gains), len(images))


def _differences_table(study: StudyOptions, compared: Sequence[Compared]) -> Table:
    rows = [
        (
            *(one.arm, one.control, one.data, one.psnr.in_words()),
            f"{one.images_better} of {one.images}",
            f"{one.ssim.mean:+.4f}" + (f" +- {one.ssim.half:.4f}" if one.ssim.seeds > 1 else ""),
        )
        for one in compared
    ]
    count = sum(one.psnr.seeds > 1 for one in compared)
    level = f"{LEVEL:.0%}"
    notes = (
        f"Differences are paired by seed; +- is half of Student's {level} confidence interval of their mean. An arm is "
        f"called better or worse where that does not hold 0: of comparisons between arms that do not differ, so are "
        f"{1 - LEVEL:.0%}, here {plain(count * (1 - LEVEL))} of {count}.",
        "Images better: those whose PSNR, mean over seeds, is higher.",
    )
    heads = ("Arm", "Against", "Data", "Verdict on PSNR", "Images better", "SSIM")
    return Table("Differences", heads, tuple(rows), notes, frozenset({"Arm", "Against", "Data", "Verdict on PSNR"}))


def _sources(study: StudyOptions, compared: Sequence[Compared]) -> Iterator[str]:
    for name, arm in study.arms.items():
        if arm.found is None:
            continue
        link = "" if arm.source is None else f" ([source]({arm.source}))"
        yield f"**{name}**: {' '.join(arm.found.split())}{link}{_agreement(study, name, compared)}"


def _agreement(study: StudyOptions, name: str, compared: Sequence[Compared]) -> str:
    """Whether the direction is the one that the source lets one expect, beside the first control of the arm."""
    expected = study.arms[name].expect
    control = next((other for arm, other in study.comparisons() if arm == name), None)
    ours = [one for one in compared if one.arm == name and one.control == control and one.psnr.seeds > 1]
    if expected is None or not ours:
        return ""
    wanted = {"better": {"better"}, "worse": {"worse"}, "same": {"no difference", "the same"}}[expected]
    against = {"better": "worse", "worse": "better"}.get(expected, "")
    parts = []
    for one in ours:
        verdict = one.psnr.verdict
        agrees = (
            "agrees" if verdict in wanted else "disagrees" if verdict == against or expected == "same" else "not shown"
        )
        parts.append(f"{one.data}: {agrees}")
    return f" Expected beside {control}: {expected}; here {', '.join(parts)}."


def _csv(results: Results) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("arm", "seed", "iterations", "selected_at", "data", "image", "psnr", "ssim"))
    for arm, runs in results.items():
        for seed, one in runs.items():
            for data, images in one.scores.items():
                for image, (psnr, ssim) in images.items():
                    writer.writerow(
                        (arm, seed, one.updates, one.selected_at, data, image, f"{psnr:.6f}", f"{ssim:.6f}")
                    )
    return file.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
