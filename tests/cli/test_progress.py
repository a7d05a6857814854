from __future__ import annotations

import logging

from rich.console import Console

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


def test_standard_output_stays_apart_from_a_bar_on_the_terminal(capfd, monkeypatch):
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=80))
    with FileProgress(total=2) as bar:
        bar.begin("[red]a\x1b[2J.png")
        print("printed")
        bar.say("said [red]b.png")
        bar.file_done(1000)
    out, err = capfd.readouterr()
    assert out == "printed\nsaid [red]b.png\n"
    assert r"[red]a\x1b[2J.png" in err
    assert "1/2" in err


def test_quiet_shows_warnings_alone(capfd, monkeypatch):
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=80))
    with FileProgress(total=2, quiet=True) as bar:
        bar.begin("a.png")
        bar.file_done(1000)
        logging.getLogger("imdn_kd").error("what %s", "happened")
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), "what happened" in err, "a.png" in err) == ("", 1, True, False)
