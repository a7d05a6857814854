from __future__ import annotations

import zipfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest

from imdn_kd.data.layouts.file_tree import open_tree
from imdn_kd.data.preparation.sources.scan import ScanResult, scan_dataset
from imdn_kd.errors import InputError

X2, X4, X8 = Fraction(2), Fraction(4), Fraction(8)


def files(folder: Path, *names: str) -> Path:
    """Files that hold their own name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name in names:
            target.writestr(name, name)
    return path


def find(path: Path, *given: Fraction, lr: dict[Fraction, Path] | None = None) -> ScanResult:
    return scan_dataset(open_tree(path), given, {scale: open_tree(place) for scale, place in (lr or {}).items()})


def content(scan: ScanResult) -> list[list[str]]:
    return [[original.name, *(file.read().decode() for file in original.files())] for original in scan.images]


LAYOUTS = {
    "HR with IMDN's names": ("HR/{}.png", "LRbicx4/{}x4.bmp"),
    "the same names": ("HR/{}.png", "LRbicx4/{}.png"),
    "BasicSR": ("GTmod12/{}.png", "LRbicx4/{}.png"),
    "EDSR": ("HR/{}.png", "LR_bicubic/X4/{}x4.png"),
    "DIV2K": ("DIV2K_train_HR/{}.png", "DIV2K_train_LR_bicubic/X4/{}x4.png"),
    "a folder around it": ("benchmark/Set5/HR/{}.png", "benchmark/Set5/LR_bicubic/X4/{}x4.png"),
    "originals on their own": ("{}.png", "LRbicx4/{}x4.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("make", [files, archive])
def test_layouts(tmp_path, make, layout):
    hr, lr = LAYOUTS[layout]
    other = lr.replace("4", "2")
    path = make(tmp_path / "set", *(each.format(name) for each in (hr, lr, other) for name in ("b", "a")))
    scan = find(path, X4, X2)
    assert content(scan) == [[name, *(each.format(name) for each in (hr, lr, other))] for name in ("a", "b")]
    assert (scan.skipped, scan.ignored) == ((), 0)
    assert content(find(path)) == [[name, hr.format(name)] for name in ("a", "b")]


def test_div2k_x8(tmp_path):
    files(tmp_path, "DIV2K_train_HR/0001.png", "DIV2K_train_LR_x8/0001x8.png")
    assert content(find(tmp_path, X8)) == [["0001", "DIV2K_train_HR/0001.png", "DIV2K_train_LR_x8/0001x8.png"]]


@pytest.mark.parametrize("hr, lr", [LAYOUTS["EDSR"], LAYOUTS["DIV2K"]])
def test_lr_folders_beside_the_folder_of_originals(tmp_path, hr, lr):
    files(tmp_path, hr.format("a"), lr.format("a"))
    folder = (tmp_path / hr).parent
    assert content(find(folder, X4)) == [["a", hr.format("a"), lr.format("a")]]


def test_two_sets_in_one_folder(tmp_path):
    files(tmp_path, "DIV2K_train_HR/a.png", "DIV2K_valid_HR/a.png")
    assert error_of(tmp_path).code == "data.several-sets"


def test_folders_inside(tmp_path):
    files(tmp_path, "2024/a.png", "2024/june/a.jpg", "2024/june/b.PNG", "2024/notes.txt", "lr/2024/june/ax4.png")
    scan = find(tmp_path / "2024")
    assert [original.name for original in scan.images] == ["a", "june/a", "june/b"]
    assert scan.ignored == 1
    # A folder around all images stays in the names, so that these stay when there is another one.
    assert [each[0] for each in content(find(files(tmp_path / "photos", "2024/a.png")))] == ["2024/a"]
    scan = find(tmp_path / "2024", X4, lr={X4: tmp_path / "lr" / "2024"})
    assert content(scan) == [["june/a", "2024/june/a.jpg", "lr/2024/june/ax4.png"]]
    assert [skip.name for skip in scan.skipped] == ["a", "june/b"]


def test_a_folder_around_an_archive_is_no_part_of_the_names(tmp_path):
    path = archive(tmp_path / "a.zip", "mine/a.png", "mine/sub/b.png")
    assert [each[0] for each in content(find(path))] == ["a", "sub/b"]


def test_lr_images_are_no_originals(tmp_path):
    names = ("LRbicx4/ax4.png", "set/LR_bicubic/X2/ax2.png", "DIV2K_train_LR_unknown/X2/0001x2.png", "LR/a.png")
    path = files(tmp_path, "a.png", "my_LRx/b.png", *names)
    assert [original.name for original in find(path).images] == ["a", "my_LRx/b"]


@pytest.mark.parametrize("make", [files, archive])
@pytest.mark.parametrize("place", ["{}x4.png", "{}.png", "X4/{}x4.png", "DIV2K_LR_bicubic/X4/{}x4.png", "low/{}.png"])
def test_lr_images_elsewhere(tmp_path, make, place):
    hr = files(tmp_path / "mine", "a.png", "b.png", "LRbicx4/ax4.png", "LRbicx4/bx4.png")
    places = {place, place.replace("X4/{}x4", "X2/{}x2")}
    lr = make(tmp_path / "elsewhere", *(each.format(name) for name in "ab" for each in places))
    scan = find(hr, X4, lr={X4: lr})
    assert content(scan) == [[name, f"{name}.png", place.format(name)] for name in "ab"]


def test_factors_with_fractions(tmp_path):
    files(tmp_path, "HR/a.png", "LRbicx1.5/ax1.5.png")
    assert content(find(tmp_path, Fraction(3, 2))) == [["a", "HR/a.png", "LRbicx1.5/ax1.5.png"]]


def test_missing_partners_are_reported_and_the_others_kept(tmp_path):
    files(tmp_path, "HR/a.png", "HR/b{}.png", "LRbicx4/ax4.png", "LRbicx2/ax2.png", "LRbicx2/b{}x2.png")
    scan = find(tmp_path, X2, X4)
    assert [original.name for original in scan.images] == ["a"]
    (skip,) = scan.skipped
    assert (skip.name, skip.label) == ("b{}", str(tmp_path / "HR" / "b{}.png"))
    assert skip.reason == (
        f"{skip.label}: has no LR image for scale 4 in {tmp_path}/LRbicx4 (it would be called b{{}}x4 or b{{}}); add it"
    )


def test_two_originals_of_one_name(tmp_path):
    files(tmp_path, "a.png", "a.jpg", "b.png", "sub/a.png")
    scan = find(tmp_path)
    assert [original.name for original in scan.images] == ["b", "sub/a"]
    reason = f"{tmp_path}: has two images called a: a.jpg, a.png; keep one"
    assert [(skip.name, Path(skip.label).name, skip.reason) for skip in scan.skipped] == [
        ("a", "a.jpg", reason),
        ("a", "a.png", reason),
    ]


def test_two_partners_of_one_name(tmp_path):
    files(tmp_path, "HR/a.png", "LRbicx2/ax2.png", "LRbicx2/ax2.bmp", "LRbicx2/ax2.webp")
    (skip,) = find(tmp_path, X2).skipped
    assert "LRbicx2: has 3 images called ax2: ax2.bmp, ax2.png, ax2.webp; keep one" in skip.reason


def error_of(path: Path, given: Iterable[Fraction] = (), **lr: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        find(path, *given, **lr)
    assert "\n" not in str(caught.value)
    return caught.value


def test_no_images(tmp_path):
    files(tmp_path, "notes.txt", "LRbicx2/ax2.png")
    assert error_of(tmp_path).code == "data.no-images"


def test_no_lr_folder(tmp_path):
    files(tmp_path, "HR/a.png", "LRbicx2/ax2.png")
    assert error_of(tmp_path, [X4]).code == "data.lr-missing"


def test_names_with_line_breaks(tmp_path):
    files(tmp_path, "HR/a\nb.png", "HR/c\nd.png", "HR/c\nd.jpg", "LRbicx2/ax2.png")
    reasons = [skip.reason for skip in find(tmp_path, X2).skipped]
    assert len(reasons) == 3
    assert not any("\n" in reason for reason in reasons)
