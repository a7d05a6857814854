"""Files of PyTorch that unpack to more than they are; the sizes are those of zipfile."""

import io
import tracemalloc
import zipfile

import pytest
import torch

from imdn_kd.inference.weights import read_weights
from imdn_kd.training.checkpoint import load_state
from imdn_kd.utils import zips
from imdn_kd.utils.zips import inflates
from tests.refused import refused

BOMB = 8 * 2**20


def saved(weights):
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def packed_again(data, change=None, method=zipfile.ZIP_DEFLATED):
    """The same zip, compressed, with some members replaced by zeros of a length."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", method) as new:
        for info in old.infolist():
            length = next((length for end, length in (change or {}).items() if info.filename.endswith(end)), None)
            with new.open(info.filename, "w") as member:
                if length is None:
                    member.write(old.read(info))
                else:
                    for _ in range(length // 2**20):
                        member.write(bytes(2**20))
    return file.getvalue()


@pytest.fixture(scope="module")
def plain():
    return saved({"weight": torch.rand(64, 64), "bias": torch.zeros(64)})


@pytest.fixture(scope="module")
def bombs(plain):
    return {end: packed_again(plain, {end: BOMB}) for end in ("data/0", "data.pkl")}


@pytest.mark.parametrize("end", ["data/0", "data.pkl"])
def test_a_member_that_unpacks_to_much_is_not_unpacked(tmp_path, monkeypatch, bombs, end):
    monkeypatch.setattr(zips, "_SPARE", 2**20)
    path = tmp_path / "a.pth"
    path.write_bytes(bombs[end])
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with refused("model.inflates"):
        read_weights(path)
    with refused("state.damaged"):
        load_state(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_pickle_is_bounded_by_itself(plain):
    assert inflates(io.BytesIO(packed_again(plain, {"data.pkl": 16 * 2**20}))) == f"a pickle of {16 * 2**20} bytes"


def test_members_that_lie_in_each_other_count_each_time(plain):
    """One piece of data that the index lists many times."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/0", bytes(2**20))
        info = archive.infolist()[0]
        archive.filelist += [info] * 200
    assert inflates(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_torch_saves_is_read_even_if_compressed_later(tmp_path, plain, method):
    (tmp_path / "a.pth").write_bytes(packed_again(plain, method=method))
    read, wanted = read_weights(tmp_path / "a.pth"), torch.load(io.BytesIO(plain), weights_only=True)
    assert read.keys() == wanted.keys() and all(torch.equal(read[key], wanted[key]) for key in wanted)


def test_other_files_do_not_unpack():
    for content in (b"", b"PK", b"PK\3\4 nothing", b"x" * 100, saved_the_old_way()):
        file = io.BytesIO(content)
        assert inflates(file) is None
        assert file.tell() == 0


def saved_the_old_way():
    file = io.BytesIO()
    torch.save({"weight": torch.rand(3)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()
