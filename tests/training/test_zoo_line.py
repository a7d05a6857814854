"""Which student is trained next, and what its training begins from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from imdn_kd import zoo
from imdn_kd.config.options import read_options
from imdn_kd.inference.model_file import load_model, save_model
from imdn_kd.release import card as card_module
from imdn_kd.training.checkpoint import State, save_state
from imdn_kd.training.history import earlier_runs, run_updates, sha256
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import OPEN_END, TrainOptions
from imdn_kd.training.zoo_line import next_student
from tests.refused import refused
from tests.training.small_recipes import NETWORK, RATE, ship, write_recipe

NAMES = ("first_x2", "second_x2", "third_x2")


@pytest.fixture
def place(data, tmp_path):
    """A folder with three recipes in a line, and an empty zoo."""
    for name in NAMES:
        write_recipe(tmp_path / "recipes", data, name)
    line(tmp_path, "# the smallest first\n\nfirst_x2\n  second_x2  # x2 as well\nthird_x2\n")
    (tmp_path / "zoo").mkdir()
    return tmp_path


def line(place: Path, text: str) -> None:
    (place / "recipes" / "line.txt").write_text(text)


def chosen(place: Path, name: str | None = None, *overrides: str):
    folders = {"recipes": place / "recipes", "root": place / "runs", "folder": place / "zoo"}
    return next_student(name, **folders, overrides=overrides)


def leave(
    place: Path, name: str, step: int, total: int, *, first_weights: str | None = None, published: int | None = None
) -> RunFolder:
    """Leave a run with a state, as if it had been begun from some weights, and published at an iteration."""
    run = RunFolder(place / "runs" / name)
    recipe = read_options(place / "recipes" / f"{name}.yml", TrainOptions, [f"train.total_iter={total}"])
    run.states.mkdir(parents=True, exist_ok=True)
    save_state(run.states, State(step, recipe.model_dump(mode="json"), {}, {}, validated=step), keep_last=0)
    entry = {"step": 0} | ({} if first_weights is None else {"first_weights": first_weights})
    run.record.write_text(json.dumps([entry]))
    if published is not None:
        run.published.write_text(json.dumps({"iteration": published}))
    return run


def test_students_that_do_not_ship_come_first_in_the_order_of_the_line(place):
    assert chosen(place).why == "first_x2: has had the fewest iterations, 0; a run begins as the recipe says"
    ship(place / "zoo", "first_x2", 100)
    assert chosen(place).name == "second_x2"


def test_the_fewest_iterations_are_next_and_of_equal_ones_the_first(place):
    for name, updates in zip(NAMES, (300, 100, 100), strict=True):
        ship(place / "zoo", name, updates)
    found = chosen(place)

    assert found.name == "second_x2"
    assert found.why == (
        "second_x2: has had the fewest iterations, 100; a run begins from its weights in the zoo, after 100 iterations"
    )


def test_a_student_that_is_named_is_taken_also_if_it_is_not_in_the_line(place, data):
    write_recipe(place / "recipes", data, "other_x2")
    assert chosen(place, "other_x2").why == "other_x2: was named; a run begins as the recipe says"


@pytest.mark.parametrize("sort", ["under way", "open", "not published", "published before"])
def test_what_was_begun_is_ended_first(place, sort):
    for name, updates in zip(NAMES, (1, 50, 60), strict=True):
        ship(place / "zoo", name, updates)
    leave(place, "third_x2", 70, 70, published=70)
    if sort in ("under way", "open"):
        leave(place, "second_x2", 55, 80 if sort == "under way" else OPEN_END, published=40)
    else:
        leave(place, "second_x2", 60, 60, published=None if sort == "not published" else 40)
    found = chosen(place)

    assert found.name == "second_x2"
    assert found.trained is (sort in ("not published", "published before"))
    assert not found.outdated
    leave(place, "first_x2", 5, 9)
    assert chosen(place).name == "first_x2"


def test_a_run_that_was_published_is_finished(place):
    leave(place, "third_x2", 60, 60, published=60)
    assert chosen(place).name == "first_x2"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"iteration": "a"}'])
def test_a_damaged_note_on_the_publication_counts_as_none(place, text):
    run = leave(place, "third_x2", 60, 60)
    run.published.write_text(text)
    assert chosen(place).why == "third_x2: is not published yet; its run is complete, and is published"


def test_a_run_that_is_not_resumed_does_not_come_first(place):
    for name, updates in zip(NAMES, (90, 50, 900), strict=True):
        ship(place / "zoo", name, updates)
    leave(place, "third_x2", 55, 80)

    assert chosen(place).name == "second_x2"
    assert chosen(place, "third_x2").outdated


@pytest.mark.parametrize(
    ("text", "place_in_file"),
    [
        ("first_x2\nforth_x2\n", "line.txt, line 2: "),
        ("first_x2\n\nsecond_x2\nfirst_x2 # again\n", "line.txt, line 4: "),
        ("# nobody\n", "line.txt: "),
        (None, "line.txt: "),
    ],
)
def test_a_line_that_cannot_be_used_is_one_line(place, text, place_in_file):
    if text is None:
        (place / "recipes" / "line.txt").unlink()
    else:
        line(place, text)
    with refused("zoo.line") as caught:
        chosen(place)
    (told,) = caught.value.lines
    assert place_in_file in told
    assert chosen(place, "third_x2").name == "third_x2"


def test_recipes_that_cannot_be_used_are_said(place, data):
    with refused("zoo.no-recipe"):
        chosen(place, "forth_x2")
    with refused("zoo.recipe-name"):
        chosen(place, "first_x2", "name=b")


def test_a_student_that_was_selected_on_other_sets_is_said_before_training(place):
    path = ship(place / "zoo", "first_x2", 100)
    model = load_model(path)
    model.training["selection"]["also"] = [{**model.training["selection"], "set": "edges"}]
    save_model(path, model)
    with refused("zoo.not-comparable"):
        chosen(place, "first_x2")


def test_a_run_begins_from_the_weights_in_the_zoo_with_warm_up_and_a_lower_rate(place):
    path = ship(place / "zoo", "first_x2", 100)
    found = chosen(place, "first_x2", "path.strict_load_g=false")
    assert found.training == found.options  # as was said
    found = chosen(place, "first_x2")
    train = found.training.train

    assert found.training.path.pretrained == str(path)
    assert found.training.path.strict
    assert (train.optim_g.lr, train.warmup_iter) == (RATE, 2)
    assert train.scheduler.restart_weights == [0.25, 0.25]
    assert found.training.manual_seed == 4
    assert found.options.train.scheduler.restart_weights == [1, 0.25]
    assert found.options.path.pretrained is None


def test_weights_of_another_network_are_not_taken_nor_is_its_student_waited_for(place):
    path = ship(place / "zoo", "first_x2", 100)
    wider = ("network_g.num_feat=12",)
    assert chosen(place, "first_x2", *wider).why.endswith("a run begins as the recipe says")
    leave(place, "first_x2", 5, 9)
    assert chosen(place, "first_x2").outdated
    assert not chosen(place, "first_x2", *wider).outdated
    assert path.is_file()


def test_a_run_accounts_for_the_student_that_it_began_from(place):
    path = ship(place / "zoo", "first_x2", 100)
    leave(place, "first_x2", 5, 9, first_weights=sha256(path))
    resumed = chosen(place, "first_x2")

    assert resumed.why == "first_x2: was named; its run is resumed at iteration 5"
    assert not resumed.outdated
    assert (resumed.training.train.scheduler.restart_weights, resumed.training.manual_seed) == ([0.25] * 2, 4)


def test_a_run_accounts_for_the_runs_before_it_also_after_it_was_published(place):
    first = ship(place / "zoo", "first_x2", 100)
    began = sha256(first)
    history = earlier_runs(began, first, zoo.record(first))
    start = {"file": first.name, "sha256": began}
    ship(place / "zoo", "first_x2", 120, run_updates=20, history=history, start=start)
    leave(place, "first_x2", 20, 20, first_weights=began, published=20)

    resumed = chosen(place, "first_x2")
    assert not resumed.outdated
    assert (resumed.training.train.scheduler.restart_weights, resumed.training.manual_seed) == ([0.25] * 2, 4)
    leave(place, "first_x2", 10, 20, first_weights=began)
    (place / "runs" / "first_x2" / "training_states" / "20.state").unlink()
    outdated = chosen(place, "first_x2")
    assert outdated.outdated
    assert outdated.training.manual_seed == 5


def test_a_run_of_another_beginning_is_outdated_by_a_student_of_more_iterations(place):
    ship(place / "zoo", "first_x2", 100)
    leave(place, "first_x2", 100, 120)
    assert not chosen(place, "first_x2").outdated
    ship(place / "zoo", "first_x2", 101)
    found = chosen(place, "first_x2")
    assert found.outdated
    assert found.why.endswith("a run begins from its weights in the zoo, after 101 iterations")


def test_a_run_that_was_archived_is_kept_under_another_name(place):
    run = leave(place, "first_x2", 5, 9)
    archived = run.archive()
    assert not run.path.exists()
    assert archived.name.startswith("first_x2_archived_")
    assert (archived / "training_states" / "5.state").is_file()
    run = leave(place, "first_x2", 5, 9)
    lock = run.lock()
    with refused("run.in-use"):
        run.archive()
    lock.release()
    assert run.path.is_dir()


def test_records_without_runs_before_can_be_read_and_are_summed_up(tmp_path):
    path = ship(tmp_path, "first_x2", 100)
    record = zoo.record(path)
    assert "history" not in record
    assert run_updates(record) == 100
    (summary,) = earlier_runs(sha256(path), path, record)

    assert (summary["updates"], summary["seed"], summary["precision"], summary["teachers"]) == (100, 3, "fp32", [])
    assert summary["data"] == {"name": "photos", "images": 4, "sha256": "ab"}
    assert summary.keys() == {
        *("updates", "seed", "stages", "losses", "objectives", "optimizer", "schedule", "ema_decay", "precision"),
        *("reparam", "teachers", "data", "start"),
    }


def test_which_runs_came_before(tmp_path):
    path = ship(
        tmp_path, "first_x2", 100, history=[{"updates": 60}], run_updates=40, start={"file": "f", "sha256": "s"}
    )
    record = zoo.record(path)

    assert [run["updates"] for run in earlier_runs(sha256(path), path, record)] == [60, 40]
    assert [run["updates"] for run in earlier_runs("s", path, record)] == [60]
    assert earlier_runs("another", path, record) == []
    assert earlier_runs(None, path, record) == []
    assert earlier_runs("s", path, None) == []
    assert earlier_runs(None, path, {**record, "start": {"file": "f", "sha256": None}}) == []
    assert len(earlier_runs("older", path, {**record, "formerly": ["older"]})) == 2


def test_the_card_lists_the_runs_before_the_last_one(tmp_path):
    path = ship(tmp_path, "first_x2", 1000, teachers=[{"file": "big.pth"}])
    (summary,) = earlier_runs(sha256(path), path, zoo.record(path))
    summary = {**summary, "objectives": {"l_kd": {"type": "L1Loss", "loss_weight": 0.5}}}
    record = {**zoo.record(path), "history": [summary, {**summary, "updates": 50}], "updates": 2050}
    record |= {"teachers": [], "run_updates": 1000, "versions": {"torch": "2"}, "bicubic": {}}
    schedule = {"warmup_iter": 0, "total_iter": 1000}
    lines = [*card_module._recipe({**record, "schedule": schedule})]

    assert lines[0] == "2,050 iterations in 3 runs, each from the published weights of the one before"
    assert lines[1] == (
        "an earlier run: 1,000 iterations, seed 3; batches of 4 patches of 32 px of 4 images of photos; Adam, learning "
        "rate 0.002; losses 1 L1Loss; objectives 0.5 L1Loss (big.pth); EMA 0.9; fp32"
    )
    assert lines[2].startswith("an earlier run: 50 iterations, ")
    assert lines[3] == "the last run: 1,000 iterations, seed 3"
    assert any(line.startswith("weights after iteration 1,000 of the last run: ") for line in lines)
    assert card_module._purpose(record).startswith("Enlarges photographs by 2: a small network, distilled from")


def test_a_checksum_is_that_of_the_file(tmp_path):
    path = ship(tmp_path, "first_x2", 100)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert zoo.record(path)["network"].items() >= NETWORK.items()
