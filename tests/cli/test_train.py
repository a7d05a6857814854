from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal

import filelock
import pytest
import yaml

from imdn_kd.archs import IMDN
from imdn_kd.training import run as training_run
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.setup.read_file import read_train_options
from tests.cli.run import run, started
from tests.refused import refused
from tests.training.small_runs import content, fake_clock, flat, make_data, merged, metrics, state_file, with_validation


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def file(data, tmp_path):
    """An option file, with a set to select on and one to test on."""
    changes = with_validation(data, select_on="held_out", select_on_benchmark=True)
    changes["datasets"]["test"] = {"name": "tested", "dataroot_gt": str(data / "held_out")}
    path = tmp_path / "run.yml"
    path.write_text(yaml.safe_dump(content(data, changes), sort_keys=False))
    return path


def test_trains_tests_and_says_where_the_model_is(file, tmp_path, capfd):
    result = run(capfd, "train", "-opt", file, "--root", tmp_path)
    model = tmp_path / "run" / "models" / "net_g_best_psnr.safetensors"

    assert result.code == 0
    assert re.search(r"\| run +\| x2 +\| tested +\| 2 ", result.out)
    assert re.search(r"best psnr on held_out: \d+\.\d{4} at iteration 12\n", result.out)
    assert result.out.rstrip().endswith(f"trained for 12 iterations: {model}")
    assert (tmp_path / "run" / "test.md").read_text() in result.out
    assert "iter: 12, lr:(" in result.err
    assert run(capfd, "profile", "--model", model, "--runs", 0).code == 0


def test_check_says_what_has_no_effect_and_begins_nothing(file, tmp_path, capfd):
    result = run(
        capfd, "train", "-opt", file, "--root", tmp_path / "runs", "--check", "--set", "dist_params.port=29500"
    )

    assert result.code == 0
    assert "dist_params.port: no effect" in result.out
    assert result.out.endswith(f"{file}: can be trained\n")
    assert not (tmp_path / "runs").exists()


def test_check_says_what_each_term_has_of_the_first_loss(file, tmp_path, capfd):
    words = ("train", "-opt", file, "--root", tmp_path / "runs", "--check")
    assert "shares" not in run(capfd, *words).out
    result = run(capfd, *words, "--set", "train.fft_opt={type: L1Loss, loss_weight: 0.25}")
    lines = result.out.splitlines()
    parameters = sum(each.numel() for each in IMDN(num_feat=8, num_block=2, upscale=2).parameters())
    assert "shares of the first loss: l_pix 80 %, l_fft 20 %" in lines
    assert f"student: IMDN x2, {parameters:,} parameters" in lines
    assert "4 images for training, 2 of held_out for validation, 2 of tested for the test" in lines
    assert re.search(
        r"^12 iterations, of 4 patches of 32 px, \d\S* s each on cpu .*: about 0:00:\d\d$", result.out, re.M
    )


def test_notes_of_a_run_are_told_and_kept(file, tmp_path, capfd):
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, "--set", "dist_params.port=29500")
    (log,) = (tmp_path / "run").glob("*.log")

    assert "dist_params.port: no effect" in result.err
    assert "dist_params.port: no effect" in log.read_text()


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_left(file, tmp_path, capfd):
    mistakes = ["scale=4", "val.select_on=absent", "datasets.val.dataroot_gt=nowhere", "train.optim_g.betta=1"]
    words = [word for mistake in mistakes for word in ("--set", mistake)]
    result = run(capfd, "train", "-opt", file, "--root", tmp_path / "runs", *words)

    assert result.code == 2
    assert not result.out
    lines = result.err.splitlines()
    assert all(line.startswith("imdn-kd: ") for line in lines)
    for part in ("scale is 4", "'absent'", "nowhere", "'betta'", "x4"):
        assert any(part in line for line in lines), part
    assert not (tmp_path / "runs").exists()


def test_overrides_hold(file, tmp_path, capfd):
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, "--set", "train.optim_g.lr=5e-4", "--set", "name=b")

    assert result.code == 0
    assert metrics(tmp_path, "b")[0]["lr"] == 5e-4


def test_a_run_that_diverges_is_one_line_and_exit_code_1(file, tmp_path, capfd):
    words = ("--set", "train.optim_g.lr=1e30", "--set", "train.max_skipped=2", "--set", "train.ema_decay=0")
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, *words)

    assert result.code == 1
    assert re.search(r"^imdn-kd: stopped before iteration \d+: 2 in a row .* not finite", result.err, re.MULTILINE)
    assert "Traceback" not in result.err


@pytest.mark.processes
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_the_command_that_resumes(file, tmp_path, number, capfd, monkeypatch):
    long = merged(
        yaml.safe_load(file.read_text()), {"train": {"total_iter": 10**6}, "val": None, "datasets": {"val": None}}
    )
    file.write_text(yaml.safe_dump(long))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with started("train", "-opt", file.name, "--root", "runs", cwd=tmp_path, env=environment) as process:
        for line in process.stderr:
            if "iter: 6, " in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 128 + number
    match = re.search(r"stopped at iteration (\d+); resume with: imdn-kd (.*)\n", rest)
    assert match, rest
    step = int(match[1])
    assert state_file(tmp_path / "runs", step)["step"] == step
    monkeypatch.chdir(tmp_path)
    again = run(capfd, *shlex.split(match[2]), "--set", f"train.total_iter={step + 1}")
    assert again.code == 0, again.err
    assert f"from iteration {step} to {step + 1}" in again.err
    assert state_file(tmp_path / "runs", step + 1)["step"] == step + 1


