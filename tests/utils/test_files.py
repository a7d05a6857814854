import os
from pathlib import Path

import pytest

from imdn_kd.utils.files import atomic_path, check_folder
from tests.refused import refused


def test_the_file_appears_whole_under_its_name(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("content")
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
        assert not target.exists()
    assert target.read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("before")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_permissions_are_those_of_a_new_file_and_those_of_the_process_stay(tmp_path, monkeypatch, mask):
    plain, target = tmp_path / "plain", tmp_path / "target"
    before = os.umask(mask)
    try:
        plain.write_text("x")
        # Even for a moment, another mask would give files of other threads other permissions.
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the mask is that of the process"))
        with atomic_path(target) as temporary:
            temporary.write_text("x")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert target.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_in_the_meantime_stays_unless_it_may_be_replaced(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")  # as FAT answers

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = tmp_path / "a.txt"
    with atomic_path(target, overwrite=False) as temporary:
        temporary.write_text("first")
    with refused("file.exists"), atomic_path(tmp_path / "b.txt", overwrite=False) as temporary:
        temporary.write_text("mine")
        (tmp_path / "b.txt").write_text("theirs")
    with refused("file.exists"), atomic_path(target, overwrite=False) as temporary:
        temporary.write_text("second")
    assert (target.read_text(), (tmp_path / "b.txt").read_text()) == ("first", "theirs")
    with atomic_path(target) as temporary:
        temporary.write_text("third")
    assert target.read_text() == "third"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_nothing_is_left_where_a_file_cannot_be_renamed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with refused("file.cannot-write"), atomic_path(tmp_path / "a.txt", overwrite=False) as temporary:
        temporary.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path):
    def fill():
        with atomic_path(tmp_path / "a.txt"):
            raise OSError(28, os.strerror(28))

    with refused("file.cannot-write"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with refused("file.cannot-write"), atomic_path(tmp_path / "file" / "a.txt"):
        pass


@pytest.mark.parametrize(
    "name", ["n" * 256, "there/" + "n" * 256, "new/" + "n" * 256, "n" * 256 + "/a", "file/a", "file/b/a"]
)
def test_what_cannot_be_written_is_known_before_the_work(tmp_path, name):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("x")
    with refused("file.cannot-write"):
        check_folder(tmp_path / name)
    with refused("file.cannot-write"), atomic_path(tmp_path / name):
        pass
    assert {path.name for path in tmp_path.rglob("*")} <= {"file", "there", "new"}
