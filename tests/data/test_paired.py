from __future__ import annotations

import multiprocessing
import pickle
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from imdn_kd.data.base import ImagePairs
from imdn_kd.data.lmdb_io import LmdbImages, LmdbWriter
from imdn_kd.data.paired import PairedImageDataset
from imdn_kd.errors import InputError
from imdn_kd.image import probe as image_sizes
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.registry import DATASETS
from tests.basicsr_compat import import_basicsr
from tests.fake_set import picture
from tests.refused import refused

SIZES = {"b10": (48, 40), "b2": (36, 52), "a": (44, 44), "grey": (40, 32)}
SCALE = 4


def images_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """gt and lq, of which `grey` is H x W."""
    gt = picture(SIZES[name], seed=len(name))
    gt = np.ascontiguousarray(gt[..., 0]) if name == "grey" else gt
    return gt, imresize(gt, 1 / SCALE)


def save(path: Path, pixels: np.ndarray) -> Path:
    write_image(path, Picture(pixels), overwrite=True)
    return path


def make_folders(root: Path, template: str = "{}", suffix: str = ".png", sub: str = "") -> dict[str, str]:
    for name in SIZES:
        gt, lq = images_of(name)
        save(root / "HR" / sub / f"{name}.png", gt)
        save(root / "LR" / f"{template.format(name)}{suffix}", lq)
    return {"dataroot_gt": str(root / "HR"), "dataroot_lq": str(root / "LR"), "filename_tmpl": template}


def make_lmdb(root: Path) -> dict[str, Any]:
    pytest.importorskip("lmdb")
    writers = {"gt": LmdbWriter(root / "gt.lmdb"), "lq": LmdbWriter(root / "lq.lmdb")}
    for plane, writer in writers.items():
        with writer:
            for name in SIZES:
                pixels = images_of(name)[plane == "lq"]
                writer.put(name, pixels if pixels.ndim == 3 else np.dstack([pixels] * 3))
            writer.finish(SIZES)
    backend = {"type": "lmdb"}
    return {"dataroot_gt": str(root / "gt.lmdb"), "dataroot_lq": str(root / "lq.lmdb"), "io_backend": backend}


def write_meta(root: Path, *lines: str) -> dict[str, str]:
    path = root / "meta_info.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"meta_info_file": str(path)}


def open_basicsr(options: dict[str, Any], by_name: bool = False) -> list[dict[str, Any]]:
    module = import_basicsr("basicsr.data.paired_image_dataset")
    given = {"phase": "val", "scale": SCALE, "io_backend": {"type": "disk"}, **options}
    # It adds to the options of the back end, and takes some away.
    given["io_backend"] = dict(given["io_backend"])
    items = [dict(item) for item in module.PairedImageDataset(given)]
    return sorted(items, key=lambda item: item["gt_path"]) if by_name else items


def as_pixels(tensor: torch.Tensor) -> np.ndarray:
    return (tensor * 255).round().byte().permute(1, 2, 0).numpy()


def assert_same(ours: ImagePairs, theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) > 0
    for index, item in enumerate(theirs):
        pair = ours.read(index)
        assert ours.name(index).endswith(item["gt_path"])
        assert np.array_equal(pair["gt"], as_pixels(item["gt"]))
        assert np.array_equal(pair["lq"], as_pixels(item["lq"]))
        assert tuple(ours.lq_sizes()[index]) == pair["lq"].shape[:2]


@pytest.mark.parametrize("template", ["{}", "{}x4"])
def test_folders_as_in_basicsr(tmp_path, template):
    options = make_folders(tmp_path, template)
    save(tmp_path / "HR" / "a.png", picture((46, 47)))  # not cropped to a multiple of the factor
    # BasicSR takes files as the folder happens to list them.
    assert_same(PairedImageDataset(scale=SCALE, **options), open_basicsr(options, by_name=True))


def test_list_of_names_as_in_basicsr(tmp_path):
    options = make_folders(tmp_path, "{}x4", sub="all")
    options |= write_meta(tmp_path, "all/grey.png (40,32,1)", "all/b2.png", "all/a.png (44,44,3)")
    dataset = PairedImageDataset(scale=SCALE, **options)
    assert_same(dataset, open_basicsr(options))
    assert [Path(dataset.name(index)).name for index in range(3)] == ["grey.png", "b2.png", "a.png"]


def test_lmdb_as_in_basicsr(tmp_path):
    options = make_lmdb(tmp_path)
    theirs = open_basicsr(options)
    assert_same(PairedImageDataset(scale=SCALE, **options), theirs)
    assert [item["gt_path"] for item in theirs] == sorted(SIZES)


