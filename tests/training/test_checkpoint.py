from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imdn_kd.training.checkpoint import State, load_state, newest_state, save_state, state_path
from tests.refused import refused
from tests.training.small_runs import flat


def state(step):
    torch.manual_seed(step)
    return State(
        step,
        options={"name": "run", "scale": 2, "train": {"lr": 1e-4, "nothing": None, "list": [1, 2.5, "x", True]}},
        network={"weight": torch.rand(300, 7), "index": torch.arange(4), "half": torch.rand(3).half()},
        optimizer={"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(5)}}, "param_groups": [{"lr": 0.1}]},
        ema={"n_averaged": torch.tensor(7)},
        best={"psnr": {"value": 31.5, "step": 2}},
        validated=step,
        skipped=1,
        window={"sums": {"l_pix": 0.1 + 0.2}, "count": 2},
    )


def test_what_is_saved_is_what_is_read(tmp_path):
    save_state(tmp_path, state(8), keep_last=0)
    read = load_state(state_path(tmp_path, 8))

    assert flat(vars(read)) == flat(vars(state(8)))


@pytest.mark.parametrize(
    ("keep_last", "left"), [(0, [2, 10, 9, 100]), (1, [100]), (2, [10, 100]), (9, [2, 10, 9, 100])]
)
def test_old_states_are_removed(tmp_path, keep_last, left):
    for step in (2, 9, 10, 100):
        save_state(tmp_path, state(step), keep_last=keep_last)
    (tmp_path / "mine.state").touch()

    assert {int(path.stem) for path in tmp_path.glob("*.state") if path.stem != "mine"} == set(left)
    newest = newest_state(tmp_path)
    assert newest is not None
    assert newest.step == 100


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    place = content.index(state(0).network["index"].numpy().tobytes())  # the same in all of them
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda content: b"", lambda content: b"text"])
def test_damage_is_noticed_and_the_state_before_is_taken(tmp_path, damage, caplog):
    for step in (1, 2, 3):
        save_state(tmp_path, state(step), keep_last=0)
    for step in (2, 3):
        path = state_path(tmp_path, step)
        path.write_bytes(damage(path.read_bytes()))
        with refused("state.damaged"):
            load_state(path)
    newest = newest_state(tmp_path)

    assert newest is not None
    assert newest.step == 1
    assert len(caplog.records) == 2


def test_states_of_which_none_can_be_read_are_no_fresh_start(tmp_path):
    for step in (1, 2):
        (tmp_path / f"{step}.state").write_bytes(b"text")
    with refused("state.damaged"):
        newest_state(tmp_path)


def test_no_state_is_none(tmp_path):
    assert newest_state(tmp_path) is None
    assert newest_state(tmp_path / "absent") is None
    with refused("state.not-found"):
        load_state(tmp_path / "1.state")


def test_states_of_basicsr_and_code_are_refused(tmp_path):
    torch.save({"epoch": 1, "iter": 5, "optimizers": [], "schedulers": []}, tmp_path / "5.state")
    with refused("state.foreign"):
        load_state(tmp_path / "5.state")
    torch.save({"format": object}, tmp_path / "6.state")
    with refused("state.damaged"):
        load_state(tmp_path / "6.state")


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    save_state(tmp_path, state(1), keep_last=1)

    def fail(path, content):
        path.open("wb").write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with refused("file.cannot-write"):
        save_state(tmp_path, state(2), keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["1.state"]
