"""Models in folders and on the Hugging Face Hub, for which another folder stands: nothing leaves this machine."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from imdn_kd import zoo
from imdn_kd.archs import IMDN, Plain
from imdn_kd.inference.hub import CARD, CONFIG, MODEL
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.upscaler import Upscaler
from tests.fake_set import picture
from tests.refused import refused

FILES = {MODEL, CARD, CONFIG}


def plain(**given) -> ModelFile:
    torch.manual_seed(1)
    return ModelFile(Plain(num_feat=4, num_block=1, upscale=2).eval(), **given)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def header(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / CARD).read_text().split("---\n")[1])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A folder in the place of the Hub, and the calls of huggingface_hub that reach it."""
    library = pytest.importorskip("huggingface_hub")
    top = tmp_path / "hub"

    class Api:
        def __init__(self, token, **_):
            self.token = token

        def create_repo(self, repository, *, private, exist_ok):
            assert exist_ok
            if self.token != "mine":
                raise PermissionError("401: no\nsuch token")
            (top / repository).mkdir(parents=True, exist_ok=True)
            return library.RepoUrl(f"https://huggingface.co/{repository}")

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            assert commit_message
            shutil.copytree(folder_path, top / repo_id, dirs_exist_ok=True)

    def download(repository, file, **_):
        library.utils.validate_repo_id(repository)
        if not (top / repository / file).is_file():
            raise library.errors.EntryNotFoundError("404: there is\nno such entry")
        return str(top / repository / file)

    monkeypatch.setattr(library, "HfApi", Api)
    monkeypatch.setattr(library, "hf_hub_download", download)
    return top


@pytest.mark.parametrize(
    "model",
    [
        plain(card="# A card\n\nwith **text**"),
        plain(value_range=255.0),
        ModelFile(IMDN(num_feat=8, num_block=1, upscale=3).eval()),
        Plain(num_feat=4, num_block=1, upscale=4),
        "plain_m_x2",
    ],
    ids=["card", "range", "imdn", "network", "zoo"],
)
def test_a_folder_gives_the_same_pictures(tmp_path, model):
    upscaler = Upscaler(model)
    upscaler.save_pretrained(tmp_path / "student")
    again = Upscaler.from_pretrained(tmp_path / "student", device="cpu")
    pixels = picture((9, 14))

    assert names(tmp_path / "student") == FILES
    np.testing.assert_array_equal(again(pixels), upscaler(pixels))
    assert again.scale == upscaler.scale == json.loads((tmp_path / "student" / CONFIG).read_text())["scale"]
    assert header(tmp_path / "student")["library_name"] == "imdn_kd"


def test_files_of_ours_are_copied_byte_for_byte_and_keep_their_card(tmp_path):
    Upscaler("imdn_rtc_x2").save_pretrained(tmp_path, license="apache-2.0")
    student = zoo.find("imdn_rtc_x2")

    assert (tmp_path / MODEL).read_bytes() == student.path.read_bytes()
    assert zoo.card(student.path).rstrip() in (tmp_path / CARD).read_text()
    assert header(tmp_path)["license"] == "apache-2.0"


def test_official_weights_become_a_file_of_ours(tmp_path):
    network = IMDN(num_feat=8, num_block=1, upscale=2)
    torch.save(network.state_dict(), tmp_path / "IMDN_x2.pth")
    Upscaler(tmp_path / "IMDN_x2.pth").save_pretrained(tmp_path / "folder")

    assert load_model(tmp_path / "folder" / MODEL).network.spec == network.spec


def test_a_folder_is_written_again_but_no_other_folder(tmp_path):
    for license_ in (None, "mit"):
        Upscaler(plain()).save_pretrained(tmp_path / "mine", license=license_)
    assert header(tmp_path / "mine")["license"] == "mit"

    for name in (CARD, "notes.txt"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        (folder / name).write_text("of a project")
        with refused("hub.other-folder"):
            Upscaler(plain()).save_pretrained(folder)
        assert names(folder) == {name}
        assert (folder / name).read_text() == "of a project"


def test_what_cannot_be_saved(tmp_path):
    with refused("hub.many-models"):
        Upscaler().save_pretrained(tmp_path / "folder")
    (tmp_path / "file").touch()
    with refused("file.cannot-write"):
        Upscaler(plain()).save_pretrained(tmp_path / "file")


def test_what_cannot_be_loaded(tmp_path):
    with refused("hub.no-model"):
        Upscaler.from_pretrained(tmp_path)
    Upscaler(plain()).save_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / MODEL).write_bytes(b"nothing")
    with refused("model.not-a-model-file"):
        Upscaler.from_pretrained(tmp_path / "folder")


def test_the_hub_and_back(hub, tmp_path):
    save_model(tmp_path / "student.safetensors", plain())
    upscaler = Upscaler(tmp_path / "student.safetensors")
    address = upscaler.push_to_hub("me/student", token="mine", license="mit")

    assert address == "https://huggingface.co/me/student"
    assert names(hub / "me/student") == FILES
    assert 'from_pretrained("me/student")' in (hub / "me/student" / CARD).read_text()
    pixels = picture((6, 5))
    np.testing.assert_array_equal(Upscaler.from_pretrained("me/student")(pixels), upscaler(pixels))


def test_what_the_hub_says_is_one_line(hub):
    with refused("hub.upload") as caught:
        Upscaler(plain()).push_to_hub("me/student")
    assert "\n" not in str(caught.value)
    for name in ("me/none", "not a name", "a/b/c", "./none"):
        with refused("hub.no-model") as caught:
            Upscaler.from_pretrained(name)
        assert "\n" not in str(caught.value)


def test_without_the_extra_folders_work_and_the_hub_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    Upscaler(plain()).save_pretrained(tmp_path)
    assert Upscaler.from_pretrained(tmp_path).scale == 2
    for call in (lambda: Upscaler.from_pretrained("me/student"), lambda: Upscaler(plain()).push_to_hub("me/student")):
        with refused("hub.not-installed"):
            call()


def test_an_exported_file_is_refused(tmp_path, monkeypatch):
    from imdn_kd.inference.graph_file import GraphNetwork

    network = GraphNetwork.__new__(GraphNetwork)
    monkeypatch.setattr(Upscaler, "_source", lambda _: (Path("a.onnx"), SimpleNamespace(network=network)))
    with refused("hub.exported"):
        Upscaler(plain()).save_pretrained(tmp_path)
