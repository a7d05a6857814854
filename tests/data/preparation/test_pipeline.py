from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imdn_kd.data.degradation.schema import Bicubic, Noise
from imdn_kd.data.preparation.leak_check import BenchmarkIndex
from imdn_kd.data.preparation.pipeline import PrepareReport, build_dataset
from imdn_kd.data.preparation.samples import PrepareSpec, SampleBuilder
from imdn_kd.data.preparation.sources.sources import folder_source, sample_source, store_source
from imdn_kd.data.store import Store
from imdn_kd.data.store_writer import add_plane
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from tests.fake_set import make_set, picture
from tests.refused import refused
from tests.shared_data import SHARED, needs_shared, set5_pairs

TWO = PrepareSpec((Fraction(2),), (Bicubic(),))


def make(folder: Path, target: Path, spec: PrepareSpec = TWO, **options) -> PrepareReport:
    given, made = (spec.scales, ()) if spec.steps is None else ((), spec.scales)
    return build_dataset(folder_source(folder, given, made, {}), target, spec, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def photos(folder: Path, count: int, size: tuple[int, int] = (40, 52)) -> Path:
    for number in range(count):
        write_image(folder / f"{number:03}.png", Picture(picture(size, number)), overwrite=True)
    return folder


@needs_shared
@pytest.mark.parametrize("how", ["made", "given"])
def test_set5_is_the_published_one_bit_for_bit(tmp_path, how):
    scales = tuple(map(Fraction, (2, 3, 4)))
    spec = PrepareSpec(scales, None if how == "given" else (Bicubic(),))
    report = make(SHARED / "benchmark" / "Set5", tmp_path / "Set5.store", spec)
    assert (report.images, report.bad) == (5, {})
    store = Store(report.path)
    for scale in scales:
        for number, (hr, lr) in enumerate(set5_pairs(scale.numerator)):
            np.testing.assert_array_equal(store.image(number, f"lq_x{scale}"), lr)
            np.testing.assert_array_equal(store.image(number)[: hr.shape[0], : hr.shape[1]], hr)


@pytest.mark.parametrize("scale", ["1.5", "2", "2.5", "3", "8", "1.25"])
def test_any_factor(tmp_path, scale):
    exact = Fraction(scale)
    make(photos(tmp_path / "in", 2), tmp_path / "out", PrepareSpec((exact,), (Bicubic(),)))
    store = Store(tmp_path / "out")
    high, low = store.image(1), store.image(1, f"lq_x{scale}")
    height, width = (side // exact.numerator for side in high.shape[:2])
    assert low.shape[:2] == (height * exact.denominator, width * exact.denominator)
    part = high[: height * exact.numerator, : width * exact.numerator]
    np.testing.assert_array_equal(low, imresize(part, size=low.shape[:2]))


def test_report_and_manifest_say_what_happened(tmp_path):
    folder = photos(tmp_path / "in", 2)
    Image.new("I;16", (40, 30), 500).save(folder / "deep.png")
    Image.new("L", (40, 30), 7).save(folder / "grey.png")
    Image.new("RGBA", (40, 30), (1, 2, 3, 255)).save(folder / "opaque.png")
    Image.new("RGBA", (40, 30), (1, 2, 3, 9)).save(folder / "glass.png")
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not even by name")
    Image.new("RGB", (1, 40)).save(folder / "thin.png")
    report = make(folder, tmp_path / "out")
    assert (report.images, report.fresh, report.ignored) == (5, True, 1)
    assert set(report.bad) == {"glass", "cut", "text", "thin"}
    assert "transparent" in report.bad["glass"]
    assert "damaged or cut short" in report.bad["cut"]
    assert "not an image" in report.bad["text"]
    assert "too few for the scale" in report.bad["thin"]
    for name, reason in report.bad.items():
        assert f"{name}." in reason
        assert "\n" not in reason
    assert report.converted == {
        "16 bits per channel, rounded to 8": ["deep"],
        "grey, repeated for R, G and B": ["deep", "grey"],
        "an alpha channel without transparent pixels, left out": ["opaque"],
    }
    store = Store(tmp_path / "out")
    assert [store.name(number) for number in range(5)] == ["000", "001", "deep", "grey", "opaque"]
    assert store.manifest["source"] == "in"
    assert store.manifest["planes"]["lq_x2"]["degradation"] == [{"type": "bicubic"}]
    assert set(store.manifest["made_with"]) == {"imdn_kd", "numpy", "pillow"}
    assert report.bytes["gt"] == sum(store.image(number).nbytes for number in range(5))


def test_given_partner_that_is_missing_or_of_another_size(tmp_path):
    folder = make_set(tmp_path / "in", lr="LRbicx2", size=(36, 40))
    (folder / "LRbicx2" / "birdx2.png").unlink()
    for name in ("cat", "dog"):
        write_image(folder / "HR" / f"{name}.png", Picture(picture((36, 40))))
        write_image(folder / "LRbicx2" / f"{name}x2.png", Picture(picture((18, 20 if name == "dog" else 19))))
    report = make(folder, tmp_path / "out", PrepareSpec((Fraction(2),), None))
    assert report.images == 2
    assert "has no LR image for scale 2" in report.bad["bird"]
    assert "is 19x18 px, but x2 of" in report.bad["cat"]
    assert "needs 20x18" in report.bad["cat"]


def test_images_of_a_benchmark_are_left_out(tmp_path):
    folder = photos(tmp_path / "in", 3, (120, 160))
    Image.open(folder / "001.png").save(tmp_path / "again.jpg", quality=60)
    (tmp_path / "bench").mkdir()
    (tmp_path / "again.jpg").rename(tmp_path / "bench" / "again.jpg")
    spec = PrepareSpec((Fraction(2),), (Bicubic(),), exclude=BenchmarkIndex([tmp_path / "bench"]))
    report = make(folder, tmp_path / "out", spec)
    assert report.images == 2
    assert list(report.excluded) == ["001"]
    assert re.search(r"001\.png: looks like .*again\.jpg", report.excluded["001"])


def test_changed_benchmark_is_another_job(tmp_path):
    folder = photos(tmp_path / "in", 3, (120, 160))
    for number, excluded in ((1, ["001"]), (2, ["002"])):
        write_image(tmp_path / "bench" / "a.png", Picture(picture((120, 160), number)), overwrite=True)
        spec = PrepareSpec((Fraction(2),), (Bicubic(),), exclude=BenchmarkIndex([tmp_path / "bench"]))
        if number == 2:
            with refused("prepare.output-exists"):
                make(folder, tmp_path / "out", spec)
        assert list(make(folder, tmp_path / "out", spec, overwrite=True).excluded) == excluded


def test_archives_and_folders_give_the_same(tmp_path):
    folder = photos(tmp_path / "data", 3)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"data/{path.name}")
    make(folder, tmp_path / "a")
    make(tmp_path / "data.zip", tmp_path / "b")
    one, other = content(tmp_path / "a"), content(tmp_path / "b")
    assert {name: data for name, data in one.items() if name.endswith(".npy") and name != "images.npy"} == {
        name: data for name, data in other.items() if name.endswith(".npy") and name != "images.npy"
    }


def test_any_number_of_workers_gives_the_same(tmp_path):
    folder = photos(tmp_path / "in", 12)
    spec = PrepareSpec((Fraction(2),), (Bicubic(), Noise(type="noise", sigma=[1.0, 9.0])), seed=3)
    for workers in (1, 2, 5):
        make(folder, tmp_path / str(workers), spec, workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "5")


def test_seed_changes_noise_only(tmp_path):
    folder = photos(tmp_path / "in", 1)
    steps = (Bicubic(), Noise(type="noise", sigma=9.0))
    for seed in (0, 1):
        make(folder, tmp_path / str(seed), PrepareSpec((Fraction(2),), steps, seed=seed))
    first, second = Store(tmp_path / "0"), Store(tmp_path / "1")
    np.testing.assert_array_equal(first.image(0), second.image(0))
    assert not np.array_equal(first.image(0, "lq_x2"), second.image(0, "lq_x2"))


def test_done_already_is_left_alone_and_anything_else_refused(tmp_path):
    folder = photos(tmp_path / "in", 2)
    make(folder, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    report = make(folder, tmp_path / "out")
    assert (report.fresh, report.images) == (False, 2)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with refused("prepare.output-exists"):
        make(folder, tmp_path / "out", PrepareSpec((Fraction(2),), (Bicubic(), Noise(type="noise", sigma=9.0))))
    with refused("prepare.output-exists"):
        make(folder, tmp_path / "out", PrepareSpec((Fraction(4),), (Bicubic(), Noise(type="noise", sigma=9.0))))
    photos(folder, 3)
    with refused("prepare.output-exists"):
        make(folder, tmp_path / "out")
    assert make(folder, tmp_path / "out", overwrite=True).images == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("form", ["folder", "lmdb"])
def test_other_targets_are_never_written_into(tmp_path, form):
    folder = photos(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with refused("prepare.output-exists"):
        make(folder, tmp_path / "out", PrepareSpec((Fraction(2),), (Bicubic(),), form=form))
    assert content(tmp_path / "out") == {"mine.txt": b"keep"}


def test_nothing_usable(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no image")
    with refused("prepare.nothing-usable") as caught:
        make(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_names_that_an_lmdb_cannot_have_are_refused_before_the_work(tmp_path):
    folder = photos(tmp_path / "in", 2)
    (folder / "001.png").rename(folder / "a.b.png")
    with refused("lmdb.key"):
        make(folder, tmp_path / "out", PrepareSpec((Fraction(2),), (Bicubic(),), form="lmdb"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    folder = photos(tmp_path / "in", 1)
    tmp_path.chmod(0o500)
    try:
        with refused("file.cannot-write"):
            make(folder, tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_target_below_a_file(tmp_path):
    folder = photos(tmp_path / "in", 1)
    with refused("file.cannot-write"):
        make(folder, folder / "000.png" / "out")


_FULL = """
import resource, sys
from pathlib import Path
from fractions import Fraction
from imdn_kd.data.degradation.schema import Bicubic
from imdn_kd.data.preparation.pipeline import PrepareSpec, build_dataset
from imdn_kd.data.preparation.sources.sources import folder_source
from imdn_kd.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, resource.RLIM_INFINITY))
try:
    spec = PrepareSpec((Fraction(2),), (Bicubic(),))
    build_dataset(folder_source(Path(sys.argv[1]), (), spec.scales, {}), Path(sys.argv[2]), spec)
except InputError as error:
    print(error)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_full_disk_keeps_what_is_done(tmp_path):
    """A limit on the size of files fails in the same place as a disk without room."""
    folder = photos(tmp_path / "in", 6)
    result = subprocess.run(
        [sys.executable, "-c", _FULL, str(folder), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert re.search(r"out: cannot write it \(.*\); 2 of 6 images are done; make room .* to resume\n$", result.stdout)
    assert not (tmp_path / "out").exists()
    assert make(folder, tmp_path / "out").images == 6
    make(folder, tmp_path / "undisturbed")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("form", ["store", "folder", "lmdb"])
def test_stopped_anywhere_it_goes_on(tmp_path, form, monkeypatch):
    folder = photos(tmp_path / "in", 6)
    (folder / "002.png").write_text("no image")
    spec = PrepareSpec((Fraction(2),), (Bicubic(),), form=form)
    make(folder, tmp_path / "undisturbed", spec)
    made = []
    whole = SampleBuilder.__call__

    def counting(self, original):
        made.append(original.name)
        return whole(self, original)

    monkeypatch.setattr(SampleBuilder, "__call__", counting)
    for stop in (1, 3, 5):

        def interrupt(done, _, stop=stop):
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make(folder, tmp_path / "out", spec, workers=1, on_image=interrupt)
        assert not (tmp_path / "out").exists()
    made.clear()
    make(folder, tmp_path / "out", spec)
    assert made == ["005"]
    assert not (tmp_path / "out.part").exists()
    one, other = content(tmp_path / "out"), content(tmp_path / "undisturbed")
    one.pop("manifest.json"), other.pop("manifest.json")
    if form == "lmdb":  # pages of a database depend on its history
        one, other = ({name: data for name, data in each.items() if name.endswith(".txt")} for each in (one, other))
    assert one == other


@pytest.mark.parametrize("form", ["store", "folder", "lmdb"])
def test_what_a_killed_run_leaves_half_written_is_removed(tmp_path, form, monkeypatch):
    folder = photos(tmp_path / "in", 3)
    spec = PrepareSpec((Fraction(2),), (Bicubic(),), form=form)
    with monkeypatch.context() as patch:
        # As if killed: temporary files stay.
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        patch.setattr(Path, "replace", interrupted_at(1))
        with pytest.raises(KeyboardInterrupt):
            make(folder, tmp_path / "out", spec)
    make(folder, tmp_path / "out", spec)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


def interrupted_at(call: int):
    calls = iter(range(call))
    replace = Path.replace

    def replacing(path, target):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return replace(path, target)

    return replacing


def test_changed_files_are_not_mixed_with_old_ones(tmp_path):
    folder = photos(tmp_path / "in", 4)

    def interrupt(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(folder, tmp_path / "out", on_image=interrupt)
    write_image(folder / "000.png", Picture(picture((40, 52), 99)), overwrite=True)
    make(folder, tmp_path / "out")
    np.testing.assert_array_equal(Store(tmp_path / "out").image(0), picture((40, 52), 99))


def test_two_at_once(tmp_path):
    folder = photos(tmp_path / "in", 2)

    def second(done, _):
        if done == 1:
            with refused("prepare.in-use"):
                make(folder, tmp_path / "out")

    assert make(folder, tmp_path / "out", on_image=second).images == 2


_KILLING = """
import os, random, signal, sys, time
from pathlib import Path
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.data.store import is_store

folder, out = map(Path, sys.argv[1:])
import torch, scipy.ndimage  # what is imported late would take longer than the work

def begin(target):
    child = os.fork()
    if not child:
        options = PrepareOptions(source="folder", path=str(folder), output=str(target), scale=[2.0, 3.0])
        write_dataset(options, open_source(options, root=out), root=out)
        os._exit(0)
    return child

for name in ("warm_up", "undisturbed"):  # the first one takes longer than all later ones
    start = time.perf_counter()
    os.waitpid(begin(out / name), 0)
    whole = time.perf_counter() - start
moments = random.Random(0)
killed = complete = 0
states = set()
progress_log = out / "disturbed.part" / "progress.jsonl"
while killed < 20:
    child = begin(out / "disturbed")
    time.sleep(moments.uniform(0, whole / 3 * (1 + killed / 5)))  # later ones get more time, on a busy machine
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    states.add(progress_log.read_bytes().count(b"\\n") if progress_log.exists() else 0)
    if is_store(out / "disturbed"):
        (out / "disturbed").rename(out / f"complete{complete}")
        complete += 1
os.waitpid(begin(out / "disturbed"), 0)
print(len(states))
"""


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_20_random_moments(tmp_path):
    folder = photos(tmp_path / "in", 60, (200, 300))
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", _KILLING, str(folder), str(tmp_path / "out")]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(result.stdout) >= 5  # moments between which the work went on
    expected = content(tmp_path / "out" / "undisturbed")
    assert not list(Store(tmp_path / "out" / "undisturbed").verify())
    results = [path for path in (tmp_path / "out").iterdir() if path.suffix != ".part"]
    assert len(results) >= 2
    for path in results:
        assert content(path) == expected


def test_store_to_folder_to_store(tmp_path):
    given = (Fraction(2), Fraction(3))
    make(photos(tmp_path / "in", 3, (37, 41)), tmp_path / "one.store", PrepareSpec(given, (Bicubic(),)))
    spec = PrepareSpec(given, None, form="folder")
    build_dataset(store_source(tmp_path / "one.store", given), tmp_path / "files", spec)
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["HR", "LRbicx2", "LRbicx3", "manifest.json"]


def test_sample_is_there_without_a_network(tmp_path):
    report = build_dataset(sample_source("sample"), tmp_path / "sample.store", TWO)
    assert (report.images, report.bad) == (4, {})
    assert not list(Store(report.path).verify())


def test_what_is_held_out_of_the_sample_is_not_trained_on():
    trained, held_out = ({each.name for each in sample_source(name).images} for name in ("sample", "sample_valid"))
    assert trained
    assert held_out
    assert trained.isdisjoint(held_out)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_factor_is_added_and_the_rest_stays(tmp_path, overwrite):
    folder, three = photos(tmp_path / "in", 5), PrepareSpec((Fraction(3),), (Bicubic(),))
    out, scales = tmp_path / "out", tuple(map(Fraction, (2, 3, 4)))
    make(folder, out, PrepareSpec(scales[::2], (Bicubic(),)))
    add_plane(out, "sr_x2_t", lambda n: picture((40, 52), 50 + n), description={"scale": "2", "teachers": ["t"]})
    before = {name: data for name, data in content(out).items() if name.endswith(".npy")}
    if not overwrite:

        def interrupt(done, _):
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make(folder, out, three, on_image=interrupt)
        assert "lq_x3" not in Store(out).planes
    report = make(folder, out, three, overwrite=overwrite)
    assert report.fresh
    assert set(report.bytes) == set(Store(out).planes) == {"gt", "lq_x2", "lq_x3", "lq_x4", "sr_x2_t"}
    assert not list(Store(out).verify())
    after = content(out)
    assert before.items() <= after.items()
    make(folder, tmp_path / "anew", PrepareSpec(scales, (Bicubic(),)))
    anew = content(tmp_path / "anew")
    assert {name: after[name] for name in anew if name.endswith(".npy")} == {
        name: data for name, data in anew.items() if name.endswith(".npy")
    }
    for spec in (three, PrepareSpec(scales, (Bicubic(),)), TWO):
        assert not make(folder, out, spec).fresh


def test_planes_of_other_or_damaged_images_are_not_kept(tmp_path):
    folder, out = photos(tmp_path / "in", 2), tmp_path / "out"
    both = PrepareSpec((Fraction(2), Fraction(4)), (Bicubic(),))
    for fault in ("images", "way", "pixels"):
        make(folder, out, both, overwrite=True)
        add_plane(out, "sr_x4", lambda n: picture((40, 52), 50 + n), description={"scale": "4"})
        spec = TWO
        if fault == "images":
            write_image(folder / "001.png", Picture(picture((40, 52), 77)), overwrite=True)
        elif fault == "way":
            spec = PrepareSpec((Fraction(2),), (Bicubic(), Noise(type="noise", sigma=9.0)))
        else:
            path = out / "lq_x4.npy"
            path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
        make(folder, out, spec, overwrite=True)
        assert Store(out).planes == ("gt", "lq_x2"), fault
        assert not list(Store(out).verify())


def test_an_image_too_small_for_the_new_factor(tmp_path):
    folder, out = photos(tmp_path / "in", 2, (6, 6)), tmp_path / "out"
    make(folder, out)
    before = {name: data for name, data in content(out).items() if name != ".planes.lock"}
    with refused("prepare.cannot-add"):
        make(folder, out, PrepareSpec((Fraction(8),), (Bicubic(),)))
    assert before.items() <= content(out).items()
    assert Store(out).planes == ("gt", "lq_x2")
