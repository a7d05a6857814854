"""The students that ship, and what can be read of a student without its weights."""

from __future__ import annotations

import struct

import pytest
import torch

from imdn_kd import zoo
from imdn_kd.archs import IMDN_RTC
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from tests.refused import refused
from tests.zoo.small_zoo import make_zoo


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return make_zoo(tmp_path)


@pytest.mark.parametrize("student", zoo.students(), ids=lambda student: student.name)
def test_every_student_that_ships_is_whole(student):
    model = load_model(student.path)

    assert zoo.record(student.path) == model.training
    assert model.training["name"] == student.name == student.path.stem
    assert model.training["scale"] == student.scale == model.network.info.scale
    assert model.card == zoo.card(student.path) == student.path.with_suffix(".md").read_text(encoding="utf-8")
    assert model.training["parameters"] == sum(each.numel() for each in model.network.parameters())


def test_every_file_of_a_student_that_ships_is_in_the_index():
    files = {path.name for path in zoo.FOLDER.glob("*.safetensors")}

    assert files == {student.file for student in zoo.students()}


@pytest.mark.usefixtures("folder")
def test_the_first_of_a_scale_is_the_default_and_the_smallest_the_fast_one():
    assert {scale: student.name for scale, student in zoo.defaults().items()} == {2: "big_x2", 4: "only_x4"}
    assert {scale: student.name for scale, student in zoo.defaults(fast=True).items()} == {2: "small_x2", 4: "only_x4"}


def test_record_and_card_are_those_of_the_whole_file(folder):
    path = zoo.locate("big_x2")
    model = load_model(path)

    assert path == folder / "big_x2.safetensors"
    assert zoo.record(path) == model.training
    assert zoo.card(path) == model.card == "# big_x2\n"
    assert zoo.locate(path) == path


def test_an_unknown_student_is_said_with_those_that_there_are(folder):
    with refused("zoo.not-found"):
        zoo.locate("imdn_x9")
    (folder / "index.json").write_text("[]")
    with refused("zoo.not-found"):
        zoo.locate("imdn_x9")


@pytest.mark.parametrize("text", ["", "[", "{}{}", "[1]", '[{"name": "a"}]', "3", '[{"nane": 1}]'])
def test_a_damaged_index_is_one_line(folder, text):
    (folder / "index.json").write_text(text)
    with refused("zoo.damaged-index"):
        zoo.students()


def test_a_missing_index_is_one_line(folder):
    (folder / "index.json").unlink()
    with refused("zoo.damaged-index"):
        zoo.students()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"PK\x03\x04" + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 2) + b"\xff\xfe",
        struct.pack("<Q", 20) + b'{"__metadata__":null}'[:20],
        struct.pack("<Q", 21) + b'{"__metadata__":null}',
    ],
)
def test_what_is_no_model_file_of_ours_is_one_line(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    for read in (zoo.card, zoo.record):
        with refused("model.damaged"):
            read(path)


def test_files_that_cannot_be_opened_are_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with refused("model.cannot-read"):
            zoo.card(path)


def test_a_model_without_card_or_record_is_said(tmp_path):
    path = tmp_path / "net.safetensors"
    save_model(path, ModelFile(IMDN_RTC(num_feat=4, num_block=1), training={"updates": 5}))

    with refused("zoo.no-card"):
        zoo.card(path)
    with refused("zoo.not-a-student"):
        zoo.record(path)


def test_a_checkpoint_of_pytorch_is_said_to_be_none_of_ours(tmp_path):
    torch.save(IMDN_RTC(num_feat=4, num_block=1).state_dict(), tmp_path / "net.pth")
    with refused("model.damaged"):
        zoo.card(tmp_path / "net.pth")