def test_lmdb_made_by_basicsr(tmp_path):
    lmdb_util = import_basicsr("basicsr.utils.lmdb_util")
    folders = make_folders(tmp_path)
    options: dict[str, Any] = {"io_backend": {"type": "lmdb"}}
    for root in ("dataroot_gt", "dataroot_lq"):
        options[root] = f"{folders[root]}.lmdb"
        names = [f"{name}.png" for name in SIZES]
        lmdb_util.make_lmdb_from_imgs(folders[root], options[root], names, list(SIZES), map_size=2**24)
    assert_same(PairedImageDataset(scale=SCALE, **options), open_basicsr(options))


def test_is_built_from_options(tmp_path):
    dataset: ImagePairs = DATASETS.build({"type": "PairedImageDataset", "scale": 4, **make_folders(tmp_path)})
    assert isinstance(dataset, PairedImageDataset)
    assert (len(dataset), dataset.scale, dataset.planes) == (4, 4, ("gt", "lq"))


def test_partners_with_another_suffix(tmp_path):
    options = make_folders(tmp_path, "{}x4", suffix=".bmp")
    dataset = PairedImageDataset(scale=SCALE, **options)
    assert np.array_equal(dataset.read(0)["lq"], images_of("a")[1])
    save(tmp_path / "LR" / "ax4.png", 255 - images_of("a")[1])
    assert np.array_equal(PairedImageDataset(scale=SCALE, **options).read(0)["lq"], 255 - images_of("a")[1])


def test_sub_folders_on_both_sides(tmp_path):
    gt, lq = images_of("a")
    for sub, factor in (("one", 1), ("two", 255)):
        save(tmp_path / "HR" / sub / "a.png", factor * gt)
        save(tmp_path / "LR" / sub / "a.webp", factor * lq)
    options = {"dataroot_gt": tmp_path / "HR", "dataroot_lq": tmp_path / "LR"}
    options |= write_meta(tmp_path, "two/a.png", "", "one/a.png")
    dataset = PairedImageDataset(scale=SCALE, **options)
    assert dataset.name(0) == str(tmp_path / "HR" / "two" / "a.png")
    assert np.array_equal(dataset.read(1)["gt"], gt)


def test_lq_images_of_no_original_are_left_out(tmp_path):
    options = make_folders(tmp_path)
    save(tmp_path / "LR" / "more.png", picture((8, 8)))
    (tmp_path / "HR" / "Thumbs.db").write_text("no image")
    assert len(PairedImageDataset(scale=SCALE, **options)) == 4


@pytest.mark.parametrize(
    ("gt", "lq", "expected"),
    [
        ((30, 45), (20, 30), ((30, 45), (20, 30))),
        ((31, 46), (20, 30), ((30, 45), (20, 30))),
        ((32, 47), (21, 31), ((30, 45), (20, 30))),  # 31.5 and 46.5, rounded up
        ((31, 46), (21, 31), ((30, 45), (20, 30))),  # rounded down
    ],
)
def test_fractional_scale(tmp_path, gt, lq, expected):
    save(tmp_path / "HR" / "a.png", picture(gt))
    save(tmp_path / "LR" / "a.png", picture(lq))
    dataset = PairedImageDataset(scale=1.5, dataroot_gt=tmp_path / "HR", dataroot_lq=tmp_path / "LR")
    pair = dataset.read(0)
    assert dataset.scale == Fraction(3, 2)
    assert (pair["gt"].shape[:2], pair["lq"].shape[:2]) == expected
    assert np.array_equal(pair["gt"], picture(gt)[:30, :45])
    assert dataset.lq_sizes().tolist() == [[20, 30]]


@pytest.mark.parametrize(
    ("scale", "gt", "lq"),
    [(2, (24, 20), (11, 10)), (2, (23, 20), (12, 10)), (1.5, (32, 45), (20, 30)), (1.5, (2, 2), (1, 1))],
)
def test_sizes_that_do_not_fit(tmp_path, scale, gt, lq):
    save(tmp_path / "HR" / "a.png", picture(gt))
    save(tmp_path / "LR" / "ax2.png", picture(lq))
    error = error_of(scale=scale, filename_tmpl="{}x2", dataroot_gt=tmp_path / "HR", dataroot_lq=tmp_path / "LR")
    assert error.code == "data.lr-size"
    assert f"ax2.png: is {lq[1]}x{lq[0]} px, which x{scale} does not make the {gt[1]}x{gt[0]} of " in str(error)


