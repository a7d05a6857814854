"""Several files at the same time: the bytes, order, bounds and endings of one after the other."""

import copy
import os
import re
import signal
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from imdn_kd.archs import IMDN, IMDN_RTC, Plain
from imdn_kd.image.io import Picture
from imdn_kd.inference.batch import run_jobs
from imdn_kd.inference.cropping import AdaptiveCropping
from imdn_kd.inference.file_jobs import plan_jobs
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.side_by_side import Room, all_threads, threads_of
from imdn_kd.inference.upscaler import Upscaler
from tests.cli.run import run, started
from tests.fake_set import picture


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder of files of many kinds, some broken."""
    folder = tmp_path_factory.mktemp("mixed")
    for number, (suffix, mode, size) in enumerate(
        [
            *((".png", mode, (40, 36)) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
            *((suffix, "RGB", (33, 21)) for suffix in (".jpg", ".webp", ".bmp", ".tif", ".gif", ".ppm")),
            *((".png", "RGB", size) for size in ((1, 1), (3, 2), (150, 140), (160, 128))),
            (".jpg", "CMYK", (20, 30)),
        ]
    ):
        image = Image.fromarray(picture((size[1], size[0]), number))
        (image.convert("RGB").convert(mode) if mode != "RGBA" else image.convert("RGBA")).save(
            folder / f"{number:02}_{mode}{suffix}"
        )
    Image.fromarray(picture((30, 20), 50)[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    frames = [Image.fromarray(picture((20, 24), seed)) for seed in range(5)]
    for name in ("moving.webp", "shown.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=70)
    with tifffile.TiffWriter(folder / "pages.tif") as file:
        for seed in range(4):
            file.write(picture((18 + seed, 25), seed), photometric="rgb")
    whole = (folder / "14_RGB.png").read_bytes()
    (folder / "05_cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "20_empty.jpg").touch()
    (folder / "21_text.tif").write_text("no image")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told(results):
    return [(result.job.source, result.status, result.reason, result.size, result.left_out) for result in results]


@pytest.mark.parametrize(
    ("network", "suffix"),
    [(IMDN_RTC(num_feat=4, num_block=1), None), (IMDN(num_feat=8, num_block=1, upscale=2), ".tif")],
    ids=["conv", "global"],
)
def test_the_bytes_and_the_report_are_those_of_one_after_the_other(mixed, tmp_path, network, suffix):
    upscaler, seen = Upscaler(network), {}

    def enlarge(picture, on_progress):
        return upscaler(picture, on_progress=on_progress)

    for workers in (1, 3):
        jobs = plan_jobs([str(mixed)], tmp_path / "out", suffix=suffix)
        results = run_jobs(jobs, enlarge, lambda size: (2 * size[0], 2 * size[1]), workers=workers)
        seen[workers] = told(results), contents(tmp_path / "out")
        (tmp_path / "out").rename(tmp_path / f"out{workers}")
    assert seen[3] == seen[1]
    assert [source for source, *_ in seen[1][0]] == sorted(mixed.iterdir())
    assert sum(status == "failed" for _, status, *_ in seen[1][0]) == 3


def photographs(folder, count, size=(24, 16)):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", size, (number, 80, 200)).save(folder / f"{number:02}.png")
    return folder


def twice(picture):
    return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))


class Counted:
    """Counts the pictures that are between reading and writing, and waits for as many as there may be."""

    def __init__(self, expected):
        self.now, self.most, self.expected, self.lock = 0, 0, expected, threading.Condition()

    def enlarge(self, picture, _):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.most >= self.expected, timeout=30)
        time.sleep(0.01)  # in which one too many would come
        with self.lock:
            self.now -= 1
        return twice(picture)


@pytest.mark.parametrize(("workers", "room", "expected"), [(3, 100, 3), (4, 2.5, 2), (4, 1, 1), (4, 0.3, 1), (1, 9, 1)])
def test_pictures_in_memory_are_bounded_by_workers_and_by_their_pixels(tmp_path, monkeypatch, workers, room, expected):
    monkeypatch.setattr("imdn_kd.inference.batch._MOST_PIXELS", room * 48 * 32)
    jobs = plan_jobs([str(photographs(tmp_path / "in", 9))], tmp_path / "out")
    counted = Counted(expected)
    results = list(run_jobs(jobs, counted.enlarge, lambda size: (2 * size[0], 2 * size[1]), workers=workers))
    assert [result.status for result in results] == ["done"] * 9
    assert counted.most == expected


def test_a_slow_file_holds_up_neither_the_others_nor_the_order(tmp_path):
    jobs = plan_jobs([str(photographs(tmp_path / "in", 6))], tmp_path / "out")
    others = threading.Semaphore(0)

    def enlarge(picture, _):
        if picture.pixels[0, 0, 0] == 0:
            for _ in range(5):
                assert others.acquire(timeout=30)
        else:
            others.release()
        return twice(picture)

    results = run_jobs(jobs, enlarge, lambda size: (2 * size[0], 2 * size[1]), workers=2)
    assert [(result.job, result.status) for result in results] == [(job, "done") for job in jobs]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_nothing_half_done_stay_and_reports_what_is_finished(capfd, tmp_path, monkeypatch, number):
    folder, model = photographs(tmp_path / "in", 12, (130, 128)), tmp_path / "student.safetensors"
    save_model(model, ModelFile(IMDN_RTC(num_feat=4, num_block=1)))
    call, seen = Upscaler.__call__, []

    def stop(self, *arguments, **keywords):
        large = call(self, *arguments, **keywords)
        seen.append(large)
        if len(seen) == 4:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        return large

    monkeypatch.setattr(Upscaler, "__call__", stop)
    result = run(capfd, "upscale", folder, "-o", tmp_path / "out", "-m", model, "--jobs", 3)
    assert result.code == 128 + number
    written = sorted((tmp_path / "out").iterdir())
    assert result.out.splitlines()[-1].startswith(f"{len(written)} files: {len(written)} done; ")
    assert f"{12 - len(written)} of 12 images left" in result.err
    for path in written:
        with Image.open(path) as image:
            assert image.size == (260, 256)
            image.load()


@pytest.mark.processes
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_after_a_kill_the_rest_is_done_and_nothing_twice(capfd, tmp_path):
    folder, model = photographs(tmp_path / "in", 16, (150, 128)), tmp_path / "student.safetensors"
    save_model(model, ModelFile(IMDN_RTC(num_feat=4, num_block=1)))
    command = ("upscale", folder, "-o", tmp_path / "out", "-m", model, "--jobs", 2, "--skip-existing")
    with started(*command) as process:
        while not list((tmp_path / "out").glob("[0-9]*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        process.kill()
        process.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[0-9]*")}
    result = run(capfd, *command)
    counts = {"done": 16 - len(before), "skipped": len(before)}
    said = {what: int(count) for count, what in re.findall(r"(\d+) (done|skipped)", result.out.splitlines()[-1])}
    assert (result.code, said) == (0, {what: count for what, count in counts.items() if count})
    assert {path: path.stat().st_mtime_ns for path in before} == before
    upscaler = Upscaler(model)
    for source in sorted(folder.iterdir()):
        with Image.open(source) as small, Image.open(tmp_path / "out" / source.name) as large:
            assert np.array_equal(np.asarray(large), np.asarray(upscaler(small)))


def test_room_is_given_in_the_order_of_asking():
    room, order = Room(), []

    def work(part):
        with room.take(part):
            order.append(part)

    with room.take(0.5):
        threads = []
        for part in (0.6, 0.3, 0.2):
            threads.append(threading.Thread(target=partial(work, part)))
            threads[-1].start()
            while len(room._waiting) < len(threads):
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(30)
    assert order[0] == 0.6


def test_a_part_that_is_larger_than_the_room_is_alone_in_it():
    room = Room()
    with room.take(7):
        assert room.users == 1
        assert not room._fits(0.01)
    assert room._fits(0.01)


def test_a_copy_of_what_crops_can_be_made():
    room = copy.deepcopy(AdaptiveCropping(IMDN_RTC(num_feat=4, num_block=1)))._room
    with room.take(1):
        assert room.users == 1


def test_threads_are_shared_by_files_but_not_by_what_runs_alone():
    seen = []

    def count(files):
        with threads_of(8, files):
            seen.append(torch.get_num_threads())
            with all_threads():
                seen.append(torch.get_num_threads())
            seen.append(torch.get_num_threads())

    thread = threading.Thread(target=lambda: [count(files) for files in (1, 3, 20)])
    thread.start()
    thread.join()
    assert seen == [8, 8, 8, 2, 8, 2, 1, 8, 1]
    torch.set_num_threads(1)
    with all_threads():
        assert torch.get_num_threads() == 1


def test_networks_that_fewer_threads_change_run_alone(monkeypatch):
    """The result of a network with one thread differs here by one bit."""

    class Fickle(Plain):
        def forward(self, image):
            return super().forward(image) + (torch.get_num_threads() == 1) * 2**-10

    class Steady(Plain):
        pass

    for kind, expected in ((Fickle, {2}), (Steady, {1})):
        torch.manual_seed(0)
        network, seen = kind(num_feat=4, num_block=1, upscale=2), set()
        upscaler = Upscaler(network)
        forward = type(network).forward

        def spy(self, image, forward=forward, seen=seen):
            if image.shape[2:] == (200, 200):
                seen.add(torch.get_num_threads())
            return forward(self, image)

        monkeypatch.setattr(kind, "forward", spy)
        with threads_of(2, 2):
            upscaler(Picture(np.zeros((200, 200, 3), np.uint8)))
        assert seen == expected
        assert torch.get_num_threads() == 1
