from __future__ import annotations

import gzip
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imdn_kd.data.layouts.file_tree import DiskFile, FileTree, open_tree
from imdn_kd.errors import InputError

CONTENT = {
    f"Set5/HR/{name}.png": random.Random(name).randbytes(120_000)  # so that compressing them gains nothing
    for name in ("bird", "baby", "head")
}
NOISE = {
    "Set5/HR/notes.txt": b"-",
    "Set5/.hidden.png": b"-",
    "Set5/.cache/a.png": b"-",
    "__MACOSX/Set5/HR/._bird.png": b"-",
}


def zipped(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def written(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tarred(path: Path, content: dict[str, bytes]) -> Path:
    files = written(path.parent / "to_tar", content)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.add(files, ".")
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda tmp: written(tmp / "set", {**CONTENT, **NOISE}),
    "stored.zip": lambda tmp: zipped(tmp / "set.zip", {**CONTENT, **NOISE}, zipfile.ZIP_STORED),
    "zip": lambda tmp: zipped(tmp / "set.zip", {**CONTENT, **NOISE}),
    "tar": lambda tmp: tarred(tmp / "set.tar", {**CONTENT, **NOISE}),
    "tar.gz": lambda tmp: tarred(tmp / "set.tar.gz", {**CONTENT, **NOISE}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_folders_and_archives_look_the_same(tmp_path, kind):
    path = KINDS[kind](tmp_path)
    tree = open_tree(path)
    assert list(tree.files) == sorted(CONTENT)
    assert {name: file.read() for name, file in tree.files.items()} == CONTENT
    assert [file.size for file in tree.files.values()] == [len(CONTENT[name]) for name in sorted(CONTENT)]
    assert (tree.others, tree.ignored) == (("Set5/.hidden.png", "Set5/HR/notes.txt"), 2)
    separator = "/" if kind == "folder" else ":"
    assert tree.files["Set5/HR/bird.png"].label.endswith(f"{path.name}{separator}Set5/HR/bird.png")

    hr = tree.folder("Set5/HR")
    assert list(hr.files) == ["baby.png", "bird.png", "head.png"]
    assert (hr.others, hr.label, hr.folders()) == (("notes.txt",), f"{path}/Set5/HR", [])
    assert hr.path == (path / "Set5" / "HR" if kind == "folder" else None)
    assert tree.folders() == ["Set5"]
    assert tree.folder("Set5/H") is None


@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_the_same_archive(tmp_path, kind):
    tree = open_tree(KINDS[kind](tmp_path))
    names = sorted(CONTENT) * 60
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: tree.files[name].read(), names))
    assert read == [CONTENT[name] for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_stamps_differ_when_the_content_does(tmp_path, kind):
    name = "Set5/HR/bird.png"
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    path = KINDS[kind](tmp_path / "before")
    before = open_tree(path).files[name].stamp
    assert open_tree(path).files[name].stamp == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONTENT, name, CONTENT[name][::-1])
        after = open_tree(KINDS[kind](tmp_path / "after")).files[name].stamp
    assert before != after


def test_a_tar_with_links(tmp_path):
    folder = written(tmp_path / "links", {"a.png": b"first"})
    (folder / "b.png").hardlink_to(folder / "a.png")
    (folder / "c.png").symlink_to("a.png")
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        archive.add(folder, "links")
    tree = open_tree(tmp_path / "links.tar")
    assert {name: file.read() for name, file in tree.files.items()} == {
        "links/a.png": b"first",
        "links/b.png": b"first",
    }
    assert tree.others == ("links/c.png",)


def test_links_in_folders(tmp_path):
    written(tmp_path / "elsewhere", {"a.png": b"a"})
    folder = written(tmp_path / "set", {"sub/b.png": b"b"})
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "sub" / "round").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    tree = open_tree(folder)
    assert (list(tree.files), tree.others) == (["linked/a.png", "sub/b.png"], ("gone.png",))


def test_later_members_replace_earlier_ones(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"old")
        archive.writestr("a.png", b"new")
    assert open_tree(tmp_path / "a.zip").files["a.png"].read() == b"new"


def error_of(call: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def open_error(path: Path) -> InputError:
    return error_of(lambda: open_tree(path))


def test_no_archive(tmp_path):
    written(tmp_path, {"a.png": b"x", "empty.zip": b"", "a.png.gz": gzip.compress(b"x")})
    assert open_error(tmp_path / "gone").code == "data.not-found"
    assert open_error(tmp_path / "a.png").code == "archive.unknown-format"
    assert open_error(tmp_path / "empty.zip").code == "archive.unknown-format"
    assert open_error(tmp_path / "a.png.gz").code == "archive.damaged"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_cut_short_archives(tmp_path, kind):
    path = KINDS[kind](tmp_path)
    path.write_bytes(path.read_bytes()[: -len(CONTENT["Set5/HR/bird.png"]) // 2])
    assert open_error(path).code == "archive.damaged"


def test_a_tar_with_a_damaged_header(tmp_path):
    path = KINDS["tar"](tmp_path)
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[3].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 100] = b"\xff" * 100
    path.write_bytes(data)
    assert open_error(path).code == "archive.damaged"


def test_a_gz_with_damaged_content(tmp_path):
    path = KINDS["tar.gz"](tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert open_error(path).code == "archive.damaged"


@pytest.mark.parametrize("kind", ["stored.zip", "zip"])
def test_a_damaged_member_of_a_zip(tmp_path, kind):
    path = KINDS[kind](tmp_path)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("Set5/HR/bird.png").header_offset + 500
    data = bytearray(path.read_bytes())
    data[offset] ^= 255
    path.write_bytes(data)
    files = open_tree(path).files
    error = error_of(files["Set5/HR/bird.png"].read)
    assert error.code == "archive.damaged"
    assert "set.zip:Set5/HR/bird.png: " in str(error)
    assert files["Set5/HR/baby.png"].read() == CONTENT["Set5/HR/baby.png"]


def test_an_encrypted_zip(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": b"secret"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)
    assert error_of(open_tree(path).files["a.png"].read).code == "archive.cannot-unpack"


def test_a_file_that_goes_away(tmp_path):
    file = DiskFile(tmp_path / "a\nb.png")
    for call in (file.read, lambda: file.stamp, lambda: file.size):
        error = error_of(call)
        assert error.code == "file.cannot-read"
        assert "a b.png: " in str(error)


def test_a_tar_that_is_cut_while_in_use(tmp_path):
    path = KINDS["tar"](tmp_path)
    tree = open_tree(path)
    os.truncate(path, 1024)
    assert error_of(tree.files["Set5/HR/bird.png"].read).code == "archive.damaged"


def test_no_room_to_unpack(tmp_path, monkeypatch):
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    path = KINDS["tar.gz"](tmp_path)
    monkeypatch.setattr("imdn_kd.data.layouts.archives.tempfile.TemporaryFile", Full)
    assert open_error(path).code == "archive.cannot-unpack"
    assert "TMPDIR" in str(open_error(path))


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    def refuse(top: Path, onerror: Callable[[OSError], None], **_: object) -> list[FileTree]:
        onerror(PermissionError(13, "Permission denied", str(top)))
        return []

    monkeypatch.setattr("imdn_kd.data.layouts.file_tree.os.walk", refuse)
    assert open_error(tmp_path).code == "data.cannot-list"
