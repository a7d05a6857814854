"""`imdn-kd zoo train`; which student is next is tested in tests/training/test_zoo_line.py."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import time
from functools import partialmethod

import pytest
import torch

from imdn_kd import zoo
from imdn_kd.cli import main
from imdn_kd.inference.model_file import load_model
from imdn_kd.training import signals
from imdn_kd.training.checkpoint import newest_state
from imdn_kd.training.history import sha256
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import OPEN_END
from imdn_kd.training.trainer import Trainer
from imdn_kd.training.update import TrainStep
from imdn_kd.utils.extras import how_to_install
from tests.cli.run import run
from tests.training.small_recipes import RATE, make_photographs, ship, write_recipe
from tests.training.small_runs import fake_clock, flat, state_file

NAME = "tiny_x2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("data"))


@pytest.fixture
def place(data, tmp_path):
    """A folder with a line of two recipes."""
    for name in (NAME, "other_x2"):
        write_recipe(tmp_path / "recipes", data, name)
    (tmp_path / "recipes" / "line.txt").write_text(f"{NAME}\nother_x2\n")
    return tmp_path


@pytest.fixture
def clock(monkeypatch):
    """An iteration takes a second, and nothing else any."""
    fake_clock(monkeypatch)


def words(place, *more, minutes=0.5):
    folders = ("--recipes", place / "recipes", "--root", place / "runs", "--to", place / "zoo")
    return ("zoo", "train", *more, "--minutes", minutes, *folders)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_the_students_of_a_line_are_trained_and_published_in_turn(place, capfd):
    notes = place / "notes.md"
    notes.write_text("From a camera.\n")
    for name in (NAME, "other_x2"):
        result = run(capfd, *words(place), "--notes", notes)
        assert result.code == 0, result.err
        assert f"{name}: has had the fewest iterations, 0; a run begins as the recipe says\n" in result.err
        updates = int(re.search(r"trained for ([\d,]+) iterations", result.out)[1])
        psnr = zoo.record(place / "zoo" / f"{name}.safetensors")["selection"]["psnr"]
        assert f"| {name} | x2 | tested |" in result.out
        assert result.out.endswith(f"{name}.safetensors: published; the run has {psnr:.3f} dB on held_out\n")
        assert zoo.record(place / "zoo" / f"{name}.safetensors")["updates"] == updates
        assert RunFolder(place / "runs" / name).published_at() == updates
    assert files(place / "zoo") == [
        *("index.json", "other_x2.md", "other_x2.safetensors", "tiny_x2.md", "tiny_x2.safetensors"),
    ]
    assert "From a camera." in (place / "zoo" / "tiny_x2.md").read_text()
    again = run(capfd, *words(place, NAME))
    assert f"{NAME}: was named; its run is resumed at iteration {updates}\n" in again.err
    record = zoo.record(place / "zoo" / f"{NAME}.safetensors")
    assert [each["learning rate"] for each in record["pieces"]] == ["constant", "decays"] * 2
    assert record["schedule"]["restart_weights"] == [0.25]


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_student_that_ships_is_trained_on_from_its_weights(place, capfd):
    shipped = ship(place / "zoo", NAME, 500)
    weights = load_model(shipped).network.state_dict()
    frozen = ("--set", "train.optim_g.lr=1e-30", "--set", "train.scheduler.eta_min=0")
    assert run(capfd, *words(place, NAME, minutes=0.2), *frozen).code == 0
    state = next(iter((place / "runs" / NAME / "training_states").glob("*.state")))
    first = state_file(place / "runs", int(state.stem), NAME)
    assert flat(first["network"]) == flat(dict(weights))

    shutil.rmtree(place / "runs")
    ship(place / "zoo", NAME, 500)
    began = sha256(shipped)
    result = run(capfd, *words(place, NAME))
    assert result.code == 0, result.err
    assert "a run begins from its weights in the zoo, after 500 iterations" in result.err
    assert "path." not in result.err
    assert ": published; " in result.out
    record = zoo.record(shipped)
    assert record["updates"] == 500 + record["run_updates"]
    assert record["start"] == {"file": f"{NAME}.safetensors", "sha256": began}
    assert (record["optimizer"]["lr"], record["schedule"]["restart_weights"]) == (RATE, [0.25, 0.25])
    assert (record["seed"], record["schedule"]["warmup_iter"]) == (4, 2)
    assert [(each["updates"], each["seed"]) for each in record["history"]] == [(500, 3)]
    assert record["selection"]["update"] <= record["run_updates"] == record["pieces"][-1]["to"]
    assert record["pieces"][0]["from"] == 1
    text = zoo.card(shipped)
    order = [
        f"- {record['updates']:,} iterations in 2 runs, each from the published weights of the one before\n",
        "- an earlier run: 500 iterations, seed 3; batches of 4 patches of 32 px of 4 images of photos; ",
        f"- the last run: {record['run_updates']:,} iterations, seed 4\n",
        f"- first weights: {NAME}.safetensors; SHA-256 `{began}`\n",
    ]
    assert sorted(order, key=text.index) == order
    assert str(place) not in text + json.dumps(record)

    # A later segment of the run, and then, where the run is lost, another run.
    record = change_selection(shipped)
    result = run(capfd, *words(place, NAME))
    assert f"its run is resumed at iteration {record['run_updates']}" in result.err
    later = zoo.record(shipped)
    assert later["history"] == record["history"]
    assert later["updates"] == 500 + later["run_updates"] > record["updates"]
    assert later["schedule"]["restart_weights"] == [0.25]
    assert later["start"] == record["start"]
    change_selection(shipped)
    (place / "runs" / NAME).rename(place / "lost")
    assert run(capfd, *words(place, NAME)).code == 0
    last = zoo.record(shipped)
    assert [each["updates"] for each in last["history"]] == [500, later["run_updates"]]
    assert last["updates"] == later["updates"] + last["run_updates"]
    assert last["seed"] == 5

    # The first of these runs is older than the student now.
    shutil.rmtree(place / "runs")
    (place / "runs").mkdir()
    (place / "lost").rename(place / "runs" / NAME)
    change_selection(shipped)
    result = run(capfd, *words(place, NAME))
    (archived,) = (place / "runs").glob(f"{NAME}_archived_*")
    assert f"after {last['updates']:,} iterations; the run that was there is kept as {archived.name}" in result.err
    assert (archived / "training_states").is_dir()
    assert len(zoo.record(shipped)["history"]) == 3


def change_selection(path):
    """Make a student worse, so that the next run is published; the run that it is of still knows it."""
    from imdn_kd.inference.model_file import save_model

    model = load_model(path)
    model.training["selection"]["psnr"] = 5.0
    # As where the notes were corrected.
    model.training["formerly"] = [*model.training.get("formerly", ()), sha256(path)]
    save_model(path, model)
    return model.training


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_run_that_was_not_published_is_published_and_nothing_else(place, capfd, monkeypatch):
    def stop(*args, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("imdn_kd.release.publish.save_model", stop)
        assert run(capfd, *words(place)).code == 130
    states = files(place / "runs" / NAME / "training_states")
    ship(place / "zoo", "other_x2", 0)
    result = run(capfd, *words(place))

    assert result.code == 0, result.err
    assert f"{NAME}: is not published yet; its run is complete, and is published\n" in result.err
    assert f"{NAME}.safetensors: published" in result.out
    assert "trained for" not in result.out
    assert files(place / "runs" / NAME / "training_states") == states
    assert "other_x2: " in run(capfd, *words(place)).err


def resume(place, shipped, stable, decay):
    """The command, in a process that begins the decay at an iteration, and plans so many for it."""
    torch.set_num_threads(1)
    make = TrainStep.run

    def step(self, batches, step, **keywords):
        now[0] = 1e6 if step + 1 >= stable else 0.0
        return make(self, batches, step, **keywords)

    now, TrainStep.run = [0.0], step
    signals.Deadline.__init__ = partialmethod(signals.Deadline.__init__, clock=lambda: now[0])
    Trainer.iterations_in = lambda *args: decay
    if shipped and not (place / "zoo" / f"{NAME}.safetensors").exists():
        ship(place / "zoo", "other_x2", 501)
        ship(place / "zoo", NAME, 500)
    sys.argv = ["imdn-kd", *map(str, words(place, minutes=600))]
    main()


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("shipped", [False, True])
def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(place, tmp_path_factory, shipped):
    """SIGKILL; each process would choose another end, but the first one whose decay begins fixes it in its state."""
    context, draw = multiprocessing.get_context("fork"), random.Random(shipped)
    states = place / "runs" / NAME / "training_states"

    def begin(folder, stable, decay):
        process = context.Process(target=resume, args=(folder, shipped, stable, decay))
        process.start()
        return process

    def end():
        state = newest_state(states)
        return None if state is None or state.options["train"]["total_iter"] == OPEN_END else state.options["train"]

    start, kills, planned = time.perf_counter(), 0, None
    process = begin(place, 20, 10)
    while planned is None:
        assert process.is_alive()
        planned = end()
        time.sleep(0.001)
    process.kill()
    process.join()
    whole = 2 * (time.perf_counter() - start)
    for kills in range(8):
        process = begin(place, 25 + kills, 15)
        process.join(draw.uniform(0.02, 0.7) * whole)
        if not process.is_alive():
            break
        process.kill()
        process.join()
        assert end() == planned
    else:
        process = begin(place, 40, 15)
        process.join()
    assert process.exitcode == 0

    other = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(place / "recipes", other / "recipes")
    process = begin(other, 20, 10)
    process.join()
    assert process.exitcode == 0
    for suffix in (".safetensors", ".md"):
        written = [(folder / "zoo" / f"{NAME}{suffix}").read_bytes() for folder in (place, other)]
        assert written[0] == written[1]
    record = zoo.record(place / "zoo" / f"{NAME}.safetensors")
    assert record["run_updates"] == planned["total_iter"] == 30
    assert len(record["history"]) == int(shipped)


def test_what_is_wrong_is_one_line_and_nothing_is_left(place, capfd, monkeypatch):
    (place / "recipes" / "line.txt").write_text("forth_x2\n")
    for more, message in (
        ((), r"line.txt, line 1: there is no recipe forth_x2.yml"),
        (("tiny_x3",), "tiny_x3: there is no such recipe"),
        ((NAME, "--notes", place / "none.md"), "none.md: cannot read it"),
        ((NAME, "--set", "train.optim_g.betta=1"), "'betta'"),
        ((NAME, "--minutes", -1), "give a number above 0"),
    ):
        result = run(capfd, *words(place, *more)) if "--minutes" not in more else run(capfd, "zoo", "train", *more)
        assert (result.code, result.out) == (2, "")
        assert re.search(message, result.err)
        assert sum(line.startswith("imdn-kd: ") for line in result.err.splitlines()) == 1
    assert "--minutes" in run(capfd, "zoo", "train").err
    assert files(place) == ["recipes"]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else found(name))
    bare = run(capfd, *words(place))
    assert bare.err == f"imdn-kd: training needs packages that are not installed; {how_to_install('train')}\n"


def test_a_run_is_archived_only_if_another_one_can_begin(place, capfd):
    ship(place / "zoo", NAME, 500)
    assert run(capfd, "train", "-opt", place / "recipes" / f"{NAME}.yml", "--root", place / "runs").code == 0
    result = run(capfd, *words(place, NAME), "--set", "datasets.test.dataroot_gt=nowhere")
    assert result.code == 2
    assert "nowhere" in result.err
    assert files(place / "runs") == [f".{NAME}.lock", NAME]


def test_help_says_what_is_trained(capfd):
    result = run(capfd, "zoo", "train", "--help")
    assert result.code == 0
    for part in ("--minutes", "--recipes", "--root", "--to", "--notes", "--set", "line.txt", "[NAME]"):
        assert part in result.out, part
    assert "train" in run(capfd, "zoo", "--help").out