def test_sizes_without_decoding(tmp_path, monkeypatch):
    upright = Image.fromarray(picture((8, 12)))
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.save(tmp_path / "a.png")
    upright.save(tmp_path / "b.png", exif=turned)
    upright.save(tmp_path / "c.jpg", exif=turned)
    upright.save(tmp_path / "d.webp", exif=turned)
    upright.save(tmp_path / "e.bmp")
    upright.convert("L").save(tmp_path / "f.pgm")
    undecoded = [image_sizes.image_size(path) for path in sorted(tmp_path.iterdir())]
    assert undecoded == [(8, 12), (12, 8), (12, 8), (12, 8), (8, 12), (8, 12)]
    assert undecoded == [read_size(path) for path in sorted(tmp_path.iterdir())]
    monkeypatch.setattr(image_sizes, "read_image", None)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert undecoded == [image_sizes.image_size(path) for path in sorted(tmp_path.iterdir())]


def read_size(path: Path) -> tuple[int, int]:
    shape = image_sizes.read_image(path).pixels.shape
    return shape[0], shape[1]


def test_sizes_that_headers_do_not_tell(tmp_path):
    upright = Image.fromarray(picture((8, 12)))
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.save(tmp_path / "a.tif", exif=turned)
    upright.save(tmp_path / "b.png", exif=turned)
    data = (tmp_path / "b.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    # The orientation after the pixels, where Pillow does not see it before it decodes.
    (tmp_path / "b.png").write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    save(tmp_path / "c.tif", picture((8, 12)).astype(np.uint16))
    for path, size in zip(sorted(tmp_path.iterdir()), [(12, 8), (12, 8), (8, 12)], strict=True):
        assert image_sizes.image_size(path) == read_size(path) == size


def test_sizes_are_looked_up_once(tmp_path, monkeypatch):
    dataset = PairedImageDataset(scale=SCALE, **make_folders(tmp_path))
    sizes = dataset.lq_sizes()
    shutil.rmtree(tmp_path)
    assert dataset.lq_sizes() is sizes
    assert sizes.tolist() == [[11, 11], [12, 10], [9, 13], [10, 8]]
    assert sizes.dtype == np.int64


def test_damaged_image_has_no_size(tmp_path):
    options = make_folders(tmp_path)
    (tmp_path / "LR" / "b2.png").write_bytes(b"no image")
    with refused("image.unknown-format"):
        PairedImageDataset(scale=SCALE, **options).lq_sizes()


class Loaded(torch.utils.data.Dataset):
    def __init__(self, pairs: ImagePairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.pairs.read(index)


@pytest.mark.processes
@pytest.mark.parametrize(("make", "method"), [(make_folders, "fork"), (make_lmdb, "fork"), (make_lmdb, "spawn")])
def test_workers_of_a_loader(tmp_path, make, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    dataset = PairedImageDataset(scale=SCALE, **make(tmp_path))
    expected = [dataset.read(index) for index in range(len(dataset))]  # opens what the workers must not use
    loader = DataLoader(Loaded(dataset), batch_size=None, num_workers=2, multiprocessing_context=method)
    for pair, want in zip(loader, expected, strict=True):
        assert np.array_equal(pair["gt"], want["gt"])
        assert np.array_equal(pair["lq"], want["lq"])
    assert np.array_equal(dataset.read(0)["gt"], expected[0]["gt"])


@pytest.mark.parametrize("make", [make_folders, make_lmdb])
def test_pickles(tmp_path, make):
    dataset = PairedImageDataset(scale=SCALE, **make(tmp_path))
    dataset.read(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy.read(2)["lq"], dataset.read(2)["lq"])
    assert np.array_equal(copy.lq_sizes(), dataset.lq_sizes())


def error_of(**options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        PairedImageDataset(**{"scale": SCALE, **options}).read(0)
    assert "\n" not in str(caught.value)
    return caught.value


def test_no_images(tmp_path):
    options = make_folders(tmp_path)
    (tmp_path / "empty").mkdir()
    assert error_of(**options | {"dataroot_gt": tmp_path / "empty"}).code == "data.no-images"
    lonely = error_of(**options | {"dataroot_lq": tmp_path / "empty"})
    assert lonely.code == "data.lr-missing"
    assert "4 of 4 images, a.png among them (it would be called a.png); check `dataroot_lq`" in str(lonely)


@pytest.mark.parametrize("root", ["dataroot_gt", "dataroot_lq"])
def test_folders_that_are_not_there(tmp_path, root):
    options = make_folders(tmp_path) | {root: tmp_path / "gone"}
    assert error_of(**options).code in ("data.not-a-folder", "image.not-a-folder")
    assert error_of(**options, **write_meta(tmp_path, "a.png")).code == "data.not-a-folder"


def test_missing_partners(tmp_path):
    options = make_folders(tmp_path, "{}x4")
    (tmp_path / "LR" / "ax4.png").unlink()
    assert error_of(**options).code == "data.lr-missing"
    (tmp_path / "LR" / "b2x4.png").unlink()
    assert error_of(**options).code == "data.lr-missing"
    wrong = error_of(**options | {"filename_tmpl": "{}_low"})
    assert "4 of 4 images, a.png among them (it would be called a_low.png); check `dataroot_lq`" in str(wrong)


def test_names_that_are_not_one_image(tmp_path):
    options = make_folders(tmp_path, suffix=".bmp")
    save(tmp_path / "LR" / "a.webp", images_of("a")[1])
    assert error_of(**options).code == "data.same-name"
    save(tmp_path / "HR" / "a.bmp", images_of("a")[0])
    assert error_of(**options).code == "data.same-name"


def test_one_partner_of_two_originals(tmp_path):
    gt, lq = images_of("a")
    for name in ("one/a.png", "two/a.png", "abc.png", "abd.png"):
        save(tmp_path / "HR" / name, gt)
    for name in ("a.png", "ab.png"):
        save(tmp_path / "LR" / name, lq)
    options = {"dataroot_gt": tmp_path / "HR", "dataroot_lq": tmp_path / "LR"}
    listed = error_of(**options, **write_meta(tmp_path, "one/a.png", "two/a.png"))
    assert listed.code == "data.lr-shared"
    assert error_of(**options, filename_tmpl="{:.2}").code == "data.lr-shared"


@pytest.mark.parametrize("template", ["x4", "{}{}", "{name}", "{", 4])
def test_templates_that_cannot_be_used(tmp_path, template):
    error = error_of(**make_folders(tmp_path) | {"filename_tmpl": template})
    assert error.code == "data.filename-template"
    assert f"filename_tmpl: {template!r}" in str(error)


def test_lists_that_cannot_be_used(tmp_path):
    options = make_folders(tmp_path)
    assert error_of(**options, meta_info_file=tmp_path / "gone.txt").code == "data.image-list"
    assert error_of(**options, **write_meta(tmp_path, "", " ")).code == "data.image-list"
    unknown = error_of(**options, **write_meta(tmp_path, "a.png (44,44,3)", "c.png (44,44,3)"))
    assert unknown.code == "data.image-list"
    assert "meta_info.txt, line 2: lists c.png" in str(unknown)
    twice = error_of(**options, **write_meta(tmp_path, "a.png", "a.png"))
    assert twice.code == "data.image-list"
    assert "meta_info.txt, line 2: lists a.png" in str(twice)
    (tmp_path / "meta_info.txt").write_bytes(b"\xff")
    assert error_of(**options, meta_info_file=tmp_path / "meta_info.txt").code == "data.image-list"


def test_back_ends_that_are_not_known(tmp_path):
    options = make_folders(tmp_path)
    for backend in ({"type": "memcached"}, {}):
        assert error_of(**options, io_backend=backend).code == "data.io-backend"
    assert error_of(**options, io_backend={"type": "disk", "readahead": True}).code == "data.io-backend"


def test_folders_and_lmdb_mixed_up(tmp_path):
    disk = make_lmdb(tmp_path) | {"io_backend": {"type": "disk"}}
    assert error_of(**make_folders(tmp_path) | {"io_backend": {"type": "lmdb"}}).code == "lmdb.name"
    assert error_of(**disk).code == "data.no-images"


def test_lmdb_of_other_images(tmp_path):
    options = make_lmdb(tmp_path)
    with LmdbWriter(options["dataroot_lq"]) as writer:
        writer.finish(["a", "b2"])
    assert error_of(**options).code == "lmdb.different-images"
    assert error_of(**options).code == "lmdb.different-images"


def test_lmdb_that_serves_both_sides(tmp_path):
    options = make_lmdb(tmp_path)
    dataset = PairedImageDataset(**options | {"scale": 1, "dataroot_lq": options["dataroot_gt"]})
    pair = dataset.read(0)
    assert np.array_equal(pair["gt"], pair["lq"])
    assert np.array_equal(pair["gt"], LmdbImages(options["dataroot_gt"]).pixels("a"))


def test_scale_that_is_none(tmp_path):
    assert error_of(**make_folders(tmp_path), scale=0).code == "scale.invalid"
