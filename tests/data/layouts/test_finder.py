from __future__ import annotations

import io
import zipfile
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.layouts.file_tree import open_tree
from imdn_kd.data.layouts.names import DataSource, read_folder_name
from imdn_kd.data.preparation.sources.scan import scan_dataset
from tests.refused import refused

X2, X4 = Fraction(2), Fraction(4)


def encoded(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "BMP")
    return file.getvalue()


HIGH, LOW = encoded(16), encoded(4)


def fill(root: Path, *patterns: str, data: bytes = HIGH, names: tuple[str, ...] = ("a", "img_001")) -> None:
    for path in (root / pattern.format(name) for pattern in patterns for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


# Where the projects of that name put their files for x4: the folder that a user names, HR images, LR images.
LAYOUTS = {
    "IMDN": ("Set5", "Set5/{}.bmp", "Set5_LR/x4/{}x4.bmp"),
    "IMDN, files": ("Set5", "Set5/HR/{}.png", "Set5/LRbicx4/{}x4.bmp"),
    "EDSR": ("benchmark/Set5", "benchmark/Set5/HR/{}.png", "benchmark/Set5/LR_bicubic/X4/{}x4.png"),
    "EDSR, the folder of HR images": ("Set5/HR", "Set5/HR/{}.png", "Set5/LR_bicubic/X4/{}x4.png"),
    "EDSR, DIV2K": ("DIV2K", "DIV2K/DIV2K_valid_HR/{}.png", "DIV2K/DIV2K_valid_LR_bicubic/X4/{}x4.png"),
    "IPT": ("Set5", "Set5/HR/{}.png", "Set5/LR_bicubic/{}x4.png"),
    "DIV2K": ("DIV2K_valid_HR", "DIV2K_valid_HR/{}.png", "DIV2K_valid_LR_bicubic/X4/{}x4.png"),
    "DIV2K, renamed": ("DIV2K_valid_HR", "DIV2K_valid_HR/{}.png", "DIV2K_valid_LR_bicubic_X4/{}x4.png"),
    "NTIRE": ("DIV2K_LSDIR_valid_HR", "DIV2K_LSDIR_valid_HR/{}.png", "DIV2K_LSDIR_valid_LR/{}x4.png"),
    "RCAN": ("HR/Set5/x4", "HR/Set5/x4/{}_HR_x4.png", "LR/LRBI/Set5/x4/{}_LRBI_x4.png"),
    "RCAN, the set": ("T/HR/Set5", "T/HR/Set5/x4/{}_HR_x4.png", "T/LR/LRBI/Set5/x4/{}_LRBI_x4.png"),
    "RCAN, all": ("T", "T/HR/Set5/x4/{}_HR_x4.png", "T/LR/LRBI/Set5/x4/{}_LRBI_x4.png"),
    "BasicSR": ("Set5", "Set5/GTmod12/{}.png", "Set5/LRbicx4/{}.png"),
    "BasicSR, original": ("Set5", "Set5/original/{}.png", "Set5/LRbicx4/{}.png"),
    "HAT": ("Set5", "Set5/GTmod4/{}.png", "Set5/LRbicx4/{}x4.png"),
    "Hugging Face": ("Set5_HR", "Set5_HR/{}.png", "Set5_LR_x4/{}.png"),
    "Hugging Face, one folder": ("Set5", "Set5/Set5_HR/{}.png", "Set5/Set5_LR_x4/{}.png"),
    "LR/X4": ("Set5", "Set5/HR/{}.png", "Set5/LR/X4/{}.png"),
    "HR and LR": ("Set5", "Set5/HR/{}.png", "Set5/LR/{}.png"),
    "small letters": ("Set5", "Set5/hr/{}.png", "Set5/lr_x4/{}.png"),
    "images": ("Set5", "Set5/hr_images/{}.png", "Set5/lr_images/{}.png"),
    "X4 around": ("Set5", "Set5/X4/GT/{}.png", "Set5/X4/LR/{}.png"),
    "SRFormer": ("Set5", "Set5/x4HR/{}.png", "Set5/x4LR/{}.png"),
    "plain originals": ("Set5", "Set5/{}.png", "Set5/LR_bicubic/X4/{}x4.png"),
    "plain originals, x4": ("Set5", "Set5/{}.png", "Set5/x4/{}.png"),
    "plain originals, LR": ("mine/photos", "mine/photos/{}.png", "mine/LR/X4/{}x4.png"),
    "SelfExSR": ("Set5/image_SRF_4", "Set5/image_SRF_4/{}_SRF_4_HR.png", "Set5/image_SRF_4/{}_SRF_4_LR.png"),
    "SelfExSR, the set": ("Set5", "Set5/image_SRF_4/{}_SRF_4_HR.png", "Set5/image_SRF_4/{}_SRF_4_LR.png"),
    "RealSR": ("Test", "Test/{}_HR.png", "Test/{}_LR4.png"),
    "DRealSR": ("Test_x4", "Test_x4/test_HR/{}_x4.png", "Test_x4/test_LR/{}_x1.png"),
    "side by side": ("mine", "mine/{}_HR.png", "mine/{}_LR.png"),
    "side by side, HR without a mark": ("mine", "mine/{}.png", "mine/{}_LR.png"),
    "side by side, x4": ("mine", "mine/{}.png", "mine/{}x4.png"),
    "side by side, _x4": ("mine", "mine/{}.png", "mine/{}_x4.png"),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path) -> tuple[Path, list[Path], list[Path]]:
    """The folder to name, HR images and LR images."""
    named, hr, lr = LAYOUTS[request.param]
    fill(tmp_path, hr)
    fill(tmp_path, lr, data=LOW)
    return (tmp_path / named, *([tmp_path / each.format(name) for name in ("a", "img_001")] for each in (hr, lr)))


def test_benchmark_finds_the_pairs_of_every_layout(layout):
    folder, high, low = layout
    images = find_set(folder, 4)
    assert [(pair.hr, pair.lr) for pair in images.pairs] == list(zip(high, low, strict=True))
    assert images.lr_source.endswith(" (files)")
    assert images.notes == ()
    assert images.name not in ("HR", "x4", "X4", "")


def test_the_working_folder_does_not_matter(layout, monkeypatch):
    folder, high, low = layout
    title = find_set(folder, 4).name
    for where, named in ((folder, "."), (folder.parent, folder.name), (folder, f"../{folder.name}")):
        monkeypatch.chdir(where)
        images = find_set(named, 4)
        assert images.name == title
        assert [(pair.hr.resolve(), pair.lr.resolve()) for pair in images.pairs] == list(zip(high, low, strict=True))


def test_prepare_finds_the_same(layout):
    folder, high, low = layout
    scan = scan_dataset(open_tree(folder), [X4])
    assert [(one.gt.path, one.lq[X4].path) for one in scan.images] == list(zip(high, low, strict=True))
    assert scan.skipped == ()
    made = scan_dataset(open_tree(folder), made_scales=[X4])
    assert [one.gt.path for one in made.images] == high
    assert len(made.notes) == 1, "LR files are passed over without a word"


@pytest.mark.parametrize(
    "pair", [("HR", "noisy"), ("target", "input"), ("clean", "noisy"), ("sharp", "blur"), ("GT", "LQ")]
)
def test_inputs_of_equal_size(tmp_path, pair):
    for name in pair:
        fill(tmp_path, f"{name}/{{}}.png")
    images = find_set(tmp_path, 1)
    assert [(one.hr.parent.name, one.lr.parent.name) for one in images.pairs] == [pair] * 2
    assert images.checked().notes == ()


def test_several_folders_of_inputs(tmp_path):
    fill(tmp_path, "original_png/{}.png", "noisy15/{}.png", "noisy25/{}.png")
    with refused("data.several-inputs"):
        find_set(tmp_path, 1)
    assert [one.lr for one in find_set(DataSource(tmp_path, steps=parse_steps("noise=25")), 1).pairs] == [None] * 2


def test_lr_images_of_another_scale_are_never_taken(layout):
    folder, high, _ = layout
    if any(part in str(high[0]) for part in ("HR_x4", "x4HR")):
        pytest.skip("HR images are those of x4 alone")
    images = find_set(folder, 2)
    assert [(pair.hr, pair.lr) for pair in images.pairs] == [(path, None) for path in high]


@pytest.mark.parametrize("name", ["EDSR", "BasicSR", "RCAN, all", "SelfExSR, the set", "side by side", "LR/X4"])
def test_archives(tmp_path, name):
    _, hr, lr = LAYOUTS[name]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for one in ("a", "b"):
            archive.writestr(hr.format(one), HIGH)
            archive.writestr(lr.format(one), LOW)
    scan = scan_dataset(open_tree(tmp_path / "set.zip"), [X4])
    pairs = [[file.label.partition(":")[2] for file in image.files()] for image in scan.images]
    assert pairs == [[hr.format(one), lr.format(one)] for one in ("a", "b")]


def test_hr_images_of_the_scale_are_chosen(tmp_path):
    fill(tmp_path, "Set5/GTmod2/{}.png", "Set5/GTmod3/{}.png", "Set5/GTmod4/{}.png")
    fill(tmp_path, "RCAN/HR/Set5/x2/{}_HR_x2.png", "RCAN/HR/Set5/x4/{}_HR_x4.png")
    fill(tmp_path, "SelfExSR/image_SRF_2/{}_SRF_2_HR.png", "SelfExSR/image_SRF_4/{}_SRF_4_HR.png")
    for scale in (2, 3, 4):
        assert find_set(tmp_path / "Set5", scale).pairs[0].hr.parent.name in (f"GTmod{scale}", "GTmod4")
    for scale in (2, 4):
        assert find_set(tmp_path / "RCAN", scale).pairs[0].hr.parent.name == f"x{scale}"
        assert find_set(tmp_path / "SelfExSR", scale).pairs[0].hr.parent.name == f"image_SRF_{scale}"
    with refused("data.several-sets"):
        scan_dataset(open_tree(tmp_path / "RCAN"))


def test_results_of_methods_beside_a_pair_are_no_originals(tmp_path):
    fill(tmp_path, "{}_SRF_4_HR.png", "{}_SRF_4_bicubic.png", "{}_SRF_4_A+.png")
    fill(tmp_path, "{}_SRF_4_LR.png", data=LOW)
    images = find_set(tmp_path, 4)
    assert [pair.name for pair in images.pairs] == ["a_SRF_4_HR", "img_001_SRF_4_HR"]
    (note,) = images.notes
    assert "a_SRF_4_A+, a_SRF_4_bicubic" in note


def test_a_name_alone_makes_no_lr_image(tmp_path):
    """`ax4` is an image of its own where it is not a quarter of `a`."""
    fill(tmp_path, "{}.png", "{}x4.png", "{}_x2.png")
    assert len(find_set(tmp_path, 4).pairs) == 6


@pytest.mark.parametrize("lr", ["LR_unknown/X4/{}x4.png", "LRBD/x4/{}.png", "LR/x4/{}x2.png"])
def test_what_is_passed_over_is_told(tmp_path, lr):
    fill(tmp_path, "HR/{}.png")
    fill(tmp_path, lr, data=LOW)
    if "x2" in lr:
        with refused("data.lr-missing"):
            find_set(tmp_path, 4)
    else:
        images = find_set(tmp_path, 4)
        assert images.lr is None
        (note,) = images.notes
        assert f"passed over: {Path(lr).parent} (" in note


def test_of_two_folders_the_other_is_told(tmp_path):
    fill(tmp_path, "HR/{}.png")
    fill(tmp_path, "LRbicx4/{}x4.png", "LR_bicubic/X4/{}x4.png", data=LOW)
    images = find_set(tmp_path, 4)
    (note,) = images.notes
    (other,) = {"LRbicx4", "LR_bicubic/X4"} - {images.lr_label}
    assert f"passed over: {other} (" in note


def test_several_sets_are_not_mixed(tmp_path):
    fill(tmp_path, "HR/Set5/x4/{}_HR_x4.png", "HR/Set14/x4/{}_HR_x4.png")
    for call in (lambda: find_set(tmp_path, 4), lambda: scan_dataset(open_tree(tmp_path), made_scales=[X4])):
        with refused("data.several-sets"):
            call()
    fill(tmp_path, "LR/LRBI/Set5/x4/{}_LRBI_x4.png", "LR/LRBI/Set14/x4/{}_LRBI_x4.png", data=LOW)
    pair = find_set(tmp_path / "HR/Set14", 4).pairs[0]
    assert pair.lr == tmp_path / "LR/LRBI/Set14/x4/a_LRBI_x4.png"


def test_a_set_beside_another_does_not_take_its_lr_images(tmp_path):
    fill(tmp_path, "Set5/{}.png", "Set14/{}.png", "DIV2K_train_HR/{}.png")
    fill(tmp_path, "Set14_LR/x4/{}x4.png", "DIV2K_valid_LR_bicubic/X4/{}x4.png", data=LOW)
    for name in ("Set5", "DIV2K_train_HR"):
        images = find_set(tmp_path / name, 4)
        assert (images.lr, images.notes) == (None, ())


@pytest.mark.parametrize("name", ["holidays", "my_LRx", "2024", "gt-car", "color", "alrx4", "shr", "HR_to_print"])
def test_names_that_say_nothing(name):
    assert read_folder_name(name).role == ""


LOW_X2 = encoded(8)


@pytest.mark.parametrize("pattern", ["{}", "{}x2", "{}_LR"])
@pytest.mark.parametrize("missing", [None, "b"])
def test_no_lr_image_serves_two_hr_images(tmp_path, pattern, missing):
    names = ("a", "ax2", "ax2x2", "b", "c")
    fill(tmp_path, "HR/{}.png", names=names)
    fill(tmp_path, f"LR_x2/{pattern}.png", data=LOW_X2, names=tuple(name for name in names if name != missing))
    scanned = scan_dataset(open_tree(tmp_path / "HR"), [X2], {X2: open_tree(tmp_path / "LR_x2")})
    pairs = {one.name: Path(one.lq[X2].label).stem for one in scanned.images}
    assert pairs == {name: pattern.format(name) for name in names if name != missing}
