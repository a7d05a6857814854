"""The option files that ship: each is accepted, says true things of itself, and trains on data by `prepare`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from imdn_kd.config.options import merged_options, read_options
from imdn_kd.data.preparation.job import default_output, open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.evaluation.profile import count
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.training.run import check
from imdn_kd.training.schema import TrainOptions
from tests.cli.run import run
from tests.fake_set import make_set, picture

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "options" / "distill" / "own_photos_x4.yml"
FINE_TUNING = ROOT / "options" / "train" / "finetune_x4.yml"
RECIPES = sorted(
    path
    for kind in ("train", "distill")
    for path in (ROOT / "options" / kind).glob("*.yml")
    if path not in (OWN, FINE_TUNING)
)
FILES = [*RECIPES, OWN, FINE_TUNING, *sorted((ROOT / "options").glob("*.yml"))]
NAMES = [path.stem for path in FILES]

X2 = Path("experiments/imdn_x2/models/net_g_best_psnr.safetensors")
X2_LATEST = X2.with_name("net_g_latest.safetensors")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with small data sets by the names that `imdn-kd prepare` gives, and the x2 network."""
    root = tmp_path_factory.mktemp("workplace")
    for seed in range(3):
        write_image(root / "photographs" / f"{seed}.png", Picture(picture((204, 216), seed)))
    for name in ("DIV2K", "photos", "sample"):
        output = default_output(name, "store", root / "datasets")
        options = PrepareOptions(source="folder", path=str(root / "photographs"), output=str(output))
        write_dataset(options, open_source(options, root=root), root=root)
    noisy = PrepareOptions(
        source="folder",
        path=str(root / "photographs"),
        scale=[1.0],
        degradation=[{"type": "noise", "sigma": 25.0}],
        output=str(default_output("sample_noise25", "store", root / "datasets")),
    )
    write_dataset(noisy, open_source(noisy, root=root), root=root)
    for name in ("DIV2K_valid", "sample_valid", "Set5", "Set14"):
        make_set(default_output(name, "folder", root / "datasets"), size=(48, 52))
    make_set(root / "photos_valid", hr="", size=(48, 52))
    for name in ("pairs", "pairs_valid"):
        make_set(root / name, size=(204, 216), lr="LR", lr_suffix=".png", scale=4)
    torch.save(ARCHS.build({"type": "imdn", "upscale": 4}).state_dict(), root / "IMDN_x4.pth")
    for path in (X2, X2_LATEST):
        save_model(root / path, ModelFile(ARCHS.build({"type": "imdn", "upscale": 2})))
    quickstart = root / "experiments" / "quickstart" / "models" / "net_g_latest.safetensors"
    save_model(quickstart, ModelFile(ARCHS.build({"type": "imdn_rtc", "upscale": 2})))
    return root


@pytest.fixture(params=FILES, ids=NAMES)
def file(request, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return request.param


def shrunk(options: TrainOptions) -> list[str]:
    """What makes a run of two updates of a recipe."""
    changes = ["train.total_iter=2", f"datasets.train.gt_size={8 * options.scale}", "logger.use_tb_logger=false"]
    changes += ["datasets.train.batch_size_per_gpu=2", "num_gpu=0"]
    changes += [] if options.val is None else ["val.val_freq=2"]
    # The teacher of this test has not been trained.
    changes += [] if options.distill is None else ["distill.check_images=0"]
    stops = {"mimic": "l_mimic", "fsp": "l_fsp"}.get(options.name)
    changes += [] if stops is None else [f"distill.objectives.{stops}.stop_iter=2"]
    return [word for change in changes for word in ("--set", change)]


def test_is_accepted_and_has_nothing_without_effect(file):
    options = read_options(file, TrainOptions)
    setup = check(options, root="runs")

    expected = set()
    if options.path.pretrained is not None:
        expected |= {key for key in setup.network.state_dict() if key.startswith("upsampler.")}
    said = ("num_gpu: there is no GPU here", "distill.cache: ", "datasets.train: all ")
    told = [line for line in setup.warnings if not line.startswith(said)]
    assert len(told) == len(expected)
    for key in expected:
        assert any(line.startswith(f"path.pretrain_network_g: not loaded: {key} is ") for line in told)


@pytest.mark.slow
def test_trains_and_leaves_a_model(file, tmp_path, capfd):
    options = read_options(file, TrainOptions)
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, *shrunk(options))

    assert result.code == 0, result.err
    selected = "best_psnr" if options.val else "latest"
    model = load_model(tmp_path / options.name / "models" / f"net_g_{selected}.safetensors")
    assert (model.network.info.scale, model.training["updates"]) == (options.scale, 2)
    for dataset in options.datasets.measured("test"):
        assert dataset.name in result.out


