"""What `train --check` finds in training images: all that would end training when a pair is drawn."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imdn_kd.data.paired import PairedImageDataset
from imdn_kd.data.read_check import read_pairs
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.training.run import check
from tests.cli.run import run
from tests.fake_set import picture
from tests.refused import refused
from tests.training.small_runs import small_options

NAMES = [f"{number:04}" for number in range(1, 6)]


def make_pairs(root: Path) -> dict[str, str]:
    for seed, name in enumerate(NAMES):
        gt = picture((40, 44), seed)
        write_image(root / "HR" / f"{name}.png", Picture(gt))
        write_image(root / "LR" / f"{name}x2.png", Picture(imresize(gt, 0.5)))
    return {"dataroot_gt": str(root / "HR"), "dataroot_lq": str(root / "LR"), "filename_tmpl": "{}x2"}


def trained_on(data: Path, folders: dict[str, Any]) -> Any:
    train = {"type": "PairedImageDataset", "dataroot": None, "gt_size": 16, **folders}
    return small_options(data, {"datasets": {"train": train}})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def fade(path: Path) -> None:
    image = Image.open(path).convert("RGBA")
    image.putalpha(100)
    image.save(path)


def crop(path: Path) -> None:
    image = Image.open(path)
    image.crop((0, 0, image.width - 1, image.height)).save(path)


def exchange(gt: Path, lq: Path) -> None:
    images = gt.read_bytes(), lq.read_bytes()
    gt.write_bytes(images[1])
    lq.write_bytes(images[0])


def as_text(path: Path) -> None:
    path.write_text("no image")


def of_one(spoil: Callable[[Path], None], side: int) -> Callable[..., None]:
    return lambda *pair: spoil(pair[side])


SPOILS: dict[str, Callable[[Path, Path], None]] = {
    **{f"{spoil.__name__} {side}": of_one(spoil, side) for spoil in (truncate, fade, as_text) for side in (0, 1)},
    "crop": of_one(crop, 1),
    "empty": of_one(lambda path: path.write_bytes(b""), 0),
    "exchange": exchange,
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_whatever_ends_reading_is_found_by_the_check(spoil, data, tmp_path):
    folders = make_pairs(tmp_path)
    for name in NAMES[1:4:2]:
        spoil(tmp_path / "HR" / f"{name}.png", tmp_path / "LR" / f"{name}x2.png")
    with pytest.raises(InputError) as read:
        PairedImageDataset(scale=2, **folders).read(1)
    options = trained_on(data, folders)
    with refused(read.value.code) as caught:
        check(options, root=tmp_path / "runs", read_images=lambda pairs: str(read_pairs(pairs, seconds=60)))
    assert len(caught.value.lines) == 2, caught.value
    for name in NAMES[1:4:2]:
        assert sum(name in line for line in caught.value.lines) == 1
    assert all(line.startswith("datasets.train: ") for line in caught.value.lines)


def test_sizes_are_compared_whenever_training_begins(data, tmp_path):
    folders = make_pairs(tmp_path)
    crop(tmp_path / "LR" / "0004x2.png")
    with refused("data.lr-size"):
        check(trained_on(data, folders), root=tmp_path / "runs")


@pytest.mark.parametrize("template", ["{}x2", "{}"])
def test_folders_that_are_exchanged_are_told(template, data, tmp_path):
    folders = make_pairs(tmp_path)
    if template == "{}":
        for path in (tmp_path / "LR").iterdir():
            path.rename(path.with_name(path.name.replace("x2", "")))
    swapped = {"dataroot_gt": folders["dataroot_lq"], "dataroot_lq": folders["dataroot_gt"], "filename_tmpl": template}
    with refused("data.swapped" if template != "{}" else "data.lr-size") as caught:
        check(trained_on(data, swapped), root=tmp_path / "runs")
    assert all("exchange" in line and "dataroot_gt and dataroot_lq" in line for line in caught.value.lines)


def test_many_faults_are_ten_lines_and_their_number(tmp_path):
    for seed in range(13):
        write_image(tmp_path / "HR" / f"{seed}.png", Picture(picture((12, 12), seed)))
        write_image(tmp_path / "LR" / f"{seed}.png", Picture(picture((5, 6), seed)))
    dataset = PairedImageDataset(scale=2, dataroot_gt=tmp_path / "HR", dataroot_lq=tmp_path / "LR")
    with refused("data.lr-size") as caught:
        dataset.lq_sizes()
    assert len(caught.value.lines) == 11
    assert caught.value.lines[-1] == "and 3 more"


class Pairs:
    """Images in memory, whose HR images need not be as they should."""

    scale = Fraction(2)
    planes = ("gt", "lq")

    def __init__(self, count: int, gt: tuple[int, ...] = (8, 8, 3)) -> None:
        self.count, self.gt = count, np.zeros(gt, np.uint8)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index}"

    def lq_sizes(self) -> np.ndarray:
        return np.full((self.count, 2), 4)

    def read(self, index: int) -> dict[str, np.ndarray]:
        return {"gt": self.gt, "lq": np.zeros((4, 4, 3), np.uint8)}


@pytest.mark.parametrize(("seconds", "expected"), [(60, 7), (3, 3), (0, 1)])
def test_reading_ends_when_time_is_up(seconds, expected):
    now, seen = [0.0], []

    def tick(done: int, total: int) -> None:
        now[0] += 1
        seen.append((done, total))

    assert read_pairs(Pairs(7), seconds=seconds, on_pair=tick, clock=lambda: now[0]) == expected
    assert seen == [(number, 7) for number in range(1, expected + 1)]


def test_planes_of_another_size_than_said_are_told():
    for gt in ((8, 9, 3), (8, 8), (8, 8, 4)):
        with refused("data.plane"):
            read_pairs(Pairs(1, gt), seconds=1)


def test_the_command_says_what_it_has_read(data, tmp_path, capfd, monkeypatch):
    options = trained_on(data, make_pairs(tmp_path)).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "run.yml").write_text(json.dumps(options))
    words = ("train", "-opt", tmp_path / "run.yml", "--root", tmp_path / "runs", "--check")
    assert "datasets.train: all 5 pairs were read\n" in run(capfd, *words).out
    monkeypatch.setattr(sys.modules["imdn_kd.cli.train"], "_CHECK_SECONDS", 0)
    assert "datasets.train: 1 of 5 pairs were read in 0 seconds; of the others" in run(capfd, *words).out


LISTS = {
    "plain": ("{0}.png (40,44,3)\n", "ascii"),
    "names alone": ("{0}.png\n", "ascii"),
    "mark": ("{0}.png (40,44,3)\n", "utf-8-sig"),
    "utf-16": ("{0}.png (40,44,3)\n", "utf-16"),
    "tab": ("{0}.png\t(40,44,3)\n", "ascii"),
    "windows": ("{0}.png (40,44,3)\r\n", "utf-8-sig"),
    "back-slash": ("sub\\{0}.png (40,44,3)\n", "ascii"),
    "all of it": ("sub\\{0}.png\t(40,44,3)\r\n", "utf-16"),
}


@pytest.mark.parametrize(("line", "encoding"), LISTS.values(), ids=LISTS)
def test_lists_as_editors_and_other_systems_write_them(line, encoding, tmp_path):
    folders = make_pairs(tmp_path)
    shutil.copytree(tmp_path / "HR", tmp_path / "HR" / "sub")
    (tmp_path / "list.txt").write_bytes("".join(line.format(name) for name in NAMES[:2]).encode(encoding))
    dataset = PairedImageDataset(scale=2, meta_info_file=tmp_path / "list.txt", **folders)
    assert [Path(dataset.name(index)).stem for index in range(len(dataset))] == NAMES[:2]


def test_a_back_slash_in_a_name_is_part_of_it(tmp_path):
    folders = make_pairs(tmp_path)
    name = "a\\b"
    if os.name == "nt":
        pytest.skip("separates folders there")
    for folder, old, new in (("HR", "0001.png", f"{name}.png"), ("LR", "0001x2.png", f"{name}x2.png")):
        (tmp_path / folder / old).rename(tmp_path / folder / new)
    (tmp_path / "list.txt").write_text(f"{name}.png (40,44,3)\n")
    dataset = PairedImageDataset(scale=2, meta_info_file=tmp_path / "list.txt", **folders)
    assert Path(dataset.name(0)).name == f"{name}.png"
