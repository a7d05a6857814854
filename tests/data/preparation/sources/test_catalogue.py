from __future__ import annotations

import re
import tarfile
import zipfile
from fractions import Fraction
from pathlib import Path

import pytest

from imdn_kd.data.preparation.sources.catalogue import NAMED_SETS
from imdn_kd.data.preparation.sources.locations import Located, locate
from imdn_kd.data.preparation.sources.scan import scan_dataset
from imdn_kd.errors import InputError
from tests.data.preparation.sources.test_scan import archive, files
from tests.shared_data import SHARED, needs_shared

X2, X4 = Fraction(2), Fraction(4)
DIV2K = NAMED_SETS["div2k"]
SET5 = NAMED_SETS["set5"]

DIV2K_FILES = (
    "DIV2K_train_HR/0001.png",
    "DIV2K_train_LR_bicubic/X2/0001x2.png",
    "DIV2K_train_LR_bicubic/X4/0001x4.png",
)
SET5_FILES = ("Set5/HR/baby.png", "Set5/LR_bicubic/X2/babyx2.png", "Set5/LR_bicubic/X4/babyx4.png")


def test_facts():
    assert [named.images for named in NAMED_SETS.values()] == [800, 100, 5, 14, 100, 100]
    assert [named.title for named in NAMED_SETS.values()] == [
        *("DIV2K", "DIV2K_valid", "Set5", "Set14", "B100", "Urban100")
    ]
    assert (DIV2K.hr.archive.url, DIV2K.hr.archive.size) == (
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
        3530603713,
    )
    names = {str(scale): part.archive.name for scale, part in NAMED_SETS["div2k_valid"].lr.items()}
    assert names == {
        **{scale: f"DIV2K_valid_LR_bicubic_X{scale}.zip" for scale in "234"},
        "8": "DIV2K_valid_LR_x8.zip",
    }
    archives = {part.archive for named in NAMED_SETS.values() for part in (named.hr, *named.lr.values())}
    assert len(archives) == len({each.checksum for each in archives}) == 11
    for each in archives:
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", each.checksum)
        assert each.url.startswith("https://")
    assert not any("\n" in named.licence or "research only" not in named.licence for named in NAMED_SETS.values())


def found(key: str, *places: Path) -> list[str]:
    """What the first original and its partners at x2 and x4 hold, which is their name."""
    located = locate(NAMED_SETS[key], places, (X2, X4))
    assert isinstance(located, Located)
    (original,) = scan_dataset(located.hr, (X2, X4), located.lr).images
    return [original.name, *(file.read().decode() for file in original.files())]