def test_says_how_it_is_run_and_what_it_costs(file):
    text = file.read_text()
    options = read_options(file, TrainOptions)
    network = ARCHS.build(options.network_g.spec())
    counts = count(network, (720 // options.scale, -(-1280 // options.scale)))
    costs = re.search(r"# Costs: ([\d,]+) parameters, ([\d.]+) G multi-adds", text)

    assert f"# imdn-kd train -opt {file.relative_to(ROOT)}\n" in text
    assert options.name == file.stem
    assert int(costs[1].replace(",", "")) == counts.parameters
    digits = len(costs[2].partition(".")[2])
    assert float(costs[2]) == pytest.approx(counts.multi_adds / 1e9, abs=0.51 * 10**-digits)
    assert "# Gives: experiments/" + file.stem in text


DISTILLED = [path for path in RECIPES if path.parent.name == "distill"]


@pytest.mark.parametrize("path", DISTILLED, ids=[path.stem for path in DISTILLED])
def test_distillation_differs_from_training_alone_in_teacher_and_objectives_only(path):
    alone = merged_options(ROOT / "options" / "train" / "imdn_rtc_x2.yml")
    file = merged_options(path)
    assert {"network_t", "distill"} <= file.keys()
    assert file.keys() - {"network_t", "distill"} == alone.keys()
    assert {key: file[key] for key in ("scale", "datasets", "network_g", "val", "logger")} == {
        key: alone[key] for key in ("scale", "datasets", "network_g", "val", "logger")
    }
    others = {"optim_a", "optim_d"} if {"optim_a", "optim_d"} & file["train"].keys() else {"pixel_opt"}
    assert {key: value for key, value in file["train"].items() if key not in others} == {
        key: value for key, value in alone["train"].items() if key not in others
    }


@pytest.mark.parametrize("path", RECIPES, ids=NAMES[: len(RECIPES)])
def test_selects_on_no_benchmark_and_reports_what_it_has_not_seen(path):
    options = read_options(path, TrainOptions)
    assert options.val.select_on == "DIV2K_valid"
    assert [each.name for each in options.datasets.measured("val")] == ["DIV2K_valid"]
    assert [each.name for each in options.datasets.measured("test")] == ["Set5", "Set14"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_recipe_of_the_paper(scale):
    options = read_options(ROOT / "options" / "train" / f"imdn_x{scale}.yml", TrainOptions)
    train, data = options.train, options.datasets.train
    assert (train.total_iter, data.gt_size, data.batch_size_per_gpu) == (1_000_000, 192, 16)
    assert (train.optim_g.type, train.optim_g.lr, train.pixel_opt.type) == ("Adam", 2e-4, "L1Loss")
    assert (train.scheduler.gamma, train.scheduler.milestones) == (0.5, [200_000, 400_000, 600_000, 800_000])
    assert (data.use_hflip, data.use_rot, train.ema_decay) == (True, True, 0)


@pytest.mark.parametrize("scale", [3, 4])
def test_without_weights_of_x2_a_recipe_can_be_run_from_scratch(scale, workplace, tmp_path, monkeypatch, capfd):
    (tmp_path / "datasets").symlink_to(workplace / "datasets")
    monkeypatch.chdir(tmp_path)
    file = ROOT / "options" / "train" / f"imdn_x{scale}.yml"

    result = run(capfd, "train", "-opt", file, "--check")
    assert result.code == 2
    assert result.err.startswith(f"imdn-kd: path.pretrain_network_g: {X2}: ")
    assert run(capfd, "train", "-opt", file, "--check", "--set", "path.pretrain_network_g=~").code == 0


def test_the_large_network_can_be_trained_in_two_steps(workplace, monkeypatch, capfd):
    monkeypatch.chdir(workplace)
    file = ROOT / "options" / "train" / "imdn_l_x4.yml"
    changes = ("name=imdn_l_x2", "scale=2", "network_g.upscale=2")
    result = run(capfd, "train", "-opt", file, "--check", *(word for each in changes for word in ("--set", each)))
    assert result.code == 0
    assert all(f"--set {each}" in file.read_text() for each in changes)


@pytest.mark.parametrize("path", sorted((ROOT / "options" / "quantize").glob("*.yml")), ids=lambda path: path.stem)
def test_options_for_8_bits_train_on_from_the_student_against_itself(path):
    options = read_options(path, TrainOptions)
    assert options.train.quantize is not None and options.name == path.stem
    (teacher,) = options.teachers()
    assert teacher.weights == options.path.pretrained
    shipped = load_model(ROOT / teacher.weights).network
    assert shipped.spec == ARCHS.build(options.network_g.spec()).spec
