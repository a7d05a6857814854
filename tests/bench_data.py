"""Benches of the data path: patches a second from a packed store and from what BasicSR reads."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch.nn import functional
from torch.utils.data import DataLoader

from imdn_kd.archs.factory import create_model
from imdn_kd.data.degradation.schema import read_steps
from imdn_kd.data.patches import Patches, to_training
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.leak_check import BenchmarkIndex
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.data.store import StoreDataset
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from tests.basicsr_compat import import_basicsr
from tests.shared_data import SHARED, read_rgb

SIDE, SCALE, GT_SIZE, BATCH, IMAGES = 480, 4, 192, 16, 128
Compare = Callable[..., float]


def patch_rate(compare: Compare) -> None:
    """Batches of float tensors, the same data, batch and number of workers on all sides.

    One thread of PyTorch, as workers of a DataLoader have it: more would wait for each other on two cores.
    """
    torch.set_num_threads(1)
    basicsr = import_basicsr("basicsr.data.paired_image_dataset")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, pixels in enumerate(itertools.islice(_photographs(), IMAGES)):
            write_image(folder / "HR" / f"{number:03}.png", Picture(pixels))
            write_image(folder / "LR" / f"{number:03}.png", Picture(imresize(pixels, 1 / SCALE)))
        prepare = partial(_prepare, folder)
        prepare(source="folder", path=str(folder / "HR"), output=str(folder / "store"))
        prepare(source="store", path=str(folder / "store"), output=str(folder / "lmdb"), format="lmdb")
        patches = Patches(
            StoreDataset(scale=SCALE, dataroot=folder / "store"), gt_size=GT_SIZE, batch_size=BATCH, augment_on="worker"
        )
        common = {"phase": "train", "scale": SCALE, "gt_size": GT_SIZE, "use_hflip": True, "use_rot": True}
        files = {"dataroot_gt": str(folder / "HR"), "dataroot_lq": str(folder / "LR")}
        lmdb = {"dataroot_gt": str(folder / "lmdb/gt.lmdb"), "dataroot_lq": str(folder / "lmdb/lq_x4.lmdb")}
        for workers in (0, 2):
            ours = _ours(patches, workers)
            for kind, places, backend in (("PNG files", files, "disk"), ("LMDB", lmdb, "lmdb")):
                theirs = basicsr.PairedImageDataset({**common, **places, "io_backend": {"type": backend}})
                loader = DataLoader(theirs, BATCH, shuffle=True, num_workers=workers, drop_last=True)
                title = f"patches from the store / BasicSR from {kind} of {SIDE}x{SIDE} px, {workers} workers"
                batches = _endless(loader)
                compare(title, lambda ours=ours: _take(ours), lambda batches=batches: _take(batches), runs=5, pause=2)
                del batches


def _prepare(folder: Path, **options: object) -> None:
    request = PrepareOptions.model_validate({"scale": [SCALE], **options})
    write_dataset(request, open_source(request, root=folder), root=folder)


def _ours(patches: Patches, workers: int) -> Iterator[object]:
    for batch in patches.loader(0, 10**9, workers=workers):
        yield to_training(batch, "cpu")


def _endless(loader: DataLoader) -> Iterator[object]:
    while True:
        yield from loader


def _take(batches: Iterator[object], count: int = 24) -> None:
    for _ in range(count):
        next(batches)


def _photographs() -> Iterator[np.ndarray]:
    photos = SHARED / "train" / "photos"
    if photos.is_dir():
        for path in sorted(photos.iterdir()):
            pixels = read_rgb(path)
            if pixels.shape[:2] == (SIDE, SIDE):
                yield pixels
    for turn in itertools.count():  # less to decode than in real ones, if anything
        for image in (data.astronaut(), data.stereo_motorcycle()[0]):
            yield np.ascontiguousarray(np.rot90(image[-SIDE:, turn : turn + SIDE], turn))


def many_images(compare: Compare) -> None:
    """A thousand images of the size of DIV2K's to x4."""
    theirs = import_basicsr("basicsr.utils.matlab_functions").imresize
    image = np.random.default_rng(0).integers(0, 256, (1356, 2040, 3), np.uint8)

    def ours() -> None:
        for _ in range(100):
            imresize(image, 0.25)

    def other() -> None:
        for _ in range(100):
            (theirs(image.astype(np.float32) / 255, 0.25) * 255).round().clip(0, 255).astype(np.uint8)

    compare("imresize of 1000 images, 2040x1356 to x1/4 / BasicSR's, times of 100", ours, other, runs=10)


def leak_check(compare: Compare) -> None:
    """An image of the size of DIV2K's, compared with a benchmark, against decoding it."""
    image = Image.fromarray(data.coffee()).resize((2040, 1360))
    pixels = np.asarray(image)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "HR" / "coffee.png"
        write_image(path, Picture(pixels))
        benchmarks = BenchmarkIndex([Path(name)])
        title = "leak check of an image of 2040x1360 px / decoding its PNG file"
        compare(title, lambda: benchmarks.match(pixels), lambda: read_rgb(path), runs=10)


def degradation(compare: Compare) -> None:
    """CPU time to make a batch anew by Real-ESRGAN's second-order degradation, against the update that it is for."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.asarray(Image.fromarray(data.coffee()).resize((900, 600)))
        write_image(folder / "HR" / "coffee.png", Picture(pixels))
        _prepare(folder, source="folder", path=str(folder / "HR"), output=str(folder / "store"))
        images = StoreDataset(scale=SCALE, dataroot=folder / "store", hr_only=True)
        steps = read_steps([{"type": "real_esrgan"}])
        patches = Patches(images, gt_size=GT_SIZE, batch_size=BATCH, augment_on="worker", degradation=steps)
        network = create_model("plain_m_x4").to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        batch = to_training(patches[0], "cpu")
        numbers = itertools.count()

        def update() -> None:
            optimizer.zero_grad()
            functional.l1_loss(network(batch["lq"]), batch["gt"]).backward()
            optimizer.step()

        title = "CPU time of a batch degraded by real_esrgan / an update of plain_m x4"
        compare(title, lambda: to_training(patches[next(numbers)], "cpu"), update, runs=10, clock=time.process_time)
