"""Two processes (Gloo, CPU) against one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
import yaml

from tests.training.small_runs import content, merged, metrics, state_file, with_validation


def launch(folder, file, *words, processes=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runner = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port)]
    command = [sys.executable, *runner, "-m", "imdn_kd", "train", "-opt", str(file), "--launcher", "pytorch"]
    return subprocess.Popen(
        [*command, "--root", str(folder), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def option_file(folder, data, batch, changes=None):
    base = merged(
        with_validation(data, select_on="held_out", val_freq=50),
        {
            "datasets": {"train": {"batch_size_per_gpu": batch}},
            "train": {"total_iter": 50, "accumulation": 2},
            "logger": {"print_freq": 1, "save_checkpoint_freq": 50},
        },
    )
    path = folder / f"batch{batch}.yml"
    path.write_text(yaml.safe_dump(content(data, merged(base, changes or {}))))
    return path


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    process = launch(folder, option_file(folder, data, 4), processes=1)
    assert process.communicate(timeout=240)[1] is not None
    assert process.returncode == 0
    return folder


def assert_as_alone(folder, alone):
    for mine, other in zip(metrics(folder), metrics(alone), strict=True):
        assert mine["step"] == other["step"]
        if "losses" in mine:
            assert mine["losses"]["l_pix"] == pytest.approx(other["losses"]["l_pix"], abs=1e-5)
        else:
            assert mine["scores"]["held_out"]["psnr"] == pytest.approx(other["scores"]["held_out"]["psnr"], abs=0.01)


def test_two_processes_train_as_one_with_the_same_batch(data, tmp_path, alone):
    process = launch(tmp_path, option_file(tmp_path, data, 2))
    out, err = process.communicate(timeout=240)

    assert process.returncode == 0, err
    assert_as_alone(tmp_path, alone)
    assert out.count("trained for 50 updates") == 1
    assert err.count("step 50: scores held_out") == 1


def test_a_signal_saves_once_and_another_number_of_processes_goes_on(data, tmp_path, alone):
    file = option_file(tmp_path, data, 2)
    process = launch(tmp_path, file, "--set", "train.total_iter=1000000")
    assert process.stderr is not None
    for line in process.stderr:
        if "step 10:" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    states = list((tmp_path / "run" / "training_states").iterdir())
    assert len(states) == 1, rest
    step = int(states[0].stem)
    assert state_file(tmp_path, step)["step"] == step
    one = option_file(tmp_path, data, 4)
    words = ("--auto_resume", "--set", f"train.total_iter={max(50, step + 5)}")
    again = launch(tmp_path, one, *words, processes=1)
    assert again.communicate(timeout=240)[1] is not None
    assert again.returncode == 0
    expected = {record["step"]: record["losses"]["l_pix"] for record in metrics(alone) if "losses" in record}
    seen = {record["step"]: record["losses"]["l_pix"] for record in metrics(tmp_path) if "losses" in record}
    shared = expected.keys() & seen.keys()
    assert len(shared) == 50
    assert {key: seen[key] for key in shared} == pytest.approx({key: expected[key] for key in shared}, abs=1e-5)


def test_an_option_file_that_is_wrong_is_told_without_a_hang(data, tmp_path):
    process = launch(tmp_path / "runs", option_file(tmp_path, data, 2), "--set", "scale=3")
    err = process.communicate(timeout=120)[1]

    assert process.returncode != 0
    assert "imdn-kd: network_g: IMDN enlarges x2, but scale is 3" in err
    assert not (tmp_path / "runs").exists()
