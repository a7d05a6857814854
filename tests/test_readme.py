"""Every example in the README is run as it stands, in a folder that holds the files it names."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from imdn_kd.archs import IMDN
from imdn_kd.config.options import check_options
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.distill.schema import DistillOptions, TeacherOptions
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.cli.run import run
from tests.fake_set import make_set, picture

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the examples name, small ones."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(IMDN(num_feat=8, num_block=1, upscale=4).state_dict(), "IMDN_x4.pth")
    Path("experiments/imdn_x2/models").mkdir(parents=True)
    teacher = ModelFile(IMDN(num_feat=16, num_block=2, upscale=2))
    save_model("experiments/imdn_x2/models/net_g_best_psnr.safetensors", teacher)
    names = ["photo.jpg", "holidays/beach.jpg", "datasets/Set5/HR/baby.png", "datasets/Set14/HR/man.png"]
    names += [
        f"downloads/{name}/HR/{number}.png" for name, count in (("Set5", 5), ("Set14", 14)) for number in range(count)
    ]
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture((48, 64), seed)).save(name)
    for name in ("DIV2K", "sample"):
        options = PrepareOptions(source="sample", scale=[2.0], name=name)
        write_dataset(options, open_source(options, root=tmp_path), root=tmp_path / "datasets")
    make_set(tmp_path / "datasets" / "DIV2K_valid", size=(64, 72))
    make_set(tmp_path / "datasets" / "sample_valid", size=(64, 72))
    Path("options").symlink_to(ROOT / "options")
    return tmp_path


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line and "options/zoo/" not in line]
"""Those for recipes of the zoo are run by tests/training/test_zoo_recipes.py, which has their data."""


def test_there_are_examples():
    assert len(COMMANDS) >= 8
    assert len(blocks("python")) >= 3


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, capfd):
    program, *arguments = shlex.split(command)
    assert program == "imdn-kd"
    if arguments[0] == "prepare":  # what it makes is not there yet
        for made in ("datasets/sample.store", "datasets/Set5"):
            shutil.rmtree(made)
        if "set14" in arguments:
            shutil.rmtree("datasets/Set14")
    if arguments[0] in ("train", "teach") and "options/distill/" in command:  # this teacher has learned nothing
        arguments += ["--set", "distill.check_images=0", "--set", "datasets.train.gt_size=32"]
    if arguments[0] == "train":  # as it stands, but for the time it takes; the log goes to the error stream
        result = run(capfd, *arguments, "--set", "train.total_iter=2")
        assert result.code == 0, result.err
        return
    result = run(capfd, *arguments)
    assert (result.code, result.err) == (0, "")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("code", blocks("python"))
def test_python(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_parts_of_option_files(text):
    content = yaml.safe_load(text)
    check_options(content.pop("network_t"), TeacherOptions, "README.md")
    check_options(content.pop("distill"), DistillOptions, "README.md")
    assert not content


def test_make_targets_and_links_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README):
        assert (ROOT / link).exists(), link
