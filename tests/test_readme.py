"""Every example in the README and in docs/ is run as it stands, in a folder that holds the files it names.

Blocks marked `sh`, `python` and `yaml` are run or checked; `bash` marks those that need several processes or machines.
"""

import math
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from imdn_kd.archs import IMDN, Plain
from imdn_kd.config.options import check_options, merged_options
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.training.schema import TrainOptions
from tests.cli.run import run
from tests.fake_set import make_set, picture
from tests.training.small_runs import merged

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
"""Texts by their paths."""


def blocks(language: str) -> list[Any]:
    """The blocks of a language, each named after its page."""
    found = []
    for name, text in PAGES.items():
        parts = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        found += [pytest.param(part, id=f"{name}-{number}") for number, part in enumerate(parts)]
    return found


def commands() -> list[Any]:
    """The lines of the `sh` blocks; `\\` at the end of a line joins the next."""
    found = []
    for block in blocks("sh"):
        lines = block.values[0].replace("\\\n", "").splitlines()
        # tests/training/test_zoo_recipes.py has the data for recipes of the zoo, and runs those.
        found += [line for line in lines if line and not line.startswith("#") and "options/zoo/" not in line]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The files that the examples name, small ones."""
    root = tmp_path_factory.mktemp("prepared")
    torch.manual_seed(0)
    for scale in (2, 4):
        torch.save(IMDN(num_feat=8, num_block=1, upscale=scale).state_dict(), root / f"IMDN_x{scale}.pth")
    teacher = ModelFile(IMDN(num_feat=16, num_block=2, upscale=2))
    (root / "experiments/imdn_x2/models").mkdir(parents=True)
    save_model(root / "experiments/imdn_x2/models/net_g_best_psnr.safetensors", teacher)
    names = ["photo.jpg", "holidays/beach.jpg", "datasets/Set5/HR/baby.png", "datasets/Set14/HR/man.png"]
    names += [
        f"downloads/{name}/HR/{number}.png" for name, count in (("Set5", 5), ("Set14", 14)) for number in range(count)
    ]
    names += ["datasets/photos_x2_valid/0.png", "datasets/kodak24/kodim01.png", "cleaned/beach.png"]
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture((48, 64), seed)).save(root / name)
    for name in ("DIV2K", "sample"):
        options = PrepareOptions(source="sample", scale=[2.0], name=name)
        write_dataset(options, open_source(options, root=root), root=root / "datasets")
        make_set(root / "datasets" / f"{name}_valid", size=(64, 72))
    for number in range(4):
        (root / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture((96, 80), 100 + number)).save(root / "photos" / f"{number}.png")
    noisy = PrepareOptions(
        source="sample", scale=[1.0], degradation=[{"type": "noise", "sigma": 25.0}], name="sample_noise25"
    )
    write_dataset(noisy, open_source(noisy, root=root), root=root / "datasets")
    save_model(
        root / "experiments/photos_x2/models/net_g_best_psnr.safetensors",
        ModelFile(Plain(num_feat=4, num_block=1, upscale=2)),
    )
    denoiser = root / "experiments/quickstart_denoise/models/net_g_best_psnr.safetensors"
    save_model(denoiser, ModelFile(Plain(num_feat=4, num_block=1, upscale=1)))
    (root / "options").symlink_to(ROOT / "options")
    return root


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """A copy of them to work in."""
    shutil.copytree(prepared, tmp_path / "work", symlinks=True)
    monkeypatch.chdir(tmp_path / "work")


def test_there_are_examples():
    assert len(commands()) >= 8
    assert len(blocks("python")) >= 3


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", commands())
def test_commands(command, capfd, monkeypatch):
    monkeypatch.setattr("imdn_kd.cli.progress._LINE_EVERY", math.inf)  # of which a slow machine prints lines
    program, *arguments = shlex.split(command)
    assert program == "imdn-kd"
    if arguments[0] == "prepare":  # what it makes is not there yet
        for made in ("datasets/sample.store", "datasets/sample_noise25.store", "datasets/Set5"):
            shutil.rmtree(made)
        if "set14" in arguments:
            shutil.rmtree("datasets/Set14")
    monkeypatch.setattr("imdn_kd.training.own_photos.seconds_of_iteration", lambda *_: 0.1)
    if "photos_x2.yml" in arguments:
        assert run(capfd, "init", "photos", "--scale", "2").code == 0
    if arguments[0] in ("train", "cache-teacher") and "options/distill/" in command:  # this teacher has learned nothing
        arguments += ["--set", "distill.check_images=0", "--set", "datasets.train.gt_size=32"]
    if arguments[0] == "train":  # as it stands, but for the time it takes; the log goes to the error stream
        result = run(capfd, *arguments, "--set", "train.total_iter=2")
        assert result.code == 0, result.err
        return
    if arguments[0] == "export":
        for package in import_module(f"imdn_kd.inference.export.{arguments[arguments.index('--to') + 1]}").PACKAGES:
            pytest.importorskip(package)
    if arguments[0] == "profile":
        arguments = [word for word in arguments if not re.fullmatch(r"--size|\d+x\d+", word)]
        arguments += ["--size", "64x36", "--runs", "1"]
    result = run(capfd, *arguments)
    # On a slow machine progress is told.
    said = [line for line in result.err.splitlines() if not re.fullmatch(r"imdn-kd: \d+ of \d+ done, .* left", line)]
    assert (result.code, said) == (0, [])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("code", blocks("python"))
def test_python(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_parts_of_option_files(text, tmp_path):
    (tmp_path / "part.yml").write_text(text)
    whole, part = map(merged_options, (ROOT / "options/quickstart_distill.yml", tmp_path / "part.yml"))
    check_options(merged(whole, part), TrainOptions, "options")


@pytest.mark.parametrize("name", PAGES)
def test_make_targets_and_links_exist(name):
    text, makefile = PAGES[name], (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make ([\w-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / name).parent / link).exists(), link
