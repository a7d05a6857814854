from __future__ import annotations

from imdn_kd.cli import progress
from imdn_kd.cli.progress import FileProgress


def test_a_line_now_and_then_where_there_is_no_terminal(capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with FileProgress(total=10) as bar:
        for _ in range(4):
            now[0] += 12
            bar.file_done(1000)
        now[0] += 42  # 90 seconds for 4.5 of 10
        bar.part(0.5)
        bar.part(0.6)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "imdn-kd: 3 of 10 done, 0:01:24 left",
        "imdn-kd: 4 of 10 done, 0:01:50 left",
    ]


def test_a_total_that_becomes_known_later(capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with FileProgress() as bar:
        for done, total in ((0, None), (5, None), (6, 8)):
            now[0] += 30
            bar.at(done, total)
    assert capfd.readouterr().err.splitlines() == [
        "imdn-kd: 0 done",
        "imdn-kd: 5 done",
        "imdn-kd: 6 of 8 done, 0:00:30 left",
    ]