def test_a_read_only_root_is_told_before_the_work(file, tmp_path, capfd):
    (tmp_path / "blocked").write_text("a file")
    result = run(capfd, "train", "-opt", file, "--root", tmp_path / "blocked")

    assert result.code == 2
    assert "cannot write there" in result.err


def test_weights_of_another_factor_are_taken_as_far_as_they_fit(file, data, tmp_path, capfd):
    run(capfd, "train", "-opt", file, "--root", tmp_path)
    model = tmp_path / "run" / "models" / "net_g_latest.safetensors"
    words = ("--set", f"path.pretrain_network_g={model}", "--set", "name=wider")
    wider = ("--set", "network_g.num_block=3")
    refused = run(capfd, "train", "-opt", file, "--root", tmp_path, *words, *wider)
    assert refused.code == 2
    assert "strict_load_g: false" in refused.err
    loose = ("--set", "path.strict_load_g=false", "--set", "train.total_iter=1", "--set", "train.optim_g.lr=1e-30")
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, *words, *wider, *loose)

    assert result.code == 0
    assert re.search(r"path.pretrain_network_g: not loaded: IMDB3\.", result.err)
    before, after = (state_file(tmp_path, *which) for which in ((12, "run"), (1, "wider")))
    assert flat(before["ema"]["module.IMDB1.c1.weight"]) == flat(after["network"]["IMDB1.c1.weight"])
    (entry,) = json.loads((tmp_path / "wider" / "run.json").read_text())
    assert entry["first_weights"] == hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.slow
def test_segments_of_some_minutes_follow_one_another(file, tmp_path, capfd, monkeypatch):
    fake_clock(monkeypatch)
    words = ("train", "-opt", file, "--root", tmp_path, "--auto_resume", "--minutes", 0.5)
    done = False
    for total in (29, 58):
        result = run(capfd, *words)
        assert result.code == 0, result.err
        assert f"trained for {total} iterations" in result.out
        assert "until time is up" in result.err
        assert f"about {total + 1} iterations fit the time" in result.err
        assert f"train.ema_decay: 0.9 averages over about 10 iterations, so after {total + 1} " in result.err or done
        done = True
        assert f"from iteration {total - 5} to {total}\n" in result.err
    state = state_file(tmp_path, total)

    assert state["options"]["train"]["total_iter"] == total
    assert state["options"]["train"]["scheduler"]["decay_iter"] == 5
    assert (tmp_path / "run" / "test.md").read_text() in result.out
    check = run(capfd, *words, "--check")
    assert (check.code, check.out.splitlines()[-1]) == (0, f"{file}: can be trained")


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_minutes_are_a_number_above_0(file, tmp_path, capfd, minutes):
    result = run(capfd, "train", "-opt", file, "--root", tmp_path / "runs", f"--minutes={minutes}")

    assert result.code == 2
    assert "give a number above 0" in result.err


def test_losses_and_their_shares_are_one_line_which_the_log_explains(file, tmp_path, capfd):
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, "--set", "train.fft_opt={type: L1Loss}")
    lines = [line for line in result.err.splitlines() if line.startswith("iter: 9,")]
    assert len(lines) == 1
    assert re.search(r"l_pix: \d\S+ \(\d+%\), l_fft: \d\S+ \(\d+%\)$", lines[0])
    assert "of each loss: its mean and, in brackets, its share of the sum" in result.err
    assert set(metrics(tmp_path)[0]["gradient_norms"]) == {"l_pix", "l_fft"}


def test_a_run_in_use_is_refused_before_its_data_are_opened(file, tmp_path, monkeypatch):
    options, folder = read_train_options(file, ()), RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch, folder.lock(), refused("run.in-use"):
        patch.setattr(training_run, "build_setup", None)
        training_run.prepare(options, root=tmp_path)
    folder.check_free()
    monkeypatch.setattr(training_run, "_make_ready", lambda *_: folder.lock())  # which is taken before the teacher runs
    with refused("run.in-use"):
        training_run.prepare(options, root=tmp_path)
    folder.check_free()


def test_a_run_that_has_not_begun_leaves_nothing_and_others_stay(file, tmp_path, monkeypatch):
    options, root = read_train_options(file, ()), tmp_path / "runs"

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_run, "_make_ready", fail)
    for others in (False, True):
        if others:
            (root / "other").mkdir(parents=True)
        with pytest.raises(KeyboardInterrupt):
            training_run.prepare(options, root=root)
        assert [path.name for path in root.glob("*")] == ["other"] * others
    assert not list(root.glob(".*"))


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    folder, acquire, calls = RunFolder(tmp_path / "run"), filelock.FileLock.acquire, []

    def late(lock, *given, **options):
        calls.append(lock)
        taken = acquire(lock, *given, **options)
        if len(calls) == 1:
            (tmp_path / ".run.lock").unlink()
        return taken

    monkeypatch.setattr(filelock.FileLock, "acquire", late)
    with folder.lock():
        assert len(set(map(id, calls))) == 2
        with refused("run.in-use"):
            RunFolder(tmp_path / "run").lock()
