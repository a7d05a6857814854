"""The static page against `imdn-kd upscale`: time, memory, results. Needs Chromium, playwright and npm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

from imdn_kd.inference.model_file import load_model
from imdn_kd.web.page import write_page
from tests.fake_set import picture
from tests.web.browser import Watched, chromium, opened, served

STUDENTS = ("imdn_rtc_x2", "plain_m_x2")
SIDES = (1500, 1000)


class Usage(NamedTuple):
    """CPU time and time, s; most memory of a process, bytes."""

    cpu: float
    seconds: float
    memory: int

    def __str__(self) -> str:
        return f"{self.cpu:8.1f} s {self.seconds:8.1f} s {self.memory / 2**20:8.0f} MiB"


def browser() -> None:
    """Students on a picture of 1500x1000 px, one thread each; the command with its start, the page without."""
    print(f"{f'{SIDES[0]}x{SIDES[1]} px':<22}{'CPU time':>10} {'time':>10} {'memory':>12}")
    with TemporaryDirectory() as temporary, chromium() as started:
        file, result = Path(temporary, "photo.png"), Path(temporary, "large.png")
        Image.fromarray(picture(SIDES[::-1], 1)).save(file)
        for name in STUDENTS:
            by_command = _command(file, name, result)
            folder = Path(temporary, name)
            write_page(load_model(name), folder, name=name)
            with served(folder) as url, opened(started, url) as watched:
                watched.wait("#status:has-text('Ready.')")
                in_page = _page(watched, file)
                with watched.page.expect_download() as download:
                    watched.page.click("#download")
                found, expected = (np.asarray(Image.open(path)).astype(int) for path in (download.value.path(), result))
            print(f"{name:<15}page   {in_page}\n{name:<15}command{by_command}")
            print(f"{name:<15}page / command, CPU time {in_page.cpu / by_command.cpu:.2f}", end="; ")
            print(f"largest difference {np.abs(found - expected).max()} of 255")


def _command(file: Path, name: str, result: Path) -> Usage:
    options = ["--model", name, "-o", str(result), "--overwrite", "--quiet", "--engine", "torch"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "imdn_kd", "upscale", str(file), *options], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return Usage(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss * 1024)


def _page(watched: Watched, file: Path) -> Usage:
    """The memory is that of the process that runs the page and its worker."""
    processes = psutil.Process().children(recursive=True)
    renderers = [each for each in processes if "--type=renderer" in each.cmdline()]
    done, peaks = threading.Event(), [0]

    def sample() -> None:
        while not done.wait(0.02):
            peaks.append(max(each.memory_info().rss for each in renderers))

    def cpu() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    sampler = threading.Thread(target=sample)
    before, start = cpu(), time.perf_counter()
    sampler.start()
    watched.page.set_input_files("#file", file)
    watched.wait(f"#status:has-text('{file.name}: {2 * SIDES[0]}x')")
    found = cpu() - before, time.perf_counter() - start
    done.set()
    sampler.join()
    return Usage(*found, max(peaks))
