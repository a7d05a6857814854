from __future__ import annotations

import gc
import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from imdn_kd.data import lmdb_io
from imdn_kd.data.lmdb_io import LmdbImages, LmdbWriter, check_key, common_keys, open_to_read
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, write_image
from tests.basicsr_compat import import_basicsr
from tests.fake_set import picture
from tests.refused import refused

lmdb = pytest.importorskip("lmdb")

KEYS = ["b", "sub/a-1", "c(2)"]


def pixels_of(key: str) -> np.ndarray:
    return picture((24 + KEYS.index(key), 31), seed=KEYS.index(key))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "gt.lmdb"
    with LmdbWriter(path) as writer:
        for key in KEYS:
            writer.put(key, pixels_of(key))
        writer.finish(KEYS)
    return path


def error_of(path: Path | str, key: str | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        images = LmdbImages(path)
        if key is not None:
            images.pixels(key)
    assert "\n" not in str(caught.value)
    return caught.value


def set_value(path: Path, key: str, value: bytes) -> None:
    gc.collect()  # readers in the traceback of an error
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key.encode(), value)


def test_what_is_written_is_read_in_its_order(folder):
    images = LmdbImages(str(folder))
    assert images.keys == ("b", "sub/a-1", "c(2)")
    assert images.shape("sub/a-1") == (25, 31, 3)
    assert images.read("b").startswith(b"\x89PNG")
    for key in KEYS:
        assert np.array_equal(images.pixels(key), pixels_of(key))
    assert (folder / "meta_info.txt").read_text().splitlines()[1] == "sub/a-1.png (25,31,3) 1"
    assert {path.name for path in folder.iterdir()} == {"data.mdb", "lock.mdb", "meta_info.txt"}


def test_basicsr_reads_what_is_written(folder):
    file_client = import_basicsr("basicsr.utils.file_client")
    img_util = import_basicsr("basicsr.utils.img_util")
    data_util = import_basicsr("basicsr.data.data_util")
    assert data_util.paths_from_lmdb(str(folder)) == KEYS
    client = file_client.FileClient("lmdb", db_paths=[str(folder)], client_keys=["gt"])
    for key in KEYS:
        assert np.array_equal(img_util.imfrombytes(client.get(key, "gt"))[..., ::-1], pixels_of(key))


def test_what_basicsr_writes_is_read(tmp_path):
    lmdb_util = import_basicsr("basicsr.utils.lmdb_util")
    colour = picture((24, 31), seed=3)
    opaque = np.dstack((colour, np.full((24, 31), 255, np.uint8)))
    for name, pixels in (("colour", colour), ("grey", colour[..., 0]), ("opaque", opaque)):
        write_image(tmp_path / "HR" / f"{name}.png", Picture(np.ascontiguousarray(pixels)))
    names = ["opaque", "grey", "colour"]
    path = str(tmp_path / "made.lmdb")
    lmdb_util.make_lmdb_from_imgs(str(tmp_path / "HR"), path, [f"{name}.png" for name in names], names, map_size=2**24)
    images = LmdbImages(path)
    assert list(images.keys) == names
    assert [images.shape(name)[2] for name in names] == [4, 1, 3]
    assert np.array_equal(images.pixels("colour"), colour)
    assert np.array_equal(images.pixels("opaque"), colour)
    assert np.array_equal(images.pixels("grey"), np.dstack([colour[..., 0]] * 3))


def read_all(images: LmdbImages) -> bool:
    return all(np.array_equal(images.pixels(key), pixels_of(key)) for key in images.keys)


@pytest.mark.processes
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_after_this_one_has(folder, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    images, other = LmdbImages(folder), LmdbImages(folder)
    assert read_all(images)
    assert read_all(other)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_all, [images, other, images]) == [True] * 3
    assert read_all(images)


def test_a_forked_process_reads_what_it_inherits(folder):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    images, other = LmdbImages(folder), LmdbImages(folder)
    assert read_all(images)
    inherited = open_to_read(folder)

    def read_anew() -> None:
        sys.exit(not (open_to_read(folder) is not inherited and read_all(images) and read_all(other)))

    # Not pickled on the way, unlike what is given to a pool.
    process = multiprocessing.get_context("fork").Process(target=read_anew)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert read_all(images)


def test_one_folder_serves_several_readers_and_threads(folder, tmp_path):
    (tmp_path / "link.lmdb").symlink_to(folder)
    readers = [LmdbImages(path) for path in (folder, folder, tmp_path / "link.lmdb")]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read_all, readers * 4))


def test_a_reader_lets_go_of_its_file(folder):
    images = LmdbImages(folder)
    images.read("b")
    del images
    lmdb.open(str(folder), readonly=True, lock=False).close()


def test_pickles_small_and_closed(folder):
    images = LmdbImages(folder)
    images.read("b")
    copy = pickle.loads(pickle.dumps(images))
    assert copy.keys == images.keys
    assert read_all(copy)


def test_writing_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "new" / "gt.lmdb"
    with pytest.raises(KeyboardInterrupt), LmdbWriter(path) as writer:
        writer.put("b", pixels_of("b"))
        writer.commit()
        writer.put("c(2)", pixels_of("c(2)"))
        raise KeyboardInterrupt
    assert error_of(path).code == "lmdb.incomplete"
    with LmdbWriter(path) as writer:
        assert writer.has("b")
        assert not writer.has("c(2)")
        assert not writer.has("not a key")
        writer.put("c(2)", pixels_of("c(2)"))
        assert writer.has("c(2)")
        writer.finish(["c(2)", "b"])
    assert LmdbImages(path).keys == ("c(2)", "b")
    assert read_all(LmdbImages(path))


