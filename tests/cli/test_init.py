"""`imdn-kd init`: from a folder of photographs to an option file that trains."""

import numpy as np
import pytest
import yaml
from PIL import Image

from imdn_kd.training import own_photos
from tests.cli.run import run
from tests.fake_set import picture

QUICK = ("--scale", "2", "--student", "plain_t", "--minutes", "20")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twelve photographs in a folder of the working folder, one in a folder inside and one with the name of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_photos, "seconds_of_iteration", lambda *_: 0.1)
    monkeypatch.setattr(own_photos, "seconds_of_cache", lambda *_: 60.0)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number in range(12):
        name = f"more/{number % 11}.png" if number > 9 else f"{number}.png"
        Image.fromarray(picture((120, 130), number)).save(tmp_path / "photos" / name)
    return tmp_path


def test_the_file_can_be_trained_and_no_photograph_is_in_both_sets(photos, capfd):
    result = run(capfd, "init", "photos", *QUICK)
    assert (result.code, result.err) == (0, "")
    options = yaml.safe_load((photos / "photos_x2.yml").read_text())
    # Three quarters of 20 minutes less one for the teacher, a tenth of a second each, to two digits.
    assert options["train"]["total_iter"] == options["train"]["scheduler"]["periods"][0] == 8400
    assert options["network_t"] == {"weights": "plain_m_x2"}
    assert len(list((photos / "datasets" / "photos_x2_valid").iterdir())) == 1
    assert "datasets/photos_x2.store: 11 photographs to train on, without 1 that look like one held out" in result.out
    *_, train, benchmark, upscale = result.out.splitlines()
    assert train.split() == ["imdn-kd", "train", "-opt", "photos_x2.yml"]
    few = ("--set", "train.total_iter=2", "--set", "datasets.train.gt_size=32", "-q")
    assert run(capfd, *train.split()[1:], *few).code == 0
    assert run(capfd, *benchmark.split()[1:], "--json").code == 0
    words = upscale.replace("PHOTO", "photos/3.png").split()[1:]
    assert run(capfd, *words).code == 0
    assert np.asarray(Image.open("large/3.png")).shape == (240, 260, 3)


def test_the_same_again_keeps_data_and_needs_overwrite(photos, capfd):
    assert run(capfd, "init", "photos", *QUICK, "-q") == (0, "", "")
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("datasets/*/*")}
    assert run(capfd, "init", "photos", *QUICK).code == 2
    assert run(capfd, "init", "photos", *QUICK, "--teacher", "none", "--overwrite").code == 0
    assert "network_t" not in yaml.safe_load((photos / "photos_x2.yml").read_text())
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_student_of_the_zoo_is_trained_further(photos, capfd):
    result = run(capfd, "init", "photos", "--student", "imdn_rtc_x4", "--name", "mine", "-o", "a.yml")
    assert result.code == 0, result.err
    options = yaml.safe_load((photos / "a.yml").read_text())
    assert options["datasets"]["train"]["gt_size"] == 96  # since no photograph has patches of 128 px
    assert options["path"] == {"pretrain_network_g": "imdn_rtc_x4"}
    assert options["network_g"]["upscale"] == options["scale"] == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("empty",),
        ("one",),
        ("photos", "--scale", "1"),
        ("photos", "--scale", "3", "--teacher", "plain_m_x2"),
        ("photos", "--scale", "2", "--student", "imdn_rtc_x4"),
        ("photos", "--student", "plain_z"),
        ("photos", "--teacher", "gone.pth"),
        ("photos", "--minutes", "0"),
        ("photos", "--minutes", "nan"),
        ("photos", "--name", "a/b"),
        ("photos", "-o", "photos"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(photos, capfd, arguments):
    (photos / "empty").mkdir()
    (photos / "one").mkdir()
    Image.fromarray(picture((64, 64), 0)).save(photos / "one" / "a.png")
    result = run(capfd, "init", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert sorted(path.name for path in photos.iterdir()) == ["empty", "one", "photos"]


def test_photographs_that_are_too_small_are_refused(photos, capfd):
    for path in photos.glob("photos/**/*.png"):
        Image.open(path).crop((0, 0, 40, 30)).save(path)
    result = run(capfd, "init", "photos")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "below 32 px" in result.err
    assert not (photos / "photos_x4.yml").exists()


def test_too_little_time_says_how_much_is_needed(photos, capfd):
    result = run(capfd, "init", "photos", *QUICK[:4], "--minutes", "1.5")
    assert (result.code, result.err) == (2, "imdn-kd: --minutes 1.5: 75 iterations fit; give 2 or more\n")
    assert not (photos / "photos_x2.yml").exists()
