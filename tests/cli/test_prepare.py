from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imdn_kd.config.options import read_options
from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.data.preparation import job
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.data.preparation.sources.catalogue import NAMED_SETS
from imdn_kd.data.store import Store
from imdn_kd.image.io import Picture, write_image
from tests.cli.run import run
from tests.fake_set import make_set, picture
from tests.refused import refused

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_image(tmp_path / "photos" / f"{number}.png", Picture(picture((48, 60), number)))
    return tmp_path


def test_folder_to_store(folder, capfd):
    result = run(capfd, "prepare", "folder", "photos")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("datasets/photos.store: 3 images, 0.0 MB of pixels (gt 0.0 MB, lq_x2 0.0 MB,")
    assert Store("datasets/photos.store").planes == ("gt", "lq_x2", "lq_x3", "lq_x4")
    again = run(capfd, "prepare", "folder", "photos")
    assert again.code == 0
    assert "exists already" in again.out


def test_scale_output_and_json(folder, capfd):
    result = run(capfd, "prepare", "folder", "photos", "-s", "1.5", "-s", "4", "-o", "x/mine", "--json")
    assert result.code == 0
    (report,) = json.loads(result.out)
    assert (report["path"], report["images"], report["fresh"]) == ("x/mine", 3, True)
    assert Store("x/mine").planes == ("gt", "lq_x1.5", "lq_x4")


def test_sample_of_two_names(folder, capfd):
    result = run(capfd, "prepare", "sample", "sample_valid", "--scale", 2)
    assert result.code == 0
    assert len(Store("datasets/sample.store")) == 4
    images = find_set("sample_valid", 2)
    assert (images.lr_source, [pair.name for pair in images.pairs]) == ("LRbicx2 (files)", ["coffee"])


def test_named_set_from_a_folder_is_found_by_benchmark(folder, capfd):
    make_set(folder / "mine" / "Set5", lr="LRbicx2")
    result = run(capfd, "prepare", "set5", "--from", "mine", "--degradation", "given", "--scale", 2)
    assert result.code == 0
    assert result.err == "imdn-kd: mine/Set5/HR: has 2 images, Set5 has 5; unpack it again\n"
    images = find_set("Set5", 2)
    assert images.lr_source == "LRbicx2 (files)"
    made = run(capfd, "prepare", "set5", "--from", "mine", "--scale", 2, "-o", "made", "--format", "store")
    assert made.code == 0
    hr, lr = images.load(images.pairs[0])
    np.testing.assert_array_equal(Store("made").image(0, "lq_x2"), lr)
    np.testing.assert_array_equal(Store("made").image(0)[: hr.shape[0], : hr.shape[1]], hr)


def test_a_set_that_is_in_place_is_not_replaced_by_itself(folder, capfd):
    make_set(folder / "datasets" / "Set5")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for more in ([], ["--overwrite"], ["--overwrite", "-o", "datasets"]):
        result = run(capfd, "prepare", "set5", *more)
        assert result.code == 2
        assert "contains the HR images themselves; choose another --output" in result.err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_benchmark_made_before_is_done_when_it_is_its_own_source(folder, capfd):
    for name in ("Set5", "Set14"):
        make_set(folder / "mine" / name)
    command = ("prepare", "set5", "set14", "-s", 2, "-s", 3)
    assert run(capfd, *command, "--from", "mine").code == 0
    before = snapshot(folder)
    for more in (("--from", "mine"), ()):
        again = run(capfd, *command, *more)
        assert (again.code, again.out.count("exists already")) == (0, 2)
    fewer = run(capfd, "prepare", "set5", "-s", 2)
    assert (fewer.code, fewer.out.count("exists already")) == (0, 1)
    for other in (("-s", 4), ("-s", 2, "--overwrite"), ("-s", 2, "--format", "lmdb", "-o", "datasets/Set5")):
        assert run(capfd, "prepare", "set5", *other).code == 2
    assert snapshot(folder) == before


def test_round_trip_through_lmdb_and_folder(folder, capfd):
    """Store to LMDB to store to folder to store: the pixels stay."""
    steps = (
        ("folder", "photos", "-o", "a.store"),
        ("store", "a.store", "--format", "lmdb", "-o", "b_lmdb"),
        ("lmdb", "b_lmdb/gt.lmdb", "--lr", "2=b_lmdb/lq_x2.lmdb", "--lr", "3=b_lmdb/lq_x3.lmdb", "-o", "c.store"),
        ("store", "c.store", "--format", "folder", "-o", "d"),
        ("folder", "d", "--lr", "2=d/LRx2", "--lr", "3=d/LRx3", "-o", "e.store"),
    )
    for step in steps:
        result = run(capfd, "prepare", *step)
        assert (result.code, result.err) == (0, ""), step
    first, last = Store("a.store"), Store("e.store")
    for number in range(3):
        assert first.name(number) == last.name(number)
        for plane in ("lq_x2", "lq_x3", "gt"):
            one, other = first.image(number, plane), last.image(number, plane)
            np.testing.assert_array_equal(one[: other.shape[0], : other.shape[1]], other)
            assert one.shape == other.shape  # 48x60 is a multiple of 12


