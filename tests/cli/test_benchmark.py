from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from imdn_kd import zoo
from imdn_kd.archs.imdn import IMDN_RTC, imdn
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.rgb import read_rgb
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import needs_basicsr
from tests.cli.run import run as run_command
from tests.fake_set import make_set
from tests.shared_data import SHARED, needs_shared

OPTION_FILES = sorted((Path(__file__).parents[2] / "options" / "test").glob("*.yml"))


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Call `imdn-kd benchmark` in an empty folder; returns (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    return partial(run_command, capfd, "benchmark")


@pytest.fixture
def model(tmp_path):
    save_model(tmp_path / "tiny.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=2)))
    return "tiny.safetensors"


def rows(output: str) -> list[list[str]]:
    lines = [line for line in output.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@pytest.mark.parametrize(
    "data",
    [
        ["--data", "Set5", "--data", "Set14"],
        ["--data", "Set5", "Set14"],
        ["Set5", "Set14"],
        ["-d", "datasets/Set5", "datasets/Set14"],
    ],
)
def test_ways_to_name_data(run, model, tmp_path, data):
    for name in ("Set5", "Set14"):
        make_set(tmp_path / "datasets" / name)
    code, output, errors = run("--model", model, *data, "--device", "cpu")
    assert (code, errors) == (0, "")
    assert [row[:4] for row in rows(output)] == [["tiny", "x2", "Set5", "2"], ["tiny", "x2", "Set14", "2"]]


def test_reports(run, model, tmp_path):
    make_set(tmp_path / "mine", lr="LRbicx2")
    arguments = ("-m", model, "-m", "bicubic", "mine", "--device", "cpu", "--explain", "--save", "kept")
    code, output, errors = run(*arguments, "--json", "-o", "report/scores.md")
    assert (code, errors) == (0, "")
    data = json.loads(output)
    assert [score["model"] for score in data["scores"]] == ["bicubic", "tiny"]
    assert {other["name"] for other in data["scores"][1]["alternatives"]} >= {"rgb", "no-shave", "y-rounded"}
    assert "| bicubic | x2 | mine |" in Path("report/scores.md").read_text()
    assert len(list(Path("kept/x2/mine").iterdir())) == 4
    run("-m", "bicubic", "-s", "3", "mine", "-o", "scores.json")
    assert json.loads(Path("scores.json").read_text())["scores"][0]["lr_source"] == "MATLAB bicubic"


def test_lr_files_that_are_passed_over_or_shifted_are_told(run, tmp_path):
    make_set(tmp_path / "mine", lr="LRbicx2")
    shutil.copytree(tmp_path / "mine" / "LRbicx2", tmp_path / "mine" / "LR_unknown" / "X2")
    low = tmp_path / "mine" / "LRbicx2" / "birdx2.png"
    pixels = np.roll(read_rgb(low), 1, axis=1)
    write_image(low, Picture(pixels), overwrite=True)
    code, output, errors = run("-m", "bicubic", "-s", "2", "mine")
    assert code == 0
    over, shifted = errors.splitlines()
    assert over == "imdn-kd: mine x2: passed over: LR_unknown/X2 (not bicubic, by its name)"
    assert shifted.startswith("imdn-kd: mine x2: of the LR images in LRbicx2, 1 of 2 differ from MATLAB's bicubic")
    assert all(line.removeprefix("imdn-kd: ") in output for line in (over, shifted))
    assert "| LRbicx2 (files) |" in output


@pytest.mark.parametrize("file", OPTION_FILES, ids=lambda file: file.stem)
def test_every_option_file_runs(run, tmp_path, monkeypatch, file):
    content = yaml.safe_load(file.read_text())
    scale = content["scale"]
    for dataset in content["datasets"].values():
        root = Path(dataset["dataroot_gt"])
        parts = {"hr": root.name, "size": (36, 48)} if "dataroot_lq" in dataset else {"size": (40, 50)}
        folder = tmp_path / (root.parent if "dataroot_lq" in dataset else root)
        make_set(folder, lr=f"LRbicx{scale}", lr_suffix=".png", scale=scale, **parts)
    pretrained = content["path"]["pretrain_network_g"]
    if pretrained is None:
        save_model(tmp_path / "zoo.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=scale)))
        monkeypatch.setattr(zoo, "FOLDER", tmp_path)
        monkeypatch.setattr(zoo, "students", lambda: [zoo.Student("student", "zoo.safetensors", scale)])
    else:
        save_model(tmp_path / pretrained, ModelFile(imdn(upscale=scale)))
    code, output, errors = run("-opt", str(file), "--device", "cpu")
    assert (code, errors) == (0, "")
    assert [row[2] for row in rows(output)] == [dataset["name"] for dataset in content["datasets"].values()]
    assert all(row[1] == f"x{scale}" for row in rows(output))
    assert "Y (BT.601, 16-235, not rounded), `scale` px" in output
    kept = tmp_path / "experiments" / content["name"] / "visualization"
    assert kept.is_dir() == content.get("val", {}).get("save_img", False)


def test_niqe_is_said_not_to_be_measured(run, model, tmp_path):
    make_set(tmp_path / "mine")
    file = tmp_path / "niqe.yml"
    metrics = "{niqe: {type: calculate_niqe, crop_border: 2, better: lower}}"
    file.write_text(f"name: run\nscale: 2\ndatasets: {{test: {{name: mine}}}}\nval: {{metrics: {metrics}}}\n")
    code, _, errors = run("-opt", file.name, "-m", model, "-d", "mine", "--device", "cpu")

    assert code == 0
    assert errors == "imdn-kd: val.metrics.niqe is not measured; there are PSNR and SSIM\n"


EDSR = {
    "type": "EDSR",
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 4,
    "num_block": 1,
    "upscale": 2,
    "img_range": 255.0,
}
RRDBNET = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
SWINIR = {
    "type": "SwinIR",
    "upscale": 2,
    "in_chans": 3,
    "img_size": 8,
    "window_size": 4,
    "depths": [1],
    "num_heads": [1],
}
SET = {"name": "Set5", "type": "PairedImageDataset", "dataroot_gt": "datasets/Set5", "io_backend": {"type": "disk"}}
PSNR = {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False, "better": "higher"}
SUFFIX = "suffix: no effect; saved images are named IMAGE_MODEL.png"

# Written after the keys of BasicSR's option files for testing, of several years.
SHAPES = {
    "edsr": (
        {"network_g": EDSR, "val": {"save_img": True, "suffix": None, "metrics": {"psnr": PSNR}}},
        {"strict_load_g": True},
        ["path.param_key_g: not given; params_ema is measured, BasicSR: params", f"val.{SUFFIX}"],
    ),
    "key": (
        {"network_g": EDSR, "val": {"metrics": {"psnr": PSNR}}},
        {"param_key_g": "params", "strict_load_g": False},
        ["path.strict_load_g: no effect; weights always have to fit"],
    ),
    "gan": (
        {"network_g": {**RRDBNET, "scale": 2}, "model_type": "ESRGANModel", "num_gpu": 2},
        {"strict_load": True, "param_key_g": "params"},
        [
            "path.strict_load: no effect; weights always have to fit",
            "model_type: ESRGANModel is measured as SRModel: network_g alone, on whole images",
            "num_gpu: 2 GPUs are asked for; one is used",
        ],
    ),
    "old": (
        {"network_g": EDSR, "suffix": None, "crop_border": 4, "save_img": True},
        {"param_key_g": "params_ema"},
        [SUFFIX],
    ),
    "swinir": (
        {
            "network_g": {**SWINIR, "embed_dim": 4, "mlp_ratio": 2, "upsampler": "pixelshuffledirect"},
            "model_type": "SwinIRModel",
            "val": {"metrics": {"psnr": PSNR, "lpips": {**PSNR, "type": "calculate_lpips"}}},
        },
        {"param_key_g": "params"},
        [
            "model_type: SwinIRModel is measured as SRModel: network_g alone, on whole images",
            "val.metrics.lpips is not measured; there are PSNR and SSIM",
        ],
    ),
}


@needs_basicsr
@pytest.mark.parametrize("shape", SHAPES)
def test_option_files_of_basicsr_are_accepted_and_differences_told(run, tmp_path, shape):
    content, path, notes = SHAPES[shape]
    make_set(tmp_path / "datasets" / "Set5")
    weights = ARCHS.build(content["network_g"]).state_dict()
    torch.save({"params": weights, "params_ema": weights}, tmp_path / "net_g.pth")
    place = "pretrain_model_g" if shape == "gan" else "pretrain_network_g"
    common = {"name": "run", "scale": 2, "num_gpu": 0, "manual_seed": 0, "model_type": "SRModel"}
    options = {**common, "datasets": {"test_1": SET}, **content, "path": {place: "net_g.pth", **path}}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(options))
    code, output, errors = run("-opt", "test.yml", "--device", "cpu")
    assert code == 0, errors
    assert sorted(errors.splitlines()) == sorted(f"imdn-kd: {note}" for note in notes)
    assert rows(output)[0][:3] == ["net_g", "x2", "Set5"]
    assert ("RGB" in output) == ("val" in content)
    assert ("4 px" in output) == (shape == "old")
    assert (tmp_path / "experiments" / "run" / "visualization").is_dir() == (shape in ("edsr", "old"))


def test_option_files_without_hr_images_or_for_video_are_refused(run, tmp_path):
    base = {"name": "run", "scale": 2, "datasets": {"test": {**SET, "type": "SingleImageDataset"}}}
    (tmp_path / "a.yml").write_text(yaml.safe_dump(base))
    code, _, errors = run("-opt", "a.yml")
    assert code == 2
    assert "imdn-kd upscale" in errors
    (tmp_path / "b.yml").write_text(yaml.safe_dump({**base, "model_type": "VideoRecurrentModel"}))
    assert run("-opt", "b.yml").code == 2


@needs_basicsr
def test_a_checkpoint_of_basicsr_is_measured_by_its_arch(run, tmp_path):
    make_set(tmp_path / "mine")
    torch.save({"params": ARCHS.build(EDSR).state_dict()}, tmp_path / "edsr.pth")
    arch = "EDSR: {num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 2}"
    code, output, errors = run("-m", "edsr.pth", "-m", "bicubic", "--arch", arch, "mine", "--device", "cpu")
    assert (code, errors) == (0, "")
    assert [row[0] for row in rows(output)] == ["bicubic", "edsr"]
    code, _, errors = run("-m", "edsr.pth", "mine")
    assert code == 2
    assert "--arch" in errors
    assert run("-m", "edsr.pth", "--arch", "[EDSR]", "mine").code == 2


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "psnr"), [("DCTLSA_x4.pt", 32.523)])
def test_teachers_have_their_figures_on_set5(run, name, psnr):
    pytest.importorskip("spandrel")
    code, output, _ = run("-m", SHARED / "weights" / "teachers" / name, SHARED / "benchmark" / "Set5", "--json")
    assert code == 0
    assert json.loads(output)["scores"][0]["psnr"] == pytest.approx(psnr, abs=0.002)


def test_options_on_the_command_line_go_first(run, model, tmp_path):
    make_set(tmp_path / "mine")
    (file,) = (file for file in OPTION_FILES if file.stem == "imdn_x4_basicsr")
    shutil.copy(file, tmp_path)
    code, output, _ = run("-opt", file.name, "-m", model, "-d", "mine", "-s", "2", "--device", "cpu")
    assert code == 0
    assert [row[:3] for row in rows(output)] == [["tiny", "x2", "mine"]]


def test_help(run):
    code, output, _ = run("--help")
    assert code == 0
    for option in ("--model", "--data", "-opt", "--explain", "--self-ensemble", "--json"):
        assert option in output


BAD_OPTIONS = "name: a\nscale: 2\ndatasets: {test_1: {name: mine}}\nnetwork_g: {type: imdn_rtc}\npath: {pretrain: x}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "none.pth", "mine"], "none.pth: no such model file"),
        (["-m", "tiny.safetensors"], "no data to score on"),
        (["-m", "tiny.safetensors", "Set5"], "Set5: no such folder, nor a data set in datasets"),
        (["-m", "tiny.safetensors", "tiny.safetensors", "mine"], "a second model needs a --model of its own"),
        (["-m", "tiny.safetensors", "empty"], "has no images"),
        (["-m", "tiny.safetensors", "broken"], "is not an image"),
        (["-m", "bicubic", "mine"], "say by which"),
        (["-m", "tiny.safetensors", "mine", "--device", "abacus"], "cannot be used here"),
        (["-m", "tiny.safetensors", "mine", "--precision", "fp16", "--device", "cpu"], "needs a GPU"),
        (["-m", "tiny.safetensors", "mine", "-o", "scores.txt"], ".md or .json"),
        (["-m", "tiny.safetensors", "mine", "-o", "mine.json"], "is a folder"),
        (["-m", "tiny.safetensors", "mine", "-o", "tiny.safetensors/x.json"], "cannot write there"),
        (["-m", "tiny.safetensors", "mine", "broken"], "is not an image"),
        (["-m", "tiny.safetensors", "mine", "other/mine", "--save", "sr"], "are called mine"),
        (["-opt", "date.yml"], "date.yml"),
        (["-opt", "none.yml"], "none.yml: cannot read it"),
        (["-opt", "bad.yml"], "bad.yml, line 5: path: no option is called 'pretrain'; did you mean"),
        (["-opt", "other.yml"], "holds a network of num_block 1, but num_block 5 was asked for"),
    ],
)
def test_errors_are_one_line(run, model, tmp_path, arguments, message):
    make_set(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.json").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no picture")
    make_set(tmp_path / "other" / "mine")
    (tmp_path / "bad.yml").write_text(BAD_OPTIONS)
    (tmp_path / "date.yml").write_text("manual_seed: 2001-99-99")
    (tmp_path / "other.yml").write_text(BAD_OPTIONS.replace("pretrain: x", f"pretrain_network_g: {model}"))
    before = sorted(tmp_path.rglob("*"))
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert errors.startswith("imdn-kd: ")
    assert sorted(tmp_path.rglob("*")) == before
