"""Two processes on the CPU: as one process with the batches of both, and ending together whatever happens."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import yaml
from accelerate import Accelerator

from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from tests.fake_set import picture
from tests.training import two_processes
from tests.training.small_runs import content, merged, metrics, small_options, state_file, train, with_validation

pytestmark = pytest.mark.processes

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
SECONDS = 900
UPDATES, LONG = 20, 10**6

# The rate of the recipes for small networks. Over more updates rounding grows with it, so that longer runs take less.
FAST = {"train": {"optim_g": {"lr": 2e-3}}}
RUN = {
    "train": {"accumulation": 2, "scheduler": None, "optim_g": {"lr": 1e-4}},
    "logger": {"print_freq": 1, "save_checkpoint_freq": 100},
}


def options_of(data, processes, updates):
    """The same training, in one process or two."""
    changes = merged(with_validation(data, val_freq=10), RUN)
    batch = {"datasets": {"train": {"batch_size_per_gpu": 8 // processes}}, "train": {"total_iter": updates}}
    tested = {"datasets": {"test": {"name": "tested", "dataroot_gt": str(data / "one")}}}
    return merged(merged(changes, batch), tested)


@pytest.fixture(scope="session")
def sets(data):
    """`data` with sets of one, two and three images, and one whose second image will be gone."""
    for name, count in (("one", 1), ("two", 2), ("three", 3), ("damaged", 2)):
        for number in range(count):
            write_image(data / name / "HR" / f"{number}.png", Picture(picture((36, 40), number)))
    (data / "damaged" / "HR" / "1.png").write_bytes(b"")
    return data


def losses(root, name="run"):
    return {record["step"]: record["losses"]["l_pix"] for record in metrics(root, name) if "losses" in record}


def environment(**more):
    # Accelerate looks for a configuration in the home folder.
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": os.devnull, **more}


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


def option_file(folder, data, changes):
    path = folder / "run.yml"
    path.write_text(yaml.safe_dump(content(data, changes)))
    return str(path)


def start(launcher, words, **keywords):
    port = "--main_process_port" if launcher is ACCELERATE else "--master_port"
    command = [*launcher, port, free_port(), "-m", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), text=True, **pipes, **keywords)


def finish(process):
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return process.returncode, out, err


def test_two_processes_train_as_one_with_larger_batches(sets, tmp_path):
    train(small_options(sets, merged(options_of(sets, 1, UPDATES), FAST)), tmp_path / "alone")
    alone = losses(tmp_path / "alone")
    file = option_file(tmp_path, sets, merged(options_of(sets, 2, UPDATES), FAST))
    words = ["imdn_kd", "train", "-opt", file, "--root", str(tmp_path), "--launcher", "pytorch"]
    code, out, err = finish(start(TORCHRUN, words))

    assert code == 0, err
    found = losses(tmp_path)
    assert list(found) == list(range(1, UPDATES + 1))
    assert found == pytest.approx(alone, abs=1e-5, rel=0)
    # Everything is said and written once, and nobody complains.
    assert err.count(f"iter: {UPDATES}, lr:(") == out.count(f"trained for {UPDATES} iterations") == 1
    assert "in 2 processes" in err
    assert not re.search(r"warn|destroy|Traceback", err, re.IGNORECASE)
    assert [list(r)[1] for r in metrics(tmp_path) if "losses" not in r] == ["scores", "scores", "test"]
    assert len(list((tmp_path / "run").glob("*.log"))) == len(list(tmp_path.glob("run*/"))) == 1
    (entry,) = json.loads((tmp_path / "run" / "run.json").read_text())
    assert entry["processes"] == 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("launcher", "number"), [(TORCHRUN, signal.SIGTERM), (ACCELERATE, signal.SIGINT)])
def test_a_signal_to_the_launcher_saves_once_and_another_number_of_processes_goes_on(sets, tmp_path, launcher, number):
    file = option_file(tmp_path, sets, options_of(sets, 2, LONG))
    process = start(launcher, ["imdn_kd", "train", "-opt", file, "--root", str(tmp_path)])
    try:
        while not list((tmp_path / "run").glob("metrics.jsonl")) or len(metrics(tmp_path)) < 3:
            assert process.poll() is None, finish(process)
            time.sleep(0.05)
        process.send_signal(number)
        code, _, err = finish(process)
    finally:
        process.terminate()

    assert code != 0
    assert err.count("stopped at iteration") == 1, err
    (state,) = (tmp_path / "run" / "training_states").iterdir()
    step = int(state.stem)
    assert 3 <= step < LONG
    few = small_options(sets, options_of(sets, 1, step + 10))
    train(few, tmp_path, auto_resume=True)
    train(few, tmp_path / "alone")
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "alone"), abs=1e-5, rel=0)


def slurm(folder, words, *, places):
    """Start a task in each of the places, as a Slurm step would, and return exit codes and error streams."""
    tool = folder / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho localhost\necho elsewhere\n")
    tool.chmod(0o755)
    job = {"SLURM_NTASKS": str(len(places)), "SLURM_NODELIST": "local[1-2]", "MASTER_PORT": free_port()}
    path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "imdn_kd", "train", *words, "--launcher", "slurm"],
            env=environment(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), PATH=path, PYTHONPATH=os.getcwd(), **job),  # noqa: PTH109
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
        )
        for rank, place in enumerate(places)
    ]
    ends = [finish(task) for task in tasks]
    return [code for code, _, _ in ends], [err.splitlines() for _, _, err in ends]


def test_what_is_wrong_with_the_options_is_said_once(sets, tmp_path):
    file = option_file(tmp_path, sets, {"train": {"total_itre": 3}})
    codes, said = slurm(tmp_path, ["-opt", file, "--root", str(tmp_path)], places=[tmp_path, tmp_path])

    assert codes == [2, 2]
    assert len(said[0]) == 1
    assert "total_itre" in said[0][0]
    assert "process" not in said[0][0]
    assert not said[1]


def test_what_is_missing_for_one_process_ends_all_of_them(sets, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    shutil.copytree(sets / "sample.store", here / "sample.store")
    file = option_file(tmp_path, sets, {"datasets": {"train": {"dataroot": "sample.store"}}})
    codes, said = slurm(tmp_path, ["-opt", file, "--root", str(tmp_path / "runs")], places=[here, there])

    assert codes == [2, 2]
    assert len(said[0]) == 1
    assert re.search(r"datasets\.train: sample\.store.*\(process 1 on \S+\)$", said[0][0])
    assert not said[1]
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="session")
def seen(sets, tmp_path_factory):
    """What two processes have seen; see `two_processes`."""
    folder = tmp_path_factory.mktemp("seen")
    torch.manual_seed(1)
    teacher = ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 12, "num_block": 3})
    save_model(folder / "teacher.safetensors", ModelFile(teacher))
    code, _, err = finish(start(TORCHRUN, ["tests.training.two_processes", str(sets), str(folder)]))
    assert code == 0, err
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_they_form_a_group_with_the_options_asked_for(seen):
    for each in seen[1]:
        assert each["the_group"] == [
            *("DistributedDataParallel", True, 2),
            *("gloo", "DistributedType.MULTI_CPU", "cpu"),
        ]


def test_validation_is_shared_out_and_gives_the_same_scores(seen, sets):
    alone = two_processes.scores(sets, Accelerator(cpu=True))
    for each in seen[1]:
        assert each["validation"]["scores"] == [[list(image) for image in images] for images in alone]
    assert [each["validation"]["images"] for each in seen[1]] == [4, 2]


def test_validation_stops_in_all_processes(seen):
    assert [each["stopped_validation"] for each in seen[1]] == ["stopped", "stopped"]


def test_an_image_that_one_process_cannot_read_ends_all_of_them(seen):
    main, other = (each["damaged_image"] for each in seen[1])
    assert len(main) == 1
    assert "1.png" in main[0]
    assert other == []


def test_a_training_image_that_one_process_cannot_read_ends_all_of_them_after_saving(seen):
    main, other = (each["damaged_training"] for each in seen[1])
    assert re.search(r"^an image is damaged \(process 1 on \S+\)$", main[0][0])
    assert other == [[], True]


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_in_all(seen):
    folder, each = seen
    main, other = (one["skipped_update"] for one in each)
    assert main == other
    assert main[:2] == [12, True]
    assert list(losses(folder, "skipped")) == [1, 2, 3, 4, *range(6, 13)]


def test_the_process_where_it_began_says_why(seen):
    for each in seen[1]:
        assert "before iteration 5: 3 in a row" in each["diverged"]
        assert "l_pix is nan" in each["diverged"]


def test_a_signal_to_one_process_ends_all_of_them_in_the_same_way(seen):
    for each in seen[1]:
        assert each["signal_to_one"] == [5, signal.SIGTERM, True]


def test_unlike_options_are_refused_before_anything_is_written(seen):
    main, other = (each["unlike_options"] for each in seen[1])
    assert re.search(r"^the option file is not the same as in process 0; .* \(process 1 on \S+\)$", main[0][0])
    assert main[1] is False
    assert other == [[], False]


def test_a_folder_of_runs_that_is_not_shared_is_noticed(seen):
    main, other = (each["folder_of_one"] for each in seen[1])
    assert "must be a folder that all machines share" in main[0]
    assert other == []


def test_they_distil_as_one(seen, sets):
    """Adapters and critic are outside of what DDP wraps."""
    folder, _ = seen
    train(small_options(sets, two_processes.distilled(folder, batch=8)), folder / "alone")

    alone, together = (
        [record["losses"] for record in metrics(root, "distilled") if "losses" in record]
        for root in (folder / "alone", folder)
    )
    assert len(together) == two_processes.DISTILLED
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, abs=1e-5, rel=0)
    last = two_processes.DISTILLED
    states = [state_file(root, last, "distilled")["others"] for root in (folder / "alone", folder)]
    for name in ("adapters", "critic"):
        one, two = (state[name]["weights"] for state in states)
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)


def test_they_learn_from_features_before_results(seen):
    for each in seen[1]:
        assert each["features_first"] == 6


def test_they_begin_the_decay_together_and_the_slowest_says_how_long_it_is(seen):
    for each in seen[1]:
        assert each["decay_by_the_slowest"] == {"total": 29, "decay": 5, "step": 29}
