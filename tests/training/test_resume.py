"""A run that is stopped in any way and gone on with ends as one that was left alone: bit for bit."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest
import torch
from torch.nn import functional

from imdn_kd.archs.imdn import IMDN
from imdn_kd.inference.model_file import load_model
from imdn_kd.training import best_checkpoint as module
from imdn_kd.training.run import prepare
from tests.refused import refused
from tests.training.small_runs import flat, killed_at_random, metrics, small_options, state_file, train, with_validation

UPDATES = 24
EVERYTHING = {
    "datasets": {"train": {"gt_sizes": [16, 32], "mini_batch_sizes": [4, 2], "iters": [9, 15]}},
    "train": {
        **{"total_iter": UPDATES, "accumulation": 2, "warmup_iter": 6, "grad_clip": 1.0},
        **{"optim_g": {"type": "Muon"}, "reparam": {"width": 2}},
    },
    "logger": {"print_freq": 3, "save_checkpoint_freq": 4, "use_tb_logger": True, "keep_last": 2},
}


def everything(data):
    changes = with_validation(data, select_on="held_out", val_freq=8)
    return small_options(
        data,
        {**EVERYTHING, "datasets": {**EVERYTHING["datasets"], **changes["datasets"]}, "val": changes["val"]},
    )


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    train(everything(data), root)
    return root


def assert_same(root, other):
    assert flat(state_file(root, UPDATES)) == flat(state_file(other, UPDATES))
    assert metrics(root) == metrics(other)
    for which in ("best_psnr", "best_ssim", "latest"):
        models = [load_model(each / "run" / "models" / f"net_g_{which}.safetensors") for each in (root, other)]
        assert models[0].training == models[1].training
        assert flat(models[0].network.state_dict()) == flat(models[1].network.state_dict())
    assert not list((root / "run").rglob(".*"))


def go_on(data, root):
    torch.set_num_threads(1)
    train(everything(data), root, auto_resume=True)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(data, tmp_path, undisturbed):
    """SIGKILL leaves no time for anything, so it may hit in the middle of a file."""
    start = time.perf_counter()
    go_on(data, tmp_path / "whole")  # tells how long it takes here
    assert killed_at_random(go_on, time.perf_counter() - start, data, tmp_path) >= 3
    assert_same(tmp_path, undisturbed)


def stop_at(step, number):
    def on_step(done, losses, rate):
        if done == step:
            os.kill(os.getpid(), number)

    return on_step


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_run(data, tmp_path, undisturbed, number):
    for step in (5, 16, 23):
        _, result = train(everything(data), tmp_path, auto_resume=True, on_step=stop_at(step, number))
        assert (result.step, result.signal) == (step, number)
        assert state_file(tmp_path, step)["step"] == step
        assert not result.test
    _, result = train(everything(data), tmp_path, auto_resume=True)

    assert (result.step, result.signal) == (UPDATES, None)
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_signal_during_validation_does_not_wait_for_its_end(data, tmp_path, undisturbed, monkeypatch):
    real = module.validate

    def interrupted(*args, on_image, **keywords):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, on_image=on_image, **keywords)

    monkeypatch.setattr(module, "validate", interrupted)
    _, result = train(everything(data), tmp_path)
    assert (result.step, result.signal) == (8, signal.SIGINT)
    assert not any("scores" in record for record in metrics(tmp_path))
    monkeypatch.undo()
    train(everything(data), tmp_path, auto_resume=True)

    assert_same(tmp_path, undisturbed)


def test_the_second_signal_ends_at_once(data, tmp_path):
    def twice(done, losses, rate):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small_options(data), tmp_path, on_step=twice)


def test_signals_are_handled_as_before_afterwards(data, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(small_options(data), tmp_path)

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_what_a_network_draws_is_the_same_after_a_resume(data, tmp_path, monkeypatch):
    forward = IMDN.forward
    monkeypatch.setattr(
        IMDN, "forward", lambda self, image: forward(self, functional.dropout(image, 0.3, self.training))
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = small_options(data)
    train(options, whole)
    torch.rand(1000)  # whatever else uses random numbers
    train(options, parts, on_step=stop_at(5, signal.SIGTERM))
    train(options, parts, auto_resume=True)

    assert flat(state_file(whole, 12)) == flat(state_file(parts, 12))


@pytest.mark.slow
def test_a_damaged_newest_state_falls_back_to_the_one_before(data, tmp_path, undisturbed, caplog):
    train(everything(data), tmp_path, on_step=stop_at(18, signal.SIGTERM))
    newest = tmp_path / "run" / "training_states" / "18.state"
    content = bytearray(newest.read_bytes())
    weight = state_file(tmp_path, 18)["network"]["IMDB1.c1.bias"]
    content[content.index(weight.numpy().tobytes()) + 10] ^= 1  # one bit in the middle of a weight
    newest.write_bytes(content)
    with caplog.at_level(logging.INFO):
        train(everything(data), tmp_path, auto_resume=True)

    assert "18.state: is damaged" in caplog.text
    assert "from iteration 16 to 24" in caplog.text
    assert_same(tmp_path, undisturbed)


def test_a_run_that_went_back_keeps_its_own_states(data, tmp_path):
    train(small_options(data), tmp_path)
    back = {"path": {"resume_state": str(tmp_path / "run" / "training_states" / "4.state")}, "logger": {"keep_last": 2}}
    train(small_options(data, back), tmp_path, on_step=stop_at(7, signal.SIGTERM))
    states = {path.name for path in (tmp_path / "run" / "training_states").iterdir()}
    assert states == {"4.state", "7.state", "8.state.abandoned", "12.state.abandoned"}
    trainer = prepare(small_options(data, back), root=tmp_path, auto_resume=True)

    assert trainer.step == 7


def test_the_state_is_written_last(data, tmp_path, monkeypatch):
    monkeypatch.setattr("imdn_kd.training.trainer.save_state", lambda *args, **keywords: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(small_options(data), tmp_path)
    models = tmp_path / "run" / "models"

    assert (models / "net_g_4.pth").is_file()
    assert load_model(models / "net_g_latest.safetensors").training["updates"] == 4


def test_a_best_value_of_other_photographs_does_not_count(data, tmp_path):
    changes = with_validation(data, select_on="held_out")
    train(small_options(data, changes), tmp_path, on_step=stop_at(9, signal.SIGTERM))
    changes["datasets"]["val"] = {"name": "held_out", "dataroot_gt": str(data / "held_out" / "HR")}
    trainer = prepare(small_options(data, changes), root=tmp_path, auto_resume=True)
    assert not trainer._tracker.best
    result = trainer.run()

    assert result.best["psnr"]["step"] == 12
    assert load_model(result.model).training["updates"] == 12


def test_two_runs_do_not_share_a_folder(data, tmp_path):
    first = prepare(small_options(data), root=tmp_path)
    for resumed in (False, True):
        with refused("run.in-use"):
            prepare(small_options(data), root=tmp_path, auto_resume=resumed)
    first.run()
    assert not list(tmp_path.glob("run_archived_*"))
    _, result = train(small_options(data), tmp_path, auto_resume=True)

    assert result.step == 12


def test_runs_of_one_second_are_kept_apart(data, tmp_path, monkeypatch):
    monkeypatch.setattr("imdn_kd.training.run_folder.time.strftime", lambda *_: "now")
    for _ in range(3):
        train(small_options(data, {"train": {"total_iter": 1}}), tmp_path)

    assert sorted(path.name for path in tmp_path.glob("run_archived_*")) == ["run_archived_now", "run_archived_now_2"]


def test_accelerate_in_the_environment_changes_nothing(data, tmp_path, monkeypatch):
    train(small_options(data), tmp_path / "plain")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    train(small_options(data), tmp_path / "set")

    assert flat(state_file(tmp_path / "plain", 12)) == flat(state_file(tmp_path / "set", 12))


def test_a_finished_run_has_nothing_more_to_do(data, tmp_path):
    train(small_options(data), tmp_path)
    before = (tmp_path / "run" / "training_states" / "12.state").stat().st_mtime_ns
    _, result = train(small_options(data), tmp_path, auto_resume=True)

    assert result.step == 12
    assert (tmp_path / "run" / "training_states" / "12.state").stat().st_mtime_ns == before


def test_more_iterations_can_be_asked_for_later(data, tmp_path):
    constant = {"scheduler": None}
    train(small_options(data, {"train": {**constant, "total_iter": 30}}), tmp_path / "whole")
    for total in (12, 30):
        train(small_options(data, {"train": {**constant, "total_iter": total}}), tmp_path / "parts", auto_resume=True)

    assert flat(state_file(tmp_path / "whole", 30)) == flat(state_file(tmp_path / "parts", 30))


def test_weights_to_begin_with_are_not_needed_any_more(data, tmp_path):
    train(small_options(data), tmp_path / "first")
    begin = tmp_path / "first" / "run" / "models" / "net_g_12.pth"
    options = small_options(data, {"path": {"pretrain_network_g": str(begin)}})
    train(options, tmp_path, on_step=stop_at(6, signal.SIGTERM))
    begin.unlink()
    _, result = train(options, tmp_path, auto_resume=True)

    assert result.step == 12


def test_a_changed_rate_holds_from_then_on_and_is_told(data, tmp_path, caplog):
    train(small_options(data), tmp_path, on_step=stop_at(6, signal.SIGTERM))
    trainer = prepare(small_options(data, {"train": {"optim_g": {"lr": 1e-5}}}), root=tmp_path, auto_resume=True)
    trainer.run()

    assert "train.optim_g.lr is 1e-05, was 0.002" in caplog.text
    assert metrics(tmp_path)[-1]["lr"] == pytest.approx(1e-5 / 2)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"network_g": {"num_feat": 12}}, "train.state-mismatch"),
        ({"train": {"total_iter": 5}}, "train.state-beyond-end"),
        ({"train": {"optim_g": {"type": "RMSprop", "betas": None}}}, "train.state-mismatch"),
    ],
)
def test_a_run_of_something_else_is_not_resumed(data, tmp_path, changes, code):
    train(small_options(data), tmp_path)
    with refused(code):
        prepare(small_options(data, changes), root=tmp_path, auto_resume=True)


def test_a_state_can_be_named(data, tmp_path):
    train(small_options(data), tmp_path)
    state = tmp_path / "run" / "training_states" / "4.state"
    before = flat(state_file(tmp_path, 12))
    trainer = prepare(small_options(data, {"path": {"resume_state": str(state)}}), root=tmp_path)
    assert trainer.step == 4
    trainer.run()

    after = flat(state_file(tmp_path, 12))
    assert {key for key in before if before[key] != after.get(key)} == {".options.path.resume_state"}


def test_a_run_of_the_same_name_is_kept_under_another(data, tmp_path, caplog):
    train(small_options(data), tmp_path)
    first = flat(state_file(tmp_path, 12))
    with caplog.at_level(logging.INFO):
        train(small_options(data, {"manual_seed": 1}), tmp_path)
    (archived,) = tmp_path.glob("run_archived_*")

    assert "is kept as run_archived_" in caplog.text
    assert flat(torch.load(archived / "training_states" / "12.state", weights_only=True)) == first
    assert flat(state_file(tmp_path, 12)) != first


def test_the_ranges_of_8_bits_are_resumed(data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = small_options(data, {"train": {"quantize": {"calibration_iter": 2}}})
    train(options, whole)
    train(options, parts, on_step=stop_at(5, signal.SIGTERM))
    train(options, parts, auto_resume=True)

    assert flat(state_file(whole, 12)) == flat(state_file(parts, 12))
    models = [load_model(each / "run" / "models" / "net_g_latest.safetensors").network for each in (whole, parts)]
    assert flat(models[0].state_dict()) == flat(models[1].state_dict())