def div2k_archives(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, member in zip(("HR", "LR_bicubic_X2", "LR_bicubic_X4"), DIV2K_FILES, strict=True):
        archive(folder / f"DIV2K_train_{name}.zip", member)
    return folder


def test_archives_of_div2k(tmp_path):
    div2k_archives(tmp_path / "downloads")
    assert found("div2k", tmp_path / "nowhere", tmp_path / "downloads") == ["0001", *DIV2K_FILES]
    div2k_archives(tmp_path / "root" / "DIV2K")
    assert found("div2k", tmp_path / "root") == ["0001", *DIV2K_FILES]


@pytest.mark.parametrize("place", [".", "DIV2K", "DIV2K/DIV2K_train_HR"])
def test_div2k_unpacked(tmp_path, place):
    files(tmp_path / "DIV2K", *DIV2K_FILES)
    assert found("div2k", tmp_path / place) == ["0001", *DIV2K_FILES]


def test_unpacked_originals_with_partners_in_an_archive(tmp_path):
    div2k_archives(tmp_path / "downloads")
    (tmp_path / "downloads" / "DIV2K_train_HR.zip").unlink()
    files(tmp_path / "sets", DIV2K_FILES[0])
    assert found("div2k", tmp_path / "downloads", tmp_path / "sets") == ["0001", *DIV2K_FILES]


@pytest.mark.parametrize("place", ["", "benchmark.tar"])
def test_benchmark_archive(tmp_path, place):
    content = files(tmp_path / "content", *SET5_FILES, "Set14/HR/zebra.png")
    with tarfile.open(tmp_path / "benchmark.tar", "w") as target:
        target.add(content, "benchmark")
    assert found("set5", tmp_path / place) == ["baby", *SET5_FILES]
    assert isinstance(locate(NAMED_SETS["set14"], [tmp_path / place]), Located)


def test_an_archive_under_another_name(tmp_path):
    path = archive(tmp_path / "mine.zip", *SET5_FILES, "readme.txt")
    assert found("set5", path) == ["baby", *SET5_FILES]
    assert locate(DIV2K, [path]) == (DIV2K.hr.archive,)


@pytest.mark.parametrize("place", [".", "benchmark", "benchmark/Set5", "benchmark/Set5/HR"])
def test_benchmarks_unpacked(tmp_path, place):
    files(tmp_path / "benchmark", *SET5_FILES)
    assert found("set5", tmp_path / place) == ["baby", *SET5_FILES]


def test_the_layout_of_our_own_sets(tmp_path):
    names = ("Set5/GTmod12/baby.png", "Set5/LRbicx2/babyx2.bmp", "Set5/LRbicx4/babyx4.bmp")
    assert found("set5", files(tmp_path, *names)) == ["baby", *names]


def test_originals_right_in_the_folder_of_the_set(tmp_path):
    located = locate(SET5, [files(tmp_path, "Set5/baby.png", "Set5/LRbicx2/babyx2.png")])
    assert isinstance(located, Located)
    assert located.hr.path == tmp_path / "Set5"


def test_a_set_beside_an_unrelated_place_is_not_taken(tmp_path):
    files(tmp_path, *SET5_FILES, "downloads/readme.txt")
    assert locate(SET5, [tmp_path / "downloads"]) == (SET5.hr.archive,)


def test_what_is_missing(tmp_path):
    assert locate(DIV2K, [tmp_path], (X2, X4)) == tuple(part.archive for part in (DIV2K.hr, DIV2K.lr[X2], DIV2K.lr[X4]))
    files(tmp_path, DIV2K_FILES[0], DIV2K_FILES[1])
    assert locate(DIV2K, [tmp_path], (X2, X4)) == (DIV2K.lr[X4].archive,)
    assert locate(SET5, [tmp_path], (X2, X4)) == (SET5.hr.archive,)


def error_of(key: str, place: Path, *given: Fraction) -> InputError:
    with pytest.raises(InputError) as caught:
        locate(NAMED_SETS[key], [place], given)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_factor_that_is_not_published(tmp_path):
    assert error_of("div2k", tmp_path, Fraction(3, 2)).code == "data.lr-missing"
    assert error_of("set5", tmp_path, Fraction(8)).code == "data.lr-missing"


def test_an_archive_of_something_else(tmp_path):
    archive(tmp_path / "DIV2K_train_HR.zip", "other/a.png")
    assert error_of("div2k", tmp_path).code == "archive.wrong-content"


def test_a_damaged_archive(tmp_path):
    div2k_archives(tmp_path / "a")
    path = tmp_path / "a" / "DIV2K_train_HR.zip"
    path.write_bytes(path.read_bytes()[:-30])
    assert error_of("div2k", tmp_path / "a").code == "archive.damaged"


def test_every_archive_is_listed_once(tmp_path, monkeypatch):
    archive(tmp_path / "mine.zip", *SET5_FILES)
    opened = []
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: opened.append(self.filename) or self.filelist)
    locate(SET5, [tmp_path / "mine.zip"], (X2, X4))
    assert len(opened) == 1


@needs_shared
def test_real_benchmarks():
    located = locate(SET5, [SHARED], (X2, Fraction(3), X4))
    assert isinstance(located, Located)
    scan = scan_dataset(located.hr, tuple(located.lr), located.lr)
    assert [original.name for original in scan.images] == ["baby", "bird", "butterfly", "head", "woman"]
    assert scan.images[0].lq[X4].label.endswith("LRbicx4/babyx4.bmp")