def test_a_scale_without_an_lmdb(folder, capfd):
    run(capfd, "prepare", "folder", "photos", "-s", 2, "--format", "lmdb")
    lmdb = "datasets/photos_lmdb"
    result = run(capfd, "prepare", "lmdb", f"{lmdb}/gt.lmdb", "--lr", f"2={lmdb}/lq_x2.lmdb", "-s", 3, "-o", "x")
    assert result.code == 2
    assert result.err.endswith("no LMDB of LR images for x3 is given; add --lr 3=PATH\n")


def test_bad_images_are_named_and_the_rest_done(folder, capfd):
    (folder / "photos" / "1.png").write_bytes(b"")
    (folder / "photos" / "notes.txt").write_text("")
    result = run(capfd, "prepare", "folder", "photos")
    assert result.code == 1
    assert result.err == "imdn-kd: photos/1.png: is empty; get a fresh copy\n"
    assert "1 left out, unusable: 1" in result.out
    assert "1 files ignored" in result.out
    assert len(Store("datasets/photos.store")) == 2


def test_verify(folder, capfd):
    run(capfd, "prepare", "folder", "photos", "-s", 2)
    result = run(capfd, "verify", "datasets/photos.store")
    assert (result.code, result.out) == (0, "datasets/photos.store: 3 images in 2 planes, all intact\n")
    path = folder / "datasets" / "photos.store" / "gt.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    result = run(capfd, "verify", "datasets/photos.store")
    assert result.code == 1
    assert result.err == (
        "imdn-kd: datasets/photos.store: 2 is damaged in gt.npy; prepare the store again with --overwrite\n"
    )


@pytest.mark.parametrize("file", sorted((ROOT / "options" / "prepare").iterdir()), ids=lambda path: path.name)
def test_every_option_file_is_valid(file):
    assert read_options(file, PrepareOptions).source


def test_restoration_file_runs(folder, capfd):
    result = run(capfd, "prepare", "-opt", ROOT / "options" / "prepare" / "restoration.yml")
    assert (result.code, result.err) == (0, "")
    store = Store("datasets/sample_restoration.store")
    high, low = (store.image(0, plane).astype(float) for plane in ("gt", "lq_x1"))
    assert high.shape == low.shape
    assert 1 < np.abs(high - low).mean() < 30


def test_flags_go_before_the_file(folder, capfd):
    Path("mine.yml").write_text("source: folder\npath: photos\nscale: [2]\nname: mine\n")
    result = run(capfd, "prepare", "-opt", "mine.yml", "--scale", 3)
    assert result.code == 0
    assert Store("datasets/mine.store").planes == ("gt", "lq_x3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "prepare what?"),
        (["folder"], "folder of what? give its path"),
        (["folder", "nowhere"], "nowhere: no such folder or archive"),
        (["folder", "empty"], "has no images"),
        (["dvi2k"], "no data set is called 'dvi2k'; did you mean 'div2k'?"),
        (["sample", "--scale", "0.5"], "give a factor from 1 up"),
        (["sample", "--scale", "2.345"], "at most two decimals"),
        (["sample", "--degradation", "given"], "sample has no LR images of its own"),
        (["sample", "--degradation", "nearest"], "degradation"),
        (["sample", "--format", "zip"], "format"),
        (["folder", "photos", "--degradation", "given"], "add --scale"),
        (["folder", "photos", "--degradation", "given", "-s", "2"], "has no LR images for scale 2"),
        (["folder", "photos", "--lr", "2"], "write SCALE=PATH"),
        (["folder", "photos", "--lr", "x=photos"], "write SCALE=PATH"),
        (["folder", "photos", "--lr", "2=nowhere"], "nowhere: no such folder or archive"),
        (["folder", "photos", "--exclude-like", "nowhere"], "nowhere"),
        (["lmdb", "photos"], "ends in .lmdb"),
        (["lmdb", "photos.lmdb", "--lr", "2=photos"], "photos.lmdb: no such folder"),
        (["store", "photos"], "photos: is not a store of images"),
        (["sample", "sample_valid", "-o", "x"], "--output takes one data set"),
        (["sample", "-opt", "mine.yml"], "an option file"),
        (["-opt", "nowhere.yml"], "nowhere.yml: cannot read it"),
        (["sample", "-o", "photos/0.png/x"], "cannot write there"),
        (["sample", "-o", "photos"], "exists already"),
    ],
)
def test_mistakes_are_one_line(folder, capfd, arguments, message):
    Path("empty").mkdir()
    Path("mine.yml").write_text("source: sample\n")
    before = sorted(folder.rglob("*"))
    result = run(capfd, "prepare", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: folder\n", "the sources folder, lmdb, store need a path"),
        ("source: sample\npath: x\n", "only these take one"),
        ("source: sample\nscales: [2]\n", "line 2: no option is called 'scales'; did you mean 'scale'?"),
        ("source: sample\ndegradation: [{type: blur, sigma: 1}]\n", "one step of type bicubic"),
        ("source: sample\ndegradation: [{type: blur}]\nscale: [1]\n", "line 2: degradation.0.sigma: is missing"),
        (
            "source: sample\ndegradation: [{type: blr, sigma: 1}]\n",
            "line 2: degradation.0: is to be one of",
        ),
        ("source: sample\ndegradation:\n- {type: bicubic}\n- {type: noise, sigma: [2, 1]}\n", "line 4: degradation.1."),
        ("source: sample\nscale: two\n", "scale"),
        ("source: folder\npath: x\nlr: {2: y}\ndegradation: bicubic\n", "lr names given images"),
        ("source: sample\nmanual_seed: -1\n", "manual_seed"),
    ],
)
def test_mistakes_in_option_files_are_one_line(folder, capfd, text, message):
    Path("mine.yml").write_text(text)
    result = run(capfd, "prepare", "-opt", "mine.yml")
    assert result.code == 2
    assert message in result.err
    assert "mine.yml, line " in result.err
    assert result.err.count("\n") == 1
    assert not Path("datasets").exists()


