"""Studies from their option file to their report: run, killed, resumed, shared by processes, refused."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from imdn_kd.evaluation.benchmark import benchmark, open_upsamplers
from imdn_kd.evaluation.study.folder import RunCost, RunResult, write_json
from imdn_kd.evaluation.study.report import write_report
from imdn_kd.study import check_study, read_study, run_study
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
    assert scratch["baseline"] == kd["baseline"]
    assert scratch["baseline_name"] == "bicubic"


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
def test_a_study_that_is_killed_at_any_moment_ends_with_the_same_bytes(write_study, tmp_path):
    path = write_study({"seeds": [0], "arms": {"gt": None}})
    begin = time.perf_counter()
    finish(path, tmp_path / "whole")
    # Half of the time: of the whole, hardly an attempt would be killed.
    kills = killed_at_random(finish, (time.perf_counter() - begin) / 2, path, tmp_path / "killed")

    assert kills
    assert report_bytes(tmp_path / "killed" / "small") == report_bytes(tmp_path / "whole" / "small")


@pytest.mark.slow
@pytest.mark.processes
def test_processes_side_by_side_share_the_runs_and_end_with_the_same_bytes(finished, tmp_path, capfd):
    folder, path = finished

    result = run(capfd, "study", "-opt", path, "--root", tmp_path, "--processes", 2)

    assert result.code == 0, result.err
    assert report_bytes(tmp_path / "small") == report_bytes(folder)
    done = [line for line in result.err.splitlines() if ": tested " in line]
    assert len(done) == len(set(done)) == 6


def test_a_run_that_another_process_makes_is_left_to_it(write_study, tmp_path, monkeypatch):
    study = read_study(write_study({"budget": 2, "seeds": [0]}), root=tmp_path)
    lock = FileLock(study.folder.lock_file("scratch_0"))
    study.folder.lock_file("scratch_0").parent.mkdir(parents=True)
    lock.acquire()
    made = []

    def other_process_ends():
        assert made == ["kd_0", "gt_0"]
        lock.release()

    monkeypatch.setattr("imdn_kd.study.work._wait", other_process_ends)
    run_study(study, on_end=lambda run, result: made.append(run.name))

    assert made == ["kd_0", "gt_0", "scratch_0"]


def test_the_control_of_equal_time_has_as_many_more_iterations_as_the_time_allows(write_study, tmp_path):
    path = write_study({"seeds": [0], "arms": {"longer": LONGER, "gt": None}})
    study = read_study(path, root=tmp_path)
    (run,) = (each for each in study.runs() if each.arm == "longer")
    assert study.runs()[-1] == run
    assert study.options_of(run) is None
    for arm, cpu in (("scratch", 2.0), ("kd", 5.0)):
        write_json(study.folder.result_file(f"{arm}_0"), RunResult(arm, 0))
        write_json(study.folder.cost_file(f"{arm}_0"), RunCost(iterations=10, seconds=99.0, cpu=cpu))

    options = study.options_of(run)

    assert options.train.total_iter == 20
    assert options.distill is None
    assert options.train.scheduler.milestones == [pytest.approx(8 * 20 / 12, abs=1.5)]
    assert study.options.comparisons() == [("kd", "scratch"), ("kd", "longer"), ("longer", "scratch")]
    # Once it has begun, its length stays, whatever is measured later.
    study.note("longer")
    write_json(study.folder.cost_file("kd_0"), RunCost(iterations=10, seconds=99.0, cpu=50.0))
    assert read_study(path, root=tmp_path).options_of(run).train.total_iter == 20


def test_warm_start_begins_with_the_weights_of_its_arm_and_scratch_with_none(write_study, tmp_path):
    warm = {"options": {"path": {"pretrain_network_g": "weights.safetensors"}}}
    changes = {"options": warm["options"], "arms": {"warm": {"control": "warm_start", "of": "kd"}}}
    arms = read_study(write_study(changes), root=tmp_path).arms

    assert {name: one.path.pretrained is not None for name, one in arms.items()} == {
        **{"scratch": False, "kd": True},
        **{"gt": True, "warm": True},
    }
    assert {name: one.distill is not None for name, one in arms.items()} == {
        **{"scratch": False, "kd": True},
        **{"gt": True, "warm": False},
    }


def test_an_arm_begins_with_the_weights_that_another_selected(write_study, tmp_path):
    second = {"budget": 4, "begins_with": "scratch", "options": {"train": {"optim_g": {"lr": 1e-30}}}}
    study = read_study(write_study({"seeds": [1], "arms": {"second": second}}), root=tmp_path)
    run, before = (next(one for one in study.runs() if one.arm == arm) for arm in ("second", "scratch"))
    assert study.options_of(run) is None

    run_study(study)
    write_report(study.options, study.folder)

    # At such a rate it ends where it begins.
    ours, theirs = (study.folder.result(one.name) for one in (run, before))
    assert ours.updates == 4
    assert ours.scores == theirs.scores
    assert "second (with scratch)" in (study.folder.path / "report.md").read_text()


def test_an_arm_that_begins_with_a_failed_one_fails(write_study, tmp_path):
    changes = {"seeds": [0], "arms": {"second": {"begins_with": "scratch"}, "kd": None, "gt": None}}
    study = read_study(write_study(changes), root=tmp_path)
    write_json(study.folder.result_file("scratch_0"), RunResult("scratch", 0, failed="it diverged"))

    run_study(study)

    assert study.folder.result("second_0").failed == "scratch_0 failed, so that there are no weights"


def test_controls_begin_with_what_their_arm_begins_with(write_study, tmp_path):
    arms = {"kd": {"begins_with": "scratch"}, "warm": {"control": "warm_start", "of": "kd"}}
    options = read_study(write_study({"arms": arms}), root=tmp_path).options
    assert {name: options.initial_arm(name) for name in options.arms} == {
        "scratch": None,
        "kd": "scratch",
        "gt": "scratch",
        "warm": "scratch",
    }


def test_first_weights_are_of_the_same_seed_and_asked_for_once_they_are_gone(write_study, tmp_path):
    study = read_study(write_study({"arms": {"kd": {"begins_with": "scratch"}}}), root=tmp_path)
    for seed in (0, 1):
        write_json(study.folder.result_file(f"scratch_{seed}"), RunResult("scratch", seed))
        path = study.folder.runs / f"scratch_{seed}" / "models" / "net_g_best_psnr.safetensors"
        path.parent.mkdir(parents=True)
        path.touch()
    for one in study.runs():
        options = study.options_of(one)
        if one.arm in ("kd", "gt"):
            assert f"scratch_{one.seed}" in options.path.pretrained
        else:
            assert options.path.pretrained is None
    path.unlink()
    with refused("study.weights-gone"):
        study.options_of(next(one for one in study.runs() if one.name == "kd_1"))


def test_an_arm_that_has_runs_keeps_its_first_weights(write_study, tmp_path):
    study = read_study(write_study({"arms": {"kd": {"begins_with": "scratch"}}}), root=tmp_path)
    study.note("kd")
    read_study(write_study({"arms": {"kd": {"begins_with": "scratch"}}}), root=tmp_path).check_unchanged()
    with refused("study.changed"):
        read_study(write_study(), root=tmp_path).check_unchanged()


def test_an_arm_may_be_compared_with_no_other(write_study, tmp_path):
    options = read_study(write_study({"arms": {"kd": {"against": []}}}), root=tmp_path).options
    assert options.comparisons() == [("kd", "gt"), ("gt", "scratch")]


def test_features_have_no_ground_truth(write_study, tmp_path):
    term = {"l_at": {"type": "AttentionLoss", "taps": ["block.1"]}}
    path = write_study({"arms": {"kd": {"options": {"distill": {"objectives": term}}}}})
    with refused("distill.gt-has-no-features"):
        check_study(read_study(path, root=tmp_path))


def test_a_run_that_diverges_is_told_and_the_others_are_made(write_study, tmp_path):
    wild = {"train": {"optim_g": {"lr": 1e30}, "max_skipped": 2}}
    study = read_study(write_study({"seeds": [0], "arms": {"gt": None, "wild": {"options": wild}}}), root=tmp_path)
    run_study(study)
    write_report(study.options, study.folder)

    text = (study.folder.path / "report.md").read_text()
    assert "No figures of wild, seed 0: " in text
    assert "| wild | - |" in text
    assert "| kd | scratch | tested | " in text


def test_a_report_without_runs_is_refused_and_one_of_some_says_how_many(write_study, tmp_path, capfd):
    path = write_study({"budget": 2, "seeds": [0]})
    result = run(capfd, "study", "-opt", path, "--root", tmp_path, "--report")
    assert result.code == 2
    assert "no run of the study is complete yet" in result.err
    study = read_study(path, root=tmp_path)

    class EnoughError(Exception):
        pass

    def stop(one, result):
        raise EnoughError

    with pytest.raises(EnoughError):
        run_study(study, on_end=stop)
    result = run(capfd, "study", "-opt", path, "--root", tmp_path, "--report")
    assert result.code == 0, result.err
    assert "1 of 3 runs are complete" in (tmp_path / "small" / "report.md").read_text()


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
        ({"arms": {"kd": {"begins_with": "nothing"}}}, "options.no-arm"),
        ({"arms": {"kd": {"begins_with": "kd"}}}, "options.begins-with"),
        ({"arms": {"kd": {"begins_with": "gt"}}}, "options.begins-with"),
        ({"arms": {"scratch": {"begins_with": "kd"}}}, "options.control"),
        ({"arms": {"kd": {"begins_with": "longer"}, "longer": LONGER}}, "options.begins-with"),
        ({"arms": {"kd": {"begins_with": "scratch"}, "longer": LONGER}}, "options.begins-with"),
        (
            {"arms": {"kd": {"begins_with": "scratch", "options": {"path": {"pretrain_network_g": "a.pth"}}}}},
            "study.initial-weights",
        ),
        (
            {"arms": {"kd": {"begins_with": "scratch", "options": {"network_g": {"num_feat": 12}}}}},
            "study.initial-weights",
        ),
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
