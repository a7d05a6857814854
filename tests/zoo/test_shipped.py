"""The students that ship: each is what its card and the README say, measured again where benchmarks are on hand."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from imdn_kd import Upscaler, zoo
from imdn_kd.config.options import read_options
from imdn_kd.evaluation.benchmark import make_upsampler, plan_tasks, score
from imdn_kd.inference.model_file import load_model
from imdn_kd.registry import ARCHS
from imdn_kd.training.history import run_updates, updates_of
from imdn_kd.training.schema import TrainOptions
from tests.shared_data import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDENTS = zoo.students()


@pytest.fixture(params=STUDENTS, ids=[student.name for student in STUDENTS])
def student(request):
    return request.param


def test_there_is_a_student_for_each_factor_and_a_fast_one():
    assert set(zoo.defaults()) == set(zoo.defaults(fast=True)) == {2, 3, 4}


def test_the_default_is_the_best_by_the_mean_of_the_selection_sets():
    for scale, best in zoo.defaults().items():
        group = (each for each in STUDENTS if each.scale == scale and not each.restores)
        psnr = {each.name: psnr_on(each, "kodak24", "edges") for each in group}
        assert psnr[best.name] == max(psnr.values())


def psnr_on(student, *sets):
    rows = [re.search(rf"^\| {name} .*\| ([\d.]+) / [\d.]+ \|$", zoo.card(student.path), re.M) for name in sets]
    return sum(float(row[1]) for row in rows) / len(rows)


def test_has_a_recipe_of_its_name_that_makes_its_network(student):
    options = read_options(ROOT / "options" / "zoo" / f"{student.name}.yml", TrainOptions)
    network = load_model(student.path).network
    assert options.scale == student.scale == network.info.scale
    assert ARCHS.build(options.network_g.spec()).spec == network.spec
    assert zoo.record(student.path)["parameters"] == sum(each.numel() for each in network.parameters())


def test_its_iterations_are_those_of_all_its_runs(student):
    record = zoo.record(student.path)
    schedule, updates = record["schedule"], run_updates(record)
    assert record["updates"] == updates_of(record.get("history", ())) + updates
    assert updates == schedule["total_iter"] == sum(schedule.get("periods", [updates]))
    assert record["pieces"][0]["from"] == 1
    assert record["pieces"][-1]["to"] == updates
    assert record["selection"]["update"] <= updates


def test_what_it_learned_from_is_said(student):
    record = zoo.record(student.path)
    assert record["losses"]
    assert bool(record["objectives"]) == bool(record["teachers"])
    assert all(teacher["sha256"] for teacher in record["teachers"])
    assert record["data"]["images"] > 0
    assert record["data"]["sha256"]


def test_its_file_says_nothing_of_the_machine_it_was_made_on(student):
    for text in (zoo.card(student.path), repr(zoo.record(student.path))):
        assert not re.search(r"['\"` (]/\w", text)


def test_its_card_lies_beside_it(student):
    assert student.path.with_suffix(".md").read_text(encoding="utf-8") == zoo.card(student.path)


def test_the_readme_has_its_row(student):
    record = zoo.record(student.path)
    figures = (
        f"{record['figures'][data]['psnr']:.2f} / {record['figures'][data]['ssim']:.4f}" for data in ("Set5", "Set14")
    )
    row = (f"[{student.name}](imdn_kd/zoo/{student.name}.md)", f"{record['parameters']:,}", *figures)
    assert f"| {' | '.join(row)} |" in README


def test_enlarges_better_than_bicubic_by_its_own_card(student):
    record = zoo.record(student.path)
    assert all(figures["psnr"] > record["bicubic"][data]["psnr"] for data, figures in record["figures"].items())


@needs_shared
def test_has_the_figures_of_its_card(student):
    upscaler = Upscaler(student.name, device="cpu", precision="fp32")
    recipe = read_options(ROOT / "options" / "zoo" / f"{student.name}.yml", TrainOptions)
    source = dataclasses.replace(recipe.datasets.test.source(student.scale), data=SHARED / "benchmark" / "Set5")
    (task,) = plan_tasks([make_upsampler(upscaler, student.name, student.scale)], [source])
    found, said = score(task), zoo.record(student.path)["figures"]["Set5"]
    assert found.psnr == pytest.approx(said["psnr"], abs=0.002)
    assert found.ssim == pytest.approx(said["ssim"], abs=0.0002)
