from __future__ import annotations

import json
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.data import store as store_module
from imdn_kd.data.store import Store, StoreDataset, is_store
from imdn_kd.data.store_writer import PlaneWriter, StoreWriter, add_plane
from tests.refused import refused

PLANES = {"gt": {"scale": "1"}, "lq_x2": {"scale": "2", "degradation": "given"}}
SIZES = ((6, 9), (4, 4), (11, 2))


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([height, width, seed]).integers(0, 256, (height, width, 3), np.uint8)


def write(folder: Path, sizes=SIZES) -> Path:
    folder.mkdir(exist_ok=True)
    writer = StoreWriter(folder, PLANES)
    writer.resume([])
    records = [
        writer.append(f"dir/bild_{number}é", f"{number:064}", {"gt": image(h, w), "lq_x2": image(h // 2, w // 2)})
        for number, (h, w) in enumerate(sizes)
    ]
    writer.finish(json.loads(json.dumps(records)), {"name": "test"})
    return folder


def test_what_is_written_is_read(tmp_path):
    store = Store(write(tmp_path))
    assert len(store) == 3
    assert store.planes == ("gt", "lq_x2")
    assert store.name(1) == "dir/bild_1é"
    assert store.source_sha256(2) == f"{2:064}"
    assert store.sizes("lq_x2").tolist() == [[3, 4], [2, 2], [5, 1]]
    assert store.lq_scales() == [Fraction(2)]
    for number, (height, width) in enumerate(SIZES):
        np.testing.assert_array_equal(store.image(number), image(height, width))
        np.testing.assert_array_equal(store.image(number, "lq_x2"), image(height // 2, width // 2))
    assert not list(store.verify())
    assert store.manifest["name"] == "test"


def test_numpy_alone_reads_it_as_the_docstring_says(tmp_path):
    """The recipe in the docstring is run as it stands."""
    lines = store_module.__doc__.splitlines()
    start = next(number for number, line in enumerate(lines) if "np.load" in line)
    code = "\n".join(line.strip() for line in lines[start : start + 3]).replace(
        "DIV2K.store/lq_x4", f"{write(tmp_path)}/lq_x2"
    )
    names = {"np": np}
    exec(code.replace("[7]", "[0]"), names)
    np.testing.assert_array_equal(names["image"], image(3, 4))


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=4))
def test_any_sizes(tmp_path_factory, sizes):
    store = Store(write(tmp_path_factory.mktemp("any"), sizes))
    assert [store.image(number).shape[:2] for number in range(len(store))] == sizes
    assert not list(store.verify())


def test_images_are_read_only_and_survive_giving_memory_back(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_RESIDENT_BYTES", 0)
    store = Store(write(tmp_path))
    first = store.image(0)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    for number in (0, 1, 2) * 20:
        store.image(number)
    np.testing.assert_array_equal(first, image(*SIZES[0]))


def test_can_be_pickled(tmp_path):
    store = pickle.loads(pickle.dumps(Store(write(tmp_path))))
    np.testing.assert_array_equal(store.image(1), image(4, 4))


def test_dataset_crops_the_original_to_the_factor(tmp_path):
    pairs = StoreDataset(scale=2, dataroot=write(tmp_path))
    assert (len(pairs), pairs.scale, pairs.name(0)) == (3, 2, "dir/bild_0é")
    planes = pairs.read(0)
    assert {name: plane.shape for name, plane in planes.items()} == {"gt": (6, 8, 3), "lq": (3, 4, 3)}
    np.testing.assert_array_equal(planes["gt"], image(6, 9)[:, :8])
    assert pairs.lq_sizes().tolist() == [[3, 4], [2, 2], [5, 1]]


@pytest.mark.parametrize(
    ("options", "there"), [({"scale": 3}, "(there: x2)"), ({"scale": 2, "planes": ("sr",)}, "it has gt, lq_x2")]
)
def test_dataset_that_is_not_there(tmp_path, options, there):
    with refused("store.no-plane") as caught:
        StoreDataset(dataroot=write(tmp_path), **options)
    assert there in str(caught.value)


def test_damage_is_found_and_named(tmp_path):
    write(tmp_path)
    data = bytearray((tmp_path / "lq_x2.npy").read_bytes())
    data[128 + 3 * 3 * 4 + 5] ^= 1  # in the second image
    (tmp_path / "lq_x2.npy").write_bytes(data)
    assert list(Store(tmp_path).verify()) == [f"{tmp_path}: dir/bild_1é is damaged in lq_x2.npy"]


def test_changed_index_is_found(tmp_path):
    write(tmp_path)
    images = np.load(tmp_path / "images.npy")
    images["name"][0] = b"other"
    np.save(tmp_path / "images.npy", images)
    assert len(list(Store(tmp_path).verify())) == 2  # once for each plane


def change_index(path: Path, field: str, value: int) -> None:
    index = np.load(path)
    index[field][1] = value
    np.save(path, index)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("manifest.json", Path.unlink, "store.not-found"),
        ("manifest.json", cut, None),
        ("manifest.json", lambda path: path.write_text("{}"), "store.not-found"),
        ("manifest.json", lambda path: path.write_text("[]"), "store.not-found"),
        ("manifest.json", lambda path: path.write_text("{"), "store.damaged"),
        (
            "manifest.json",
            lambda path: path.write_text(path.read_text().replace('sion": 1', 'sion": 9')),
            "store.version",
        ),
        ("images.npy", Path.unlink, "store.damaged"),
        ("images.npy", lambda path: path.write_bytes(b""), "store.damaged"),
        ("gt.npy", Path.unlink, "store.damaged"),
        ("gt.npy", cut, "store.damaged"),
        ("gt.npy", lambda path: path.write_bytes(b""), "store.damaged"),
        ("gt.index.npy", cut, "store.damaged"),
        ("gt.index.npy", lambda path: np.save(path, np.zeros(3)), "store.damaged"),
        ("gt.index.npy", lambda path: change_index(path, "height", 10**6), "store.damaged"),
        ("gt.index.npy", lambda path: change_index(path, "offset", -5), "store.damaged"),
        ("images.npy", lambda path: np.save(path, np.zeros(())), "store.damaged"),
        (
            "manifest.json",
            lambda path: path.write_text(path.read_text().replace('"planes"', '"plains"')),
            "store.damaged",
        ),
    ],
)
def test_incomplete_stores_are_refused_in_one_line(tmp_path, name, change, code):
    write(tmp_path)
    change(tmp_path / name)
    if code is None:  # the manifest ends with a line break
        Store(tmp_path)
        return
    with refused(code) as caught:
        Store(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unfinished_store_is_none(tmp_path):
    writer = StoreWriter(tmp_path, PLANES)
    writer.resume([])
    writer.append("a", "0", {"gt": image(2, 2), "lq_x2": image(1, 1)})
    writer.close()
    assert not is_store(tmp_path)


@pytest.mark.parametrize("left", ["half an image", "all and more", "damaged", "nothing"])
def test_writer_goes_on_after_what_is_intact(tmp_path, left):
    whole = write(tmp_path / "whole")
    folder = tmp_path / "cut"
    folder.mkdir()
    writer = StoreWriter(folder, PLANES)
    writer.resume([])
    planes = [{"gt": image(h, w), "lq_x2": image(h // 2, w // 2)} for h, w in SIZES]
    records = [writer.append(f"dir/bild_{n}é", f"{n:064}", planes[n]) for n in range(2)]
    writer.close()
    path = folder / "gt.npy"
    data = path.read_bytes()
    path.write_bytes(
        {
            "half an image": data[:-20],
            "all and more": data + b"more",
            "damaged": data[:-1] + bytes([data[-1] ^ 1]),
            "nothing": b"",
        }[left]
    )

    again = StoreWriter(folder, PLANES)
    kept = again.resume(records)
    assert kept == {"half an image": 1, "all and more": 2, "damaged": 1, "nothing": 0}[left]
    records = records[:kept] + [again.append(f"dir/bild_{n}é", f"{n:064}", planes[n]) for n in range(kept, 3)]
    again.finish(records, {"name": "test"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_add_plane_and_continue_it(tmp_path):
    write(tmp_path)
    asked = []

    def make(number: int) -> np.ndarray:
        asked.append(number)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return image(*SIZES[number], seed=1)

    with pytest.raises(KeyboardInterrupt):
        add_plane(tmp_path, "sr_teacher", make, description={"teacher": "abc"})
    assert Store(tmp_path).planes == ("gt", "lq_x2")
    (tmp_path / "sr_teacher.part" / "of an older version").write_text("left behind")
    store = add_plane(tmp_path, "sr_teacher", make, description={"teacher": "abc"})
    assert asked == [0, 1, 2, 2]
    assert store.planes == ("gt", "lq_x2", "sr_teacher")
    assert not list(store.verify())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []
    planes = StoreDataset(scale=2, dataroot=tmp_path, planes=("sr_teacher",)).read(0)
    np.testing.assert_array_equal(planes["sr_teacher"], image(6, 9, seed=1)[:, :8])

    add_plane(tmp_path, "sr_teacher", make, description={"teacher": "abc"})
    assert len(asked) == 4
    with refused("store.plane-exists"):
        add_plane(tmp_path, "sr_teacher", make, description={"teacher": "of later"})


def test_plane_of_another_teacher_is_not_continued(tmp_path):
    write(tmp_path)

    def fail(number: int) -> np.ndarray:
        if number:
            raise KeyboardInterrupt
        return image(*SIZES[number], seed=1)

    with pytest.raises(KeyboardInterrupt):
        add_plane(tmp_path, "sr", fail, description={"teacher": 1})
    store = add_plane(tmp_path, "sr", lambda n: image(*SIZES[n], seed=2), description={"teacher": 2})
    np.testing.assert_array_equal(store.image(0, "sr"), image(6, 9, seed=2))


def test_header_is_numpy_s(tmp_path):
    writer = PlaneWriter(tmp_path, "gt")
    writer.cut([])
    shapes = [writer.append(image(3, 5))]
    writer.finish(shapes)
    np.testing.assert_array_equal(np.load(tmp_path / "gt.npy"), image(3, 5).ravel())


_GROWTH = """
import resource, sys
from imdn_kd.data.store import StoreDataset
pairs = StoreDataset(scale=2, dataroot=sys.argv[1])
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, most = resident(), 0
for number in range(len(pairs)):
    for plane in pairs.read(number).values():
        plane.sum()
    most = max(most, resident() - before)
print(most)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_does_not_grow_with_the_store(tmp_path):
    write(tmp_path, [(1000, 1000)] * 70)  # 260 MB
    result = subprocess.run([sys.executable, "-c", _GROWTH, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 50e6