def test_closed_network_says_which_file_to_put_where(folder, capfd, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    result = run(capfd, "prepare", "div2k")
    assert result.code == 2
    assert "get DIV2K_train_HR.zip by other means, put it into" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("set5", "--from", "missing"),
        ("set5", "--from", "photos", "--from", "missing"),
        ("div2k", "--from", "missing/DIV2K_train_HR.zip"),
        ("set5", "folder", "missing"),
        ("set5", "store", "missing"),
        ("sample", "folder", "missing"),
        ("sample", "lmdb", "missing.lmdb"),
        ("folder", "photos", "--lr", "2=missing"),
    ],
)
def test_missing_inputs_are_told_before_anything_is_downloaded_or_written(folder, capfd, monkeypatch, arguments):
    monkeypatch.setattr(job, "download", lambda *_, **__: pytest.fail("downloads"))
    before = snapshot(folder)
    result = run(capfd, "prepare", *arguments)
    assert result.code == 2
    assert result.err.startswith("imdn-kd: missing")
    assert result.err.count("\n") == 1
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", NAMED_SETS)
def test_nothing_is_downloaded_where_files_are_given(folder, capfd, monkeypatch, name):
    monkeypatch.setattr(job, "download", lambda *_, **__: pytest.fail("downloads"))
    for degradation in ("bicubic", "given"):
        options = PrepareOptions(source=name, places=["photos"], degradation=degradation, scale=[2])
        with refused("prepare.not-in-places"):
            job.open_source(options, root=folder / "datasets")


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("folder", "photos", "-o", "other"),
        ("folder", "photos", "-o", "photos/inside"),
        ("folder", "photos", "--exclude-like", "other/bench", "-o", "other"),
        ("folder", "other/photos.zip", "-o", "other"),
        ("folder", "photos", "-o", "link"),
        ("folder", "photos", "-o", "strange"),
        ("store", "mine.store", "-o", "mine.store"),
    ],
)
def test_nothing_is_overwritten_that_prepare_has_not_made(folder, capfd, arguments):
    assert run(capfd, "prepare", "folder", "photos", "-s", 2, "-o", "mine.store").code == 0
    write_image(folder / "other" / "bench" / "x.png", Picture(picture((48, 60), 9)))
    with zipfile.ZipFile("other/photos.zip", "w") as archive:
        archive.write("photos/0.png")
    Path("link").symlink_to("nowhere")
    Path("strange.part").mkdir()
    Path("strange.part/diary.txt").write_text("precious")
    before = snapshot(folder)
    result = run(capfd, "prepare", *arguments, "-s", 2, "--overwrite")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert snapshot(folder) == before


@pytest.mark.parametrize("form", ["folder", "lmdb", "store"])
def test_what_another_run_has_left_is_not_mixed_in(folder, capfd, form):
    part = folder / "out.part"
    (part / "out" / "HR").mkdir(parents=True)
    (part / "out" / "HR" / "old.png").write_text("old")
    (part / "replaced").mkdir()
    (part / "progress.jsonl").write_text('{"job": "another"}\n{"name": "old"}\n')
    result = run(capfd, "prepare", "folder", "photos", "-s", 2, "--format", form, "-o", "out")
    assert (result.code, result.err) == (0, "")
    assert not list((folder / "out").rglob("old*"))
    again = run(capfd, "prepare", "folder", "photos", "-s", 4, "--format", form, "-o", "out", "--overwrite")
    assert again.code == 0
    assert not part.exists()


def test_conversions_of_the_documentation(folder, capfd):
    Path("mine.yml").write_text("source: sample\nname: DIV2K\nscale: [4]\n")
    run(capfd, "prepare", "-opt", "mine.yml")
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    commands = [line.partition("#")[0].split()[1:] for line in text.splitlines() if line.startswith("    imdn-kd prep")]
    assert len(commands) == 4
    for command in commands:
        result = run(capfd, *command)
        assert (result.code, result.err) == (0, ""), command
