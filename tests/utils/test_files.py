import os

import pytest

from imdn_kd.utils.files import atomic_path
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


def test_permissions_are_those_of_a_new_file(tmp_path):
    plain, target = tmp_path / "plain", tmp_path / "target"
    plain.write_text("x")
    with atomic_path(target) as temporary:
        temporary.write_text("x")
    assert target.stat().st_mode == plain.stat().st_mode


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
