from __future__ import annotations

import pytest

from imdn_kd.evaluation import score_log
from imdn_kd.evaluation.score_log import ScoreLog

SCORES = {"baby": [31.25, 0.5], "bird": [float("inf"), 1.0], "butterfly\n\u00e9": [27.125, 0.1]}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(score_log, "log_folder", lambda: tmp_path / "folder")
    log = ScoreLog("key")
    for name, scores in SCORES.items():
        log.add(name, scores)
    return tmp_path / "folder" / "key.jsonl"


def test_scores_are_kept_until_they_are_forgotten(file):
    assert ScoreLog("key").kept == SCORES
    assert ScoreLog("other").kept == {}
    ScoreLog("key").forget()
    assert list(file.parent.iterdir()) == []


def test_damaged_files_give_no_wrong_scores(file):
    """Cut at any byte, any byte changed, or the file of another key."""
    whole = file.read_bytes()
    changed = [
        whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in (1, 4)
    ]
    for content in (
        *(whole[:place] for place in range(len(whole))),
        *changed,
        b"\xff",
        b"[]\n",
        b'{"job": "key"}\n3\n{}\n',
    ):
        file.write_bytes(content)
        log = ScoreLog("key")
        assert log.kept.items() <= SCORES.items()
        assert log.works
    file.rename(file.with_name("other.jsonl"))
    assert ScoreLog("other").kept == {}


def test_a_torn_record_does_not_hide_those_that_are_added(file):
    file.write_bytes(file.read_bytes()[:-9])
    log = ScoreLog("key")
    assert list(log.kept) == ["baby", "bird"]
    log.add("butterfly\n\u00e9", SCORES["butterfly\n\u00e9"])
    assert ScoreLog("key").kept == SCORES