def test_leaving_in_peace_commits(tmp_path):
    with LmdbWriter(tmp_path / "gt.lmdb") as writer:
        writer.put("b", pixels_of("b"))
    with LmdbWriter(tmp_path / "gt.lmdb") as writer:
        assert writer.has("b")


def test_the_map_grows_and_groups_are_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_io, "_GROUP_BYTES", 50_000)
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    with LmdbWriter(tmp_path / "gt.lmdb", map_size=2**16) as writer:
        for number, pixels in enumerate(noise):
            writer.put(f"{number}", pixels)
        writer.finish([f"{number}" for number in range(12)])
    images = LmdbImages(tmp_path / "gt.lmdb")
    assert all(np.array_equal(images.pixels(f"{number}"), noise[number]) for number in range(12))


@pytest.mark.parametrize("key", ["a.b", "a b", "", "Bär", "a\nb", "x" * 512])
def test_keys_that_basicsr_would_not_find_are_refused(tmp_path, key):
    with refused("lmdb.key") as caught, LmdbWriter(tmp_path / "gt.lmdb") as writer:
        writer.put(key, pixels_of("b"))
    assert "\n" not in str(caught.value)
    check_key("0001_s001")


def test_pixels_of_another_kind_are_refused(tmp_path):
    with LmdbWriter(tmp_path / "gt.lmdb") as writer:
        for wrong in (pixels_of("b")[..., 0], pixels_of("b").astype(np.uint16)):
            with pytest.raises(ValueError, match="H x W x 3"):
                writer.put("b", wrong)


def test_listing_what_was_not_put(tmp_path):
    with refused("lmdb.no-image"):
        LmdbWriter(tmp_path / "gt.lmdb").finish(["b"])


def test_places_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "file.lmdb").write_text("in the way")
    with refused("lmdb.cannot-write"):
        LmdbWriter(tmp_path / "file.lmdb")
    with refused("lmdb.name"):
        LmdbWriter(tmp_path / "gt")


def test_the_package_is_asked_for(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert error_of(folder).code == "lmdb.not-installed"
    with refused("lmdb.not-installed"):
        LmdbWriter(folder)


def test_folders_that_are_not_there(tmp_path):
    assert error_of(tmp_path).code == "lmdb.name"
    assert error_of(tmp_path / "none.lmdb").code == "lmdb.not-found"


@pytest.mark.parametrize(
    ("meta", "where"),
    [
        (b"b.png (24,31,3) 1\nb\n", ", line 2: "),
        (b"b.png\n", ", line 1: "),
        (b"b.png (24,31,3) 1\n\nb.png (24,31,3) 1\n", ", line 3: "),
        (b"\xff\xfe", ": "),
        (b"\n", ": "),
    ],
)
def test_unreadable_meta_info(folder, meta, where):
    (folder / "meta_info.txt").write_bytes(meta)
    error = error_of(folder)
    assert error.code == "lmdb.meta-info"
    assert f"meta_info.txt{where}" in str(error)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line", ["b.png (24, 31, 3)\r\n\r\n", "b.png\t(24,31,3)\t1\n"])
def test_lines_as_others_write_them(line, encoding, folder):
    (folder / "meta_info.txt").write_bytes(line.encode(encoding))
    assert LmdbImages(folder).shape("b") == (24, 31, 3)
    assert np.array_equal(LmdbImages(folder).pixels("b"), pixels_of("b"))


def test_images_that_are_only_listed(folder):
    with (folder / "meta_info.txt").open("a") as file:
        file.write(f"gone.png (24,31,3) 1\n{'long' * 200}.png (24,31,3) 1\n")
    error = error_of(folder)
    assert error.code == "lmdb.no-image"
    assert "2 of the 5 images" in str(error)


def test_missing_and_damaged_data(folder):
    data = (folder / "data.mdb").read_bytes()
    for content in (b"", b"no database" * 1000, data[: len(data) // 2]):
        (folder / "data.mdb").write_bytes(content)
        assert error_of(folder, "b").code == "lmdb.damaged"
    (folder / "data.mdb").unlink()
    assert error_of(folder).code == "lmdb.incomplete"


def test_open_elsewhere_in_this_process(folder):
    with lmdb.open(str(folder)):
        try:
            lmdb.open(str(folder), readonly=True, lock=False).close()
        except lmdb.Error:
            pass
        else:
            pytest.skip("this release of lmdb opens a file twice")
        assert error_of(folder, "b").code == "lmdb.damaged"
    assert read_all(LmdbImages(folder))


def test_absent_keys(folder):
    images = LmdbImages(folder)
    for key in ("none", "", "x" * 600, "Bär"):
        with refused("lmdb.no-image"):
            images.read(key)
    with refused("lmdb.no-image"):
        images.shape("none")


def test_values_that_do_not_fit(folder):
    set_value(folder, "b", b"no image")
    assert error_of(folder, "b").code == "image.unknown-format"
    set_value(folder, "b", b"")
    assert error_of(folder, "b").code == "image.empty"
    set_value(folder, "b", LmdbImages(folder).read("c(2)"))
    assert error_of(folder, "b").code == "lmdb.size"


def test_keys_in_common(folder, tmp_path):
    with LmdbWriter(tmp_path / "lq.lmdb") as writer:
        writer.put("b", pixels_of("b"))
        writer.finish(["b"])
    gt, lq = LmdbImages(folder), LmdbImages(tmp_path / "lq.lmdb")
    assert common_keys(gt, gt) == ["b", "c(2)", "sub/a-1"]
    for one, other in ((gt, lq), (lq, gt)):
        with refused("lmdb.different-images"):
            common_keys(one, other)
