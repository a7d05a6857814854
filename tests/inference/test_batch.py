import errno
import multiprocessing
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imdn_kd.errors import InputError
from imdn_kd.image.io import WRITABLE, Picture, read_image
from imdn_kd.inference.batch import run_jobs
from imdn_kd.inference.file_jobs import plan_jobs
from tests.refused import refused


def image(path, size=(3, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 80, 200)).save(path)
    return path


def twice(picture, on_progress=None):
    return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))


def twice_the_size(size):
    return 2 * size[0], 2 * size[1]


def rows(jobs, enlarge=twice, result_size=twice_the_size, **options):
    return list(run_jobs(jobs, enlarge, result_size, **options))


def targets(jobs, output):
    return sorted(str(job.target.relative_to(output)) for job in jobs if not job.problem)


def problems(jobs):
    return {job.source: job.problem.code for job in jobs if job.problem}


ALL_KINDS = [
    InputError("not possible", code="some.code"),
    OSError(errno.EIO, "Input/output error"),
    MemoryError(),
    RuntimeError("could not create a primitive"),
    RuntimeError("two\nlines"),
    RecursionError("too deep"),
    ZeroDivisionError(),
    AssertionError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
]


@pytest.mark.parametrize("error", ALL_KINDS, ids=lambda error: type(error).__name__)
def test_whatever_goes_wrong_with_one_picture_ends_only_that_one(tmp_path, error):
    jobs = plan_jobs([str(image(tmp_path / name)) for name in ("a.png", "b.png", "c.png")], tmp_path / "out")

    def enlarge(picture, on_progress):
        calls.append(picture)
        if len(calls) == 2:
            raise error
        return twice(picture)

    calls = []
    results = rows(jobs, enlarge)
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert results[1].reason.startswith(str(tmp_path / "b.png"))
    assert "\n" not in results[1].reason
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_a_name_too_long_for_the_file_system_is_refused_before_the_work(tmp_path):
    long = "b" * 251
    sources = [image(tmp_path / "in" / name) for name in (f"{long}.png", "c.png")]
    seen = []
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out", suffix=".tiff")
    results = rows(jobs, lambda picture, _: seen.append(picture) or twice(picture))
    assert [(result.job.source, result.status) for result in results] == [(sources[0], "failed"), (sources[1], "done")]
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["gone/a.png", "n" * 300 + ".png", "n/" * 3000 + "a.png", "*.none", "empty"])
def test_an_input_that_gives_no_image_is_a_row_beside_others(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    results = rows(plan_jobs([name, "a.png"], "out"))
    assert [result.status for result in results] == ["failed", "done"]
    with pytest.raises(InputError, match=r"^.+$"):
        plan_jobs([name], "out")


def test_folders_that_cannot_be_listed_are_rows_of_their_own(tmp_path, monkeypatch):
    for name in ("in/a.png", "in/locked/b.png", "in/open/c.png", "in/open/locked/d.png", "shut/e.png"):
        image(tmp_path / name)
    scandir = os.scandir

    def scan(path):
        if Path(path).name in ("locked", "shut"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    jobs = plan_jobs([str(tmp_path / "in"), str(tmp_path / "shut")], tmp_path / "out", recursive=True)
    assert targets(jobs, tmp_path / "out") == ["a.png", "open/c.png"]
    locked = (tmp_path / "in/locked", tmp_path / "in/open/locked", tmp_path / "shut")
    assert problems(jobs) == dict.fromkeys(locked, "image.cannot-list")
    assert Counter(result.status for result in rows(jobs)) == {"done": 2, "failed": 3}
    with refused("image.cannot-list"):
        plan_jobs([str(tmp_path / "shut")], tmp_path / "out", recursive=True)


def test_linked_folders_are_gone_into_and_circles_end(tmp_path):
    for name in ("in/a.png", "in/sub/b.png", "else/c.png", "else/deep/d.png"):
        image(tmp_path / name)
    for link, target in {
        "in/other": "../else",
        "in/sub/up": "..",
        "in/sub/self": ".",
        "in/above": "../..",
        "else/back": "../in",
        "else/deep/twin": "../../else",
        "in/gone.png": "nothing.png",
        "in/round.png": "round.png",
    }.items():
        (tmp_path / link).symlink_to(target)
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out", recursive=True)
    links = ["gone.png", "round.png"]
    assert targets(jobs, tmp_path / "out") == sorted(["a.png", *links, "other/c.png", "other/deep/d.png", "sub/b.png"])
    assert [str(row.job.source.name) for row in rows(jobs) if row.status == "failed"] == links


@pytest.mark.parametrize(("inside", "output", "found"), [("in", "in/out", 2), ("in/old", ".", 1), ("in", "in", None)])
def test_only_results_of_an_earlier_run_are_left_out(tmp_path, monkeypatch, inside, output, found):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/old/b.png", "in/out/a.png"):
        image(tmp_path / name)
    if found is None:
        with refused("output.is-input"):
            plan_jobs([inside], output, recursive=True)
    else:
        assert len(plan_jobs([inside], output, recursive=True)) == found


@pytest.mark.parametrize(
    ("inputs", "output", "expected"),
    [
        (["a.png"], "big.png", "big.png"),
        (["a.png"], "big", "big/a.png"),
        (["a.png"], "big.d/", "big.d/a.png"),
        (["a.png"], "big.png/", "big.png/a.png"),
        (["a.png"], "there.d", "there.d/a.png"),
        (["one"], "big.png", "big.png"),
        (["one"], "big.2", "big.2/a.png"),
        (["a.png", "b.png"], "big.d", "big.d/a.png big.d/b.png"),
        (["a.png"], "big.xyz", "image.unwritable-format"),
        (["a.png"], "big.gif", "image.unwritable-format"),
        (["a.png"], "big.2", "image.unwritable-format"),
        (["a.png", "b.png"], "big.png", "output.not-a-folder"),
        (["a.png", "gone.png"], "big.png", "output.not-a-folder"),
        (["a.png"], "text", "output.not-a-folder"),
        (["a.png", "b.png"], "text.txt", "output.not-a-folder"),
    ],
)
def test_what_the_output_means(tmp_path, monkeypatch, inputs, output, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "one/a.png"):
        image(tmp_path / name)
    (tmp_path / "there.d").mkdir()
    for name in ("text", "text.txt"):
        (tmp_path / name).write_text("x")
    if "/" in expected or expected == output:
        assert [str(job.target) for job in plan_jobs(inputs, output)] == expected.split()
    else:
        with refused(expected):
            plan_jobs(inputs, output)


@pytest.mark.parametrize("skip", [False, True])
def test_an_output_that_appears_during_the_work_stays(tmp_path, skip):
    jobs = plan_jobs([str(image(tmp_path / "a.png"))], tmp_path / "out")

    def enlarge(picture, on_progress):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/a.png").write_bytes(b"precious")
        return twice(picture)

    (result,) = rows(jobs, enlarge, skip_existing=skip)
    assert result.status == ("skipped" if skip else "failed")
    assert (tmp_path / "out/a.png").read_bytes() == b"precious"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize("skip", [False, True])
def test_a_link_to_nothing_counts_as_an_output_that_exists(tmp_path, skip):
    jobs = plan_jobs([str(image(tmp_path / "a.png"))], tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").symlink_to("elsewhere.png")
    (result,) = rows(jobs, lambda *_: pytest.fail("work in vain"), skip_existing=skip)
    assert result.status == ("skipped" if skip else "failed")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_two_processes_that_skip_what_exists_write_every_picture_once(tmp_path):
    for number in range(40):
        image(tmp_path / "in" / f"{number:02}.png")
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out")
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2, timeout=30), context.SimpleQueue()

    def work():
        def enlarge(picture, on_progress):  # both are past the look for an output
            barrier.wait()
            return twice(picture)

        queue.put([result.status for result in run_jobs(jobs, enlarge, twice_the_size, skip_existing=True)])

    workers = [context.Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    statuses = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert [sorted(pair) for pair in zip(*statuses, strict=True)] == [["done", "skipped"]] * 40
    assert len(list((tmp_path / "out").iterdir())) == 40


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
@pytest.mark.parametrize("upright", [False, True])
def test_limits_of_the_format_come_before_the_work(tmp_path, suffix, upright):
    jobs = plan_jobs([str(image(tmp_path / "a.png"))], tmp_path / "out", suffix=suffix)
    limit = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".png": 10**6}.get(suffix)
    if limit is None:
        limit = {".bmp": 2**31 - 1}.get(suffix, 2**32 - 1)
    else:
        assert rows(jobs, result_size=lambda _: (limit, 1)[:: 1 if upright else -1])[0].status == "done"
    (result,) = rows(
        jobs,
        lambda *_: pytest.fail("work in vain"),
        lambda _: (limit + 1, 1)[:: 1 if upright else -1],
        overwrite=True,
    )
    assert result.status == "failed"
    assert str(limit) in result.reason


@pytest.mark.parametrize(("name", "limit"), [("WEBP", 16383), ("JPEG", 65500)])
def test_the_limits_are_those_of_pillow(tmp_path, name, limit):
    Image.new("L", (limit, 1)).save(tmp_path / "a", name)
    with pytest.raises((OSError, ValueError)):
        Image.new("L", (limit + 1, 1)).save(tmp_path / "b", name)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((7, 5), "shrinks"),  # 10 x 7, shrunk by .7 and rounded
        ((30, 21), ""),
        ((31, 22), ""),
        ((25, 18), ""),
        ((100, 100), "aspect ratio"),
        ((30, 6), "aspect ratio"),
        ((30, 6), "shrinks"),
    ],
)
def test_distortion_and_shrinking_are_told(tmp_path, caplog, size, told):
    jobs = plan_jobs([str(image(tmp_path / "a.png", (10, 7)))], tmp_path / "out")

    def enlarge(picture, on_progress):
        return Picture(np.zeros((size[1], size[0], 3), np.uint8))

    assert rows(jobs, enlarge, lambda _: size[::-1])[0].status == "done"
    assert told in caplog.text
    assert bool(told) == bool(caplog.text)
    assert not told or str(tmp_path / "a.png") in caplog.text


def test_a_result_that_exists_is_replaced_only_if_asked(tmp_path):
    jobs = plan_jobs([str(image(tmp_path / "a.png"))], tmp_path / "out")
    for options, status in (({}, "done"), ({}, "failed"), ({"skip_existing": True}, "skipped")):
        assert rows(jobs, **options)[0].status == status
    (tmp_path / "out/a.png").write_bytes(b"old")
    assert rows(jobs, overwrite=True)[0].status == "done"
    assert read_image(tmp_path / "out/a.png").pixels.shape == (4, 6, 3)


def test_what_is_prepared_for_a_picture_is_no_time_of_its_file(tmp_path, monkeypatch):
    clock, seen = [0.0], []
    monkeypatch.setattr("imdn_kd.inference.batch.time.perf_counter", lambda: clock[0])

    def prepare(given, size):
        seen.append((given, size))
        clock[0] += 100

    def enlarge(picture, on_progress):
        clock[0] += 1
        return twice(picture)

    jobs = plan_jobs([str(image(tmp_path / "a.png"))], tmp_path / "out")
    (done,) = rows(jobs, enlarge, prepare=prepare)

    assert done.seconds == 1
    assert seen == [((2, 3), (4, 6))]
