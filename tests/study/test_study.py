"""Studies from their option file to their report: run, killed, resumed, shared by processes, refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from imdn_kd.evaluation.benchmark import benchmark, open_upsamplers
from imdn_kd.evaluation.study.report import write_report
from imdn_kd.study import read_study, run_study
from tests.cli.run import run
from tests.refused import refused
from tests.study.conftest import base_content, study_content
from tests.training.small_runs import killed_at_random

LONGER = {"control": "scratch_equal_time", "of": "kd"}
REPORT = ("report.md", "report.json", "report.csv", "crops.png")


def finish(path: Path, root: Path) -> None:
    study = read_study(path, root=root)
    run_study(study)
    write_report(study.options, study.folder)


def report_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in REPORT if (folder / name).exists()}


@pytest.fixture(scope="module")
def finished(study_data, tmp_path_factory):
    """The folder of a finished study, and its option file."""
    root = tmp_path_factory.mktemp("finished")
    (root / "base.yml").write_text(yaml.safe_dump(base_content(study_data)))
    (root / "study.yml").write_text(yaml.safe_dump(study_content(study_data), sort_keys=False))
    finish(root / "study.yml", root / "studies")
    return root / "studies" / "small", root / "study.yml"


def test_report_holds_what_the_benchmark_measures(finished, study_data):
    folder, _ = finished
    rows = list(csv.DictReader((folder / "report.csv").open()))
    data = json.loads((folder / "report.json").read_text())

    assert {(row["arm"], row["seed"]) for row in rows} == {(a, s) for a in ("scratch", "kd", "gt") for s in "01"}
    model = folder / "runs" / "kd_1" / "models" / "net_g_best_psnr.safetensors"
    (score,) = benchmark(open_upsamplers([model], device="cpu"), [study_data / "tested"])
    ours = {row["image"]: float(row["psnr"]) for row in rows if (row["arm"], row["seed"]) == ("kd", "1")}
    assert ours == {image.name: pytest.approx(image.psnr, abs=1e-6) for image in score.images}
    pairs = [(one["arm"], one["control"]) for one in data["comparisons"]]
    assert pairs == [("kd", "scratch"), ("kd", "gt"), ("gt", "scratch")]
    text = (folder / "report.md").read_text()
    assert "Is it the teacher?" in text
    assert "It helps." in text
    assert "| kd | scratch | tested | " in text


def test_runs_of_a_seed_differ_in_the_teacher_alone(finished):
    folder, _ = finished
    scratch, kd, gt = (
        json.loads((folder / "results" / f"{arm}_0.json").read_text()) for arm in ("scratch", "kd", "gt")
    )
    assert scratch["updates"] == kd["updates"] == gt["updates"] == 8
    assert len({json.dumps(one["scores"]) for one in (scratch, kd, gt)}) == 3
    assert scratch["bicubic"] == kd["bicubic"]


def test_a_finished_study_runs_nothing_and_reports_the_same_bytes(finished, monkeypatch, capfd):
    folder, path = finished
    before, costs = report_bytes(folder), (folder / "costs.md").read_bytes()
    monkeypatch.setattr("imdn_kd.study.work.training.prepare", None)

    result = run(capfd, "study", "-opt", path, "--root", folder.parent)

    assert result.code == 0, result.err
    assert report_bytes(folder) == before
    assert (folder / "costs.md").read_bytes() == costs
    assert "no difference that 2 seeds can show" in result.out or "by ." in result.out


@pytest.mark.slow
@pytest.mark.processes
def test_a_study_that_is_killed_at_any_moment_ends_with_the_same_bytes(finished, tmp_path):
    folder, path = finished

    kills = killed_at_random(finish, 3.0, path, tmp_path / "studies")

    assert kills
    assert report_bytes(tmp_path / "studies" / "small") == report_bytes(folder)


def test_the_control_with_the_ground_truth_has_the_losses_of_its_arm(finished):
    folder, _ = finished
    lines = [(folder / "runs" / f"{arm}_0" / "metrics.jsonl").read_text().splitlines() for arm in ("kd", "gt")]
    kd, gt = ([each["losses"] for each in map(json.loads, some[1:]) if "losses" in each] for some in lines)
    assert {*kd[0]} == {*gt[0]} == {"l_pix", "l_kd"}
    assert all(losses["l_kd"] == losses["l_pix"] for losses in gt)
    assert all(losses["l_kd"] != losses["l_pix"] for losses in kd)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"report": ["held_out"]}, "options.same-sets"),
        ({"control": "nothing"}, "options.no-arm"),
        ({"arms": {"gt": {"of": "scratch"}}}, "options.control"),
        ({"arms": {"gt": {"of": None}}}, "options.control"),
        ({"arms": {"kd": {"against": ["kd"]}}}, "options.control"),
        (
            {"arms": {"kd": {"control": "scratch"}, "longer": {"control": "scratch_equal_time", "of": "gt"}}},
            "options.control",
        ),
        (
            {"arms": {"scratch": {"control": None}, "longer": {"control": "scratch_equal_time", "of": "kd"}}},
            "options.no-scratch",
        ),
        ({"arms": {"warm": {"control": "warm_start", "of": "kd"}}}, "study.no-warm-start"),
        ({"seeds": [1, 1]}, "options.seeds"),
        ({"name": "../elsewhere"}, "options.name"),
        ({"select": ["other"]}, "study.sets"),
        ({"options": {"val": {"select_on_benchmark": True}}}, "study.sets"),
        ({"arms": {"kd": {"options": {"datasets": {"test": {"name": "else"}}}}}}, "study.sets"),
        ({"arms": {"kd": {"options": {"train": {"total_itr": 3}}}}}, "options.unknown-key"),
        ({"arms": {"kd": {"options": {"_drop_": ["nothing"]}}}}, "options.drop-unknown"),
        ({"base": "none.yml"}, "options.unreadable-file"),
    ],
)
def test_refused(write_study, changes, code):
    with refused(code):
        read_study(write_study(changes))


def test_sets_of_one_folder_are_the_same_whatever_they_are_called(write_study, study_data):
    same = {"datasets": {"val": {"name": "mine", "dataroot_gt": str(study_data / "held_out" / ".." / "tested")}}}
    with refused("study.sets"):
        read_study(write_study({"select": ["mine"]}, base=same))


def test_other_options_than_those_of_earlier_runs_are_refused(finished):
    folder, path = finished
    study = read_study(path, ["budget=9"], root=folder.parent)
    with refused("study.changed"):
        study.check_unchanged()
