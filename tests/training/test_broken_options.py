"""Option files with mistakes: each is told in one line that names the option, and nothing is begun."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from imdn_kd.image.io import Picture, write_image
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import needs_basicsr
from tests.cli.run import Result, run
from tests.fake_set import picture
from tests.training.small_runs import content, merged, with_validation

COSINE = {"type": "CosineAnnealingRestartLR", "milestones": None, "gamma": None}


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """What broken options name: folders of images, a damaged one, weights, a list of images."""
    root = tmp_path_factory.mktemp("things")
    for name, lq_size in (("pairs", (16, 18)), ("unequal", (32, 36))):
        for seed in range(2):
            write_image(root / name / "gt" / f"{seed}.png", Picture(picture((32, 36), seed)))
            write_image(root / name / "lq" / f"{seed}.png", Picture(picture(lq_size, seed)))
    write_image(root / "tiny" / "0.png", Picture(picture((8, 8))))
    for folder in ("empty", "damaged"):
        (root / folder).mkdir()
    (root / "damaged" / "0.png").write_bytes(b"nothing like an image")
    (root / "some.txt").write_text("0.png (32,36,3)\nabsent.png (32,36,3)\n")
    (root / "junk.pth").write_bytes(b"junk")
    network = ARCHS.build({"type": "IMDN", "num_feat": 16, "num_block": 2, "upscale": 2})
    torch.save({"params": network.state_dict()}, root / "wide.pth")
    torch.save({"params": {"x": torch.zeros(2)}}, root / "other.pth")
    return root


@pytest.fixture
def place(things, tmp_path, monkeypatch):
    """A folder with all of this to work in."""
    shutil.copytree(things, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capfd: pytest.CaptureFixture[str], place: Path, text: str | bytes, *words: object) -> list[str]:
    """What is said of an option file, without the beginning of the lines; checks what goes for all of them."""
    file = place / "run.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = sorted(place.rglob("*"))
    result = run(capfd, "train", "-opt", file, "--root", place / "runs", *words)
    assert sorted(place.rglob("*")) == before, "something was left"
    return told(result)


def told(result: Result) -> list[str]:
    assert (result.code, result.out) == (2, "")
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    assert lines
    assert all(line.startswith("imdn-kd: ") for line in lines)
    assert len(set(lines)) == len(lines), "something is told twice"
    return [line.removeprefix("imdn-kd: ") for line in lines]


def dump(data: Path, changes: dict[str, Any]) -> str:
    return yaml.safe_dump(merged(content(data, with_validation(data)), changes), sort_keys=False)


def train(**keys: Any) -> dict[str, Any]:
    return {"train": keys}


def cut(**keys: Any) -> dict[str, Any]:
    """Changes of `datasets.train`."""
    return {"datasets": {"train": keys}}


def folders(**keys: Any) -> dict[str, Any]:
    """Changes that train on folders."""
    pairs = {"dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq", "gt_size": 16}
    return cut(type="PairedImageDataset", dataroot=None, **{**pairs, **keys})


def val_set(**keys: Any) -> dict[str, Any]:
    return {"datasets": {"val": keys}}


IN_SCHEMA = {
    # Misspelt and unknown keys.
    "top": ({"scael": 2, "scale": None}, "no option is called 'scael'; did you mean 'scale'?"),
    "top unknown": ({"dropout": 1}, "no option is called 'dropout'; known: name, scale, "),
    "train": (
        train(totl_iter=2, total_iter=None),
        "train: no option is called 'totl_iter'; did you mean 'total_iter'?",
    ),
    "optimiser": (train(optim_g={"lr": None, "lrr": 1e-4}), "train.optim_g.lr: is missing"),
    "scheduler": (train(scheduler={"gama": 0.5}), "train.scheduler: no option is called 'gama'; did you mean 'gamma'?"),
    "train set": (
        cut(gt_sise=32, gt_size=None),
        "datasets.train: no option is called 'gt_sise'; did you mean 'gt_size'?",
    ),
    "io": (folders(io_backend={"typ": "disk"}), "datasets.train.io_backend: no option is called 'typ'; did you mean"),
    "name of train": (
        {"datasets": {"train": None, "trian": {"type": "StoreDataset", "gt_size": 32}}},
        "datasets: no option is called 'trian'; did you mean 'train'?",
    ),
    "name of a set": (
        {"datasets": {"check": {"name": "a"}}},
        "datasets: no option is called 'check'; data sets are called train, val, val_2, ... or test, test_2, ...",
    ),
    "val set": (val_set(datroot_gt="x"), "datasets.val: no option is called 'datroot_gt'; did you mean 'dataroot_gt'?"),
    "val": ({"val": {"val_frq": 3, "val_freq": None}}, "val: no option is called 'val_frq'; did you mean 'val_freq'?"),
    "metric": (
        {"val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_boarder": 2}}}},
        "val.metrics.psnr: no option is called 'crop_boarder'; did you mean 'crop_border'?",
    ),
    "path": ({"path": {"pretrained": "x"}}, "path: no option is called 'pretrained'; did you mean"),
    "logger": ({"logger": {"print_frek": 1}}, "logger: no option is called 'print_frek'; did you mean 'print_freq'?"),
    "wandb": (
        {"logger": {"wandb": {"projct": "x"}}},
        "logger.wandb: no option is called 'projct'; did you mean 'project'?",
    ),
    "loss": (train(perceptual_opt={"type": "x"}), "train: no option is called 'perceptual_opt'"),
    # Missing ones.
    "no name": ({"name": None}, "name: is missing"),
    "no network": ({"network_g": None}, "network_g: is missing"),
    "no type": ({"network_g": {"type": None}}, "network_g.type: is missing"),
    "no train": ({"train": None}, "train: is missing"),
    "no optimiser": (train(optim_g=None), "train.optim_g: is missing"),
    "no loss": (train(pixel_opt=None), "train: there is no loss; give pixel_opt"),
    "no data": (cut(dataroot=None), "datasets.train: StoreDataset needs dataroot"),
    "no partners": (folders(dataroot_lq=None), "datasets.train: PairedImageDataset needs dataroot_lq"),
    "no kind of data": (cut(type=None), "datasets.train.type: is missing"),
    "no batch": (cut(batch_size_per_gpu=None), "datasets.train.batch_size_per_gpu: is missing"),
    "no val_freq": ({"val": {"val_freq": None}}, "val.val_freq: is missing"),
    "no name of a set": (val_set(name=None), "datasets.val.name: is missing"),
    # Wrong kinds and ranges.
    "scale text": ({"scale": "two"}, "scale: is to be a whole number"),
    "scale 2.5": ({"scale": 2.5}, "scale: is to be a whole number"),
    "scale 0": ({"scale": 0}, "scale: is to be at least 1"),
    "true": (train(total_iter=True), "train.total_iter: is to be a whole number"),
    "total 0": (train(total_iter=0), "train.total_iter: is to be at least 1"),
    "lr text": (train(optim_g={"lr": "fast"}), "train.optim_g.lr: is to be a number"),
    "lr list": (train(optim_g={"lr": [1e-4]}), "train.optim_g.lr: is to be a number"),
    "lr 0": (train(optim_g={"lr": 0}), "train.optim_g.lr: is to be more than 0"),
    "lr negative": (train(optim_g={"lr": -1e-4}), "train.optim_g.lr: is to be more than 0"),
    "lr NaN": (train(optim_g={"lr": float("nan")}), "train.optim_g.lr: is to be a finite number"),
    "lr infinite": (train(optim_g={"lr": float("inf")}), "train.optim_g.lr: is to be a finite number"),
    "section is text": ({"train": "fast"}, "train: is to be a section of options"),
    "section is list": ({"datasets": ["a"]}, "datasets: is to be a section of options"),
    "milestones text": (
        train(scheduler={"milestones": ["x"]}),
        "train.scheduler.milestones.0: is to be a whole number",
    ),
    "milestones number": (
        train(scheduler={"milestones": 5}),
        "train.scheduler.milestones: is to be a list",
    ),
    "gamma 0": (train(scheduler={"gamma": 0}), "train.scheduler.gamma: is to be more than 0"),
    "scheduler unknown": (
        train(scheduler={"type": "StepLR"}),
        "train.scheduler.type: is to be MultiStepLR or MultiStepRestartLR or CosineAnnealingRestartLR or WarmupSt",
    ),
    "scheduler without type": (train(scheduler={"type": None}), "train.scheduler.type: is missing"),
    "loss weight 0": (
        train(pixel_opt={"loss_weight": 0}),
        "train.pixel_opt.loss_weight: is to be more than 0",
    ),
    "sum": (train(pixel_opt={"reduction": "sum"}), "train.pixel_opt.reduction: is to be 'mean'"),
    "ema 1": (train(ema_decay=1), "train.ema_decay: is to be less than 1"),
    "precision": (train(precision="fp8"), "train.precision: is to be 'fp32', 'bf16' or 'fp16'"),
    "clip 0": (train(grad_clip=0), "train.grad_clip: is to be more than 0"),
    "seed": ({"manual_seed": -1}, "manual_seed: is to be at least 0"),
    "huge seed": ({"manual_seed": 2**64}, "manual_seed: is to be at most 9223372036854775808"),
    "GPUs": ({"num_gpu": -1}, "num_gpu: give the number of GPUs, 0 for the CPU, or auto"),
    "all GPUs": ({"num_gpu": "all"}, "num_gpu: give the number of GPUs, 0 for the CPU, or auto"),
    "infinite GPUs": ({"num_gpu": float("inf")}, "num_gpu: give the number of GPUs, 0 for the CPU, or auto"),
    "model type": ({"model_type": "SRModle"}, "model_type: is to be 'SRModel' or 'SwinIRModel'"),
    "slash": ({"name": "a/b"}, "name: is to be the name of a folder: no slashes"),
    "empty name": ({"name": ""}, "name: is to be the name of a folder"),
    "dots": ({"name": ".."}, "name: is to be the name of a folder"),
    "long name": ({"name": "a" * 300}, "name: is to be the name of a folder: no slashes, 200 bytes at most"),
    "name is number": ({"name": 3}, "name: is to be text"),
    "batch 0": (
        cut(batch_size_per_gpu=0),
        "datasets.train.batch_size_per_gpu: is to be at least 1",
    ),
    "shuffle": (cut(use_shuffle=False), "datasets.train.use_shuffle: is to be True"),
    "yes": (cut(use_rot="yes"), "datasets.train.use_rot: is to be true or false"),
    "colour": (cut(color="n"), "datasets.train.color: is to be 'y'"),
    "stages": (
        cut(gt_sizes=[16, 32], mini_batch_sizes=[2], iters=[4, 4]),
        "datasets.train: gt_sizes, mini_batch_sizes and iters must be of one length",
    ),
    "kind of val set": (val_set(type="SingleImageDataset"), "datasets.val.type: SingleImageDataset has no HR images"),
    "metrics differ": (
        {"val": {"metrics": {k: {"type": f"calculate_{k}", "crop_border": b} for k, b in (("psnr", 2), ("ssim", 4))}}},
        "val: metrics differ in crop_border or test_y_channel; give all of them the same",
    ),
    "metric unknown": (
        {"val": {"metrics": {"mse": {"type": "calculate_mse", "crop_border": 2}}}},
        "val.metrics.mse.type: is to be 'calculate_psnr', 'calculate_ssim', 'calculate_niqe',",
    ),
    "key of weights": ({"path": {"param_key_g": 3}}, "path.param_key_g: is to be text"),
}
"""Mistakes that can be seen in the file alone: changes, and how the message begins after the name of file and line."""

IN_PLAN = {
    # Networks.
    "network": ({"network_g": {"type": "IMND"}}, "network_g: no network is called 'IMND'; did you mean 'IMDN'?"),
    "network option": (
        {"network_g": {"num_feet": 3}},
        "network_g: the network 'IMDN' has no option 'num_feet'; it takes: ",
    ),
    "network value": (
        {"network_g": {"num_feat": "many"}},
        "network_g: the network 'IMDN' cannot be built with num_feat",
    ),
    "huge network": ({"network_g": {"num_feat": 10**7}}, "network_g: the network 'IMDN' cannot be built with num_feat"),
    "other scale": ({"network_g": {"upscale": 4}}, "network_g: IMDN enlarges x4, but scale is 2"),
    "channels": ({"network_g": {"num_in_ch": 1}}, "network_g: takes images of 1 channels, but training images have 3"),
    # Losses, optimisers, schedulers.
    "loss": (train(pixel_opt={"type": "L1Los"}), "train.pixel_opt: no loss is called 'L1Los'; did you mean 'L1Loss'?"),
    "loss option": (train(pixel_opt={"epsi": 1}), "train.pixel_opt: the loss 'L1Loss' has no option 'epsi'"),
    "loss value": (
        train(pixel_opt={"type": "CharbonnierLoss", "eps": 0}),
        "train.pixel_opt: eps of CharbonnierLoss is 0; ",
    ),
    "second loss": (
        train(fft_opt={"type": "FFTLos"}),
        "train.fft_opt: no loss is called 'FFTLos'; did you mean 'FFTLoss'?",
    ),
    "optimiser": (
        train(optim_g={"type": "Adm"}),
        "train.optim_g: no optimiser is called 'Adm'; did you mean",
    ),
    "optimiser option": (
        train(optim_g={"betta": 1}),
        "train.optim_g: the optimiser 'Adam' has no option 'betta'; did you mean",
    ),
    "optimiser unfit": (train(optim_g={"type": "LBFGS"}), "train.optim_g: the optimiser 'LBFGS' cannot be used: "),
    "betas": (
        train(optim_g={"betas": [0.9, 1]}),
        "train.optim_g: the optimiser 'Adam' cannot be used with lr: 0.002, betas",
    ),
    "milestones descend": (
        train(scheduler={"milestones": [8, 4]}),
        "train.scheduler: milestones are 8, 4; give iterations from 0",
    ),
    "milestones negative": (
        train(scheduler={"milestones": [-4]}),
        "train.scheduler: milestones are -4; give iterations from 0",
    ),
    "restarts": (
        train(scheduler={"restarts": [0, 4], "restart_weights": [1]}),
        "train.scheduler: there are 2 restarts and 1 restart_weights; give one for each",
    ),
    "periods": (
        train(scheduler={**COSINE, "periods": [4, 8], "restart_weights": [1]}),
        "train.scheduler: there are 2 periods and 1 restart_weights; give one for each",
    ),
    "no periods": (
        train(scheduler={**COSINE, "periods": []}),
        "train.scheduler: periods are missing; give at least one",
    ),
    "eta_min": (
        train(scheduler={**COSINE, "periods": [12], "eta_min": 1.0}),
        "train.scheduler: the lowest rate is 500.0 of ",
    ),
    "fp16": (train(precision="fp16"), "train.precision: precision 'fp16' needs a GPU; use 'bf16' or 'fp32' on the CPU"),
    # Training data.
    "no store": (
        cut(dataroot="nowhere.store"),
        "datasets.train: nowhere.store: is not a store of images; make one with",
    ),
    "store is folder": (cut(dataroot="pairs"), "datasets.train: pairs: is not a store of images; make one with"),
    "no folder": (folders(dataroot_gt="nowhere"), "datasets.train: nowhere: is not a folder; check the name"),
    "no lq folder": (folders(dataroot_lq="nowhere"), "datasets.train: nowhere: is not a folder; check the name"),
    "folder is file": (folders(dataroot_gt="some.txt"), "datasets.train: some.txt: is not a folder; check the name"),
    "empty folder": (folders(dataroot_gt="empty"), "datasets.train: empty: has no images; check the name"),
    "template": (
        folders(filename_tmpl="{}x2"),
        "datasets.train: pairs/lq: has no LR image of 2 of 2 images, 0.png among them",
    ),
    "template without place": (
        folders(filename_tmpl="x2"),
        "datasets.train: filename_tmpl: 'x2' has no place for the name",
    ),
    "no list": (
        folders(meta_info_file="no.txt"),
        "datasets.train: no.txt: cannot be read (No such file or directory); give",
    ),
    "list": (
        folders(meta_info_file="some.txt"),
        "datasets.train: some.txt, line 2: lists absent.png, which is not in pairs/gt",
    ),
    "LMDB name": (
        folders(io_backend={"type": "lmdb"}),
        "datasets.train: pairs/gt: is not the name of an LMDB folder; give",
    ),
    "no LMDB": (
        folders(io_backend={"type": "lmdb"}, dataroot_gt="a.lmdb", dataroot_lq="b.lmdb"),
        "datasets.train: a.lmdb: no such folder; check the name",
    ),
    "patch and scale": (cut(gt_size=33), "datasets.train: gt_size is 33; scale 2 needs a multiple of 2: 32 or 34"),
    "patch 1": (cut(gt_size=1), "datasets.train: gt_size is 1; scale 2 needs a multiple of 2: 2"),
    "large patch": (cut(gt_size=4000), "datasets.train: gt_size is 4000, and no image is so large; give less"),
    "patch for network": (
        {**cut(gt_size=34), "network_g": {"type": "imdn_rte", "num_feat": None, "num_block": None, "upscale": None}},
        "datasets.train.gt_size: 34 gives inputs of 17 px, but the network needs at least 2 px and a multiple of 2",
    ),
    # Data to measure on.
    "no val folder": (
        val_set(dataroot_gt="nowhere"),
        "datasets.val: nowhere: no such folder, nor a data set in datasets",
    ),
    "no val set": (val_set(dataroot_gt=None), "datasets.val: held_out: no such folder, nor a data set in datasets"),
    "val is file": (val_set(dataroot_gt="some.txt"), "datasets.val: some.txt: is not a folder of images"),
    "val empty": (val_set(dataroot_gt="empty"), "datasets.val: empty: has no images; name the folder of the HR images"),
    "val damaged": (val_set(dataroot_gt="damaged"), "datasets.val: damaged/0.png: is not an image that can be read"),
    "val tiny": (val_set(dataroot_gt="tiny"), "datasets.val: tiny/0.png: 8x8 px are too few to be measured"),
    "no val lq": (val_set(dataroot_lq="nowhere"), "datasets.val: nowhere: is not a folder; check the name"),
    "val sizes": (
        val_set(dataroot_gt="unequal/gt", dataroot_lq="unequal/lq"),
        "datasets.val: unequal/lq/0.png: is 36x32 px, but x2 of 0.png needs 18x16; make it again",
    ),
    "second test set": (
        {"datasets": {"test_2": {"name": "a", "dataroot_gt": "nowhere"}}},
        "datasets.test_2: nowhere: no such folder, nor a data set in datasets",
    ),
    "second val set": (
        {"datasets": {"val_kodak": {"name": "a", "dataroot_gt": "tiny"}}},
        "datasets.val_kodak: tiny/0.png: 8x8 px are too few to be measured",
    ),
    "two of a name": (
        {"datasets": {"val_2": {"name": "held_out", "dataroot_gt": "pairs/gt"}}},
        "datasets.val_2: is called held_out, like datasets.val; give it another name",
    ),
    "select unknown": (
        {"val": {"select_on": "held-out"}},
        "val.select_on: no data set for validation is called 'held-out'",
    ),
    "select benchmark": (
        {**val_set(name="Set5"), "val": {"select_on": "Set5"}},
        "val.select_on: Set5 is a data set that results are reported on, and weights selected on it would flatter them",
    ),
    "select without sets": (
        {"datasets": {"val": None}, "val": {"select_on": "held_out"}},
        "val.select_on: no data set for validation is called 'held_out' (there: none)",
    ),
    # Weights and states.
    "no weights": (
        {"path": {"pretrain_network_g": "no.pth"}},
        "path.pretrain_network_g: no.pth: cannot read it (No such",
    ),
    "damaged weights": (
        {"path": {"pretrain_network_g": "junk.pth"}},
        "path.pretrain_network_g: junk.pth: not a model file",
    ),
    "other weights": (
        {"path": {"pretrain_network_g": "wide.pth"}},
        "path.pretrain_network_g: wide.pth: does not fit IMDN: IMDB1.c1.weight is (16, 16, 3, 3), not (8, 8, 3, 3)",
    ),
    "no fitting weights": (
        {"path": {"pretrain_network_g": "other.pth", "strict_load_g": False}},
        "path.pretrain_network_g: other.pth: no tensor in it fits IMDN; give weights of this network",
    ),
    "no key of weights": (
        {"path": {"pretrain_network_g": "wide.pth", "param_key_g": "params_ema"}},
        "path.pretrain_network_g: wide.pth: has no key 'params_ema', but: params; correct the key or leave it out",
    ),
    "no state": (
        {"path": {"resume_state": "no.state"}},
        "path.resume_state: no.state: there is no such training state",
    ),
    "damaged state": ({"path": {"resume_state": "junk.pth"}}, "path.resume_state: junk.pth: is damaged"),
    "other state": (
        {"path": {"resume_state": "wide.pth"}},
        "path.resume_state: wide.pth: is not a training state of",
    ),
}
"""Mistakes that show when what the file names is opened; these messages name the option alone."""


@pytest.mark.parametrize(("changes", "message"), IN_SCHEMA.values(), ids=IN_SCHEMA)
def test_a_mistake_in_the_file_is_told_with_its_line(changes, message, data, place, capfd):
    (line,) = refused(capfd, place, dump(data, changes))
    where, _, what = line.removeprefix(f"{place / 'run.yml'}, line ").partition(": ")
    assert what.startswith(message)
    assert 1 <= int(where) <= len((place / "run.yml").read_text().splitlines())


@pytest.mark.parametrize(("changes", "message"), IN_PLAN.values(), ids=IN_PLAN)
def test_a_mistake_in_what_is_named_is_told_with_its_option(changes, message, data, place, capfd):
    (line,) = refused(capfd, place, dump(data, changes))
    assert line.startswith(message)


def test_a_store_without_the_factor(data, place, capfd):
    changes = {"scale": 3, "network_g": {"upscale": 3}, **cut(gt_size=33)}
    (line,) = refused(capfd, place, dump(data, changes))
    assert line.startswith("datasets.train: ")
    assert line.endswith("has no LR images for x3 (there: x2); prepare it again with --scale 3, which adds them")


def test_a_set_that_is_tested_is_not_selected_on(data, place, capfd):
    tested = {"name": "other", "dataroot_gt": str(data / "held_out")}
    (line,) = refused(capfd, place, dump(data, {"datasets": {"test": tested}, "val": {"select_on": "held_out"}}))
    assert line.startswith("val.select_on: held_out is a data set that results are reported on")


def test_scale_1_needs_inputs_to_score(data, place, capfd):
    changes = {**folders(dataroot_lq="pairs/gt"), "scale": 1, "network_g": {"upscale": 1}}
    (line,) = refused(capfd, place, dump(data, changes))
    assert line.startswith("datasets.val: ")
    assert "at scale 1, bicubic images would be the HR images themselves" in line


@needs_basicsr
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {
                "type": "SwinIR",
                "window_size": 8,
                "embed_dim": 8,
                "depths": [1],
                "num_heads": [2],
                "upsampler": "pixelshuffle",
            },
            "datasets.train.gt_size: 36 gives inputs of 18 px, but the network needs at least 8 px and a multiple of 8",
        ),
        (
            {"type": "EDVR"},
            "network_g: EDVR of BasicSR is for video and is no super-resolution network of single images",
        ),
        ({"type": "EDSR", "num_in_ch": 3}, "network_g: the network 'EDSR' needs the option 'num_out_ch'; it takes: "),
    ],
)
def test_networks_of_basicsr(network, message, data, place, capfd):
    own = {"num_feat": None, "num_block": None}
    lines = refused(capfd, place, dump(data, {"network_g": {**own, **network}, **cut(gt_size=36)}))
    assert lines[0].startswith(message)
    assert len(lines) == 1


YAML = {
    "tab": ("scale: 2", "\tscale: 2", "is not plain YAML (found character '\\t'"),
    "not closed": ("scale: 2", "scale: [2", "is not plain YAML (expected ',' or ']'"),
    "two colons": ("scale: 2", "scale: 2: 3", "is not plain YAML (mapping values are not allowed here); correct it"),
    "indentation": ("  total_iter: 12", " total_iter: 12", "is not plain YAML (mapping values are not allowed here)"),
    "twin": ("scale: 2", "scale: 2\nscale: 3", "'scale' is given twice; keep one"),
    "deep twin": ("    lr: 0.002", "    lr: 0.002\n    lr: 0.1", "'lr' is given twice; keep one"),
    "itself": ("scale: 2", "scale: &a [*a]", "holds itself; correct it"),
    "python": ("scale: 2", "scale: !!python/object/apply:os.mkdir [pwned]", "is not plain YAML (could not determine a"),
    "include": (
        "name: run",
        "name: !include other.yml",
        "is not plain YAML (could not determine a constructor for the tag",
    ),
    "documents": ("scale: 2", "---\nscale: 2", "is not plain YAML (but found another document); correct it"),
    "alias": ("name: run", "name: *run", "is not plain YAML (found undefined alias 'run'); correct it"),
    "tag that does not fit": (
        "    lr: 0.002",
        "    lr: !!float fast",
        "is not plain YAML (it cannot be read); correct it",
    ),
    "number as key": ("scale: 2", "scale: 2\n3: 4", "no option is called '3'; known: name, scale, "),
    "braces": ("scale: 2", "scale: 2\n'{x}': 4", "no option is called '{x}'; known: name, scale, "),
}


@pytest.mark.parametrize(("old", "new", "message"), YAML.values(), ids=YAML)
def test_yaml_that_cannot_be_read(old, new, message, data, place, capfd):
    text = f"\n{dump(data, {})}"
    assert text.count(f"\n{old}") == 1
    (line,) = refused(capfd, place, text.replace(f"\n{old}", f"\n{new}"))
    assert line.startswith(f"{place / 'run.yml'}")
    assert message in line


def test_a_bomb_of_anchors_goes_off_harmlessly(data, place, capfd):
    levels = [
        f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    lines = refused(capfd, place, "\n".join(["a: &a [x, x]", *levels, dump(data, {})]))
    assert len(lines) == 9
    assert all(len(line) < 500 for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no options; write `key: value` lines"),
        ("# nothing\n", "holds no options; write `key: value` lines"),
        ("- a\n- b\n", "holds no options; write `key: value` lines"),
        ("hello\n", "holds no options; write `key: value` lines"),
        (bytes(range(256)), "cannot read it (it is not text); give the path of an option file (.yml)"),
    ],
)
def test_files_that_hold_no_options(text, message, place, capfd):
    assert refused(capfd, place, text) == [f"{place / 'run.yml'}: {message}"]


@pytest.mark.parametrize(("name", "reason"), [("absent.yml", "No such file or directory"), ("empty", "Is a directory")])
def test_files_that_are_none(name, reason, place, capfd):
    result = run(capfd, "train", "-opt", name, "--root", place / "runs")
    assert told(result) == [f"{name}: cannot read it ({reason}); give the path of an option file (.yml)"]
    assert not (place / "runs").exists()


OVERRIDES = {
    "train.total_iter": "--set train.total_iter: has no value; write KEY=VALUE",
    "=3": "--set =: has an empty key; write KEY=VALUE",
    "train..lr=3": "--set train..lr=: has an empty key; write KEY=VALUE",
    "scale=[": "--set scale: is not plain YAML",
    "scael=2": "--set scael: no option is called 'scael'; did you mean 'scale'?",
    "train.optim_g.lr=fast": "--set train.optim_g.lr: is to be a number",
    "train.optim_g.lr.x=1": "--set train.optim_g.lr.x: train.optim_g.lr is no section, but 0.002; give train",
    "train.scheduler.milestones.9=4": "--set train.scheduler.milestones.9: train.scheduler.milestones is a list",
    "train.scheduler.type=StepLR": "--set train.scheduler.type: is to be MultiStepLR or MultiStepRestartLR or Cos",
    "scale={a: 1, a: 2}": "--set scale: 'a' is given twice; keep one",
    "name=a/b": "--set name: is to be the name of a folder",
    "model_type=ESRGANModel": "--set model_type: ESRGANModel is not trained here, but SRModel and SwinIRModel",
    "datasets.extra={name: x}": "--set datasets.extra: no option is called 'extra'; data sets are called",
}


@pytest.mark.parametrize(("override", "message"), OVERRIDES.items(), ids=OVERRIDES)
def test_overrides(override, message, data, place, capfd):
    (line,) = refused(capfd, place, dump(data, {}), "--set", override)
    assert line.startswith(message)


def test_ten_mistakes_in_a_file_are_told_at_once_in_its_order(data, place, capfd):
    changes = {
        "name": "a/b",
        "scale": "two",
        "num_gpu": "all",
        "datasets": {"train": {"gt_sise": 32, "gt_size": None}, "val": {"type": "SingleImageDataset"}},
        "network_g": {"type": None},
        "train": {"total_iter": 0, "optim_g": {"lr": "fast"}, "scheduler": {"type": "StepLR"}, "warmup": 3},
    }
    lines = refused(capfd, place, dump(data, changes))
    assert len(lines) == 10
    numbers = [int(line.partition(", line ")[2].partition(":")[0]) for line in lines]
    assert numbers == sorted(numbers)
    words = (
        "a folder",
        "scale",
        "num_gpu",
        "gt_sise",
        "datasets.val.type",
        "network_g.type",
        "total_iter",
        "optim_g.lr",
    )
    for word in (*words, "train.scheduler", "'warmup'"):
        assert sum(word in line for line in lines) >= 1


def test_ten_mistakes_in_what_is_named_are_told_at_once(data, place, capfd):
    changes = {
        "datasets": {
            "train": {"dataroot": "nowhere.store"},
            "val": {"name": "Set5", "dataroot_gt": "tiny"},
            "val_2": {"name": "Set5", "dataroot_gt": "empty"},
            "test": {"name": "Set14", "dataroot_gt": "damaged"},
        },
        "network_g": {"num_feet": 3},
        "path": {"resume_state": "no.state"},
        "train": {
            "optim_g": {"type": "Adm"},
            "scheduler": {"milestones": [8, 4]},
            "pixel_opt": {"type": "L1Los"},
            "precision": "fp16",
        },
        "val": {"select_on": "Set6"},
    }
    options = [line.partition(": ")[0] for line in refused(capfd, place, dump(data, changes))]
    expected = ["network_g", "path.resume_state", "val.select_on"]
    expected += [f"train.{key}" for key in ("optim_g", "scheduler", "pixel_opt", "precision")]
    expected += ["datasets.train", "datasets.val", *["datasets.val_2"] * 2, "datasets.test"]
    assert sorted(options) == sorted(expected)


def test_names_that_are_unknown_are_told_with_mistakes_in_the_file(data, place, capfd):
    (place / "own.py").write_text("from imdn_kd.registry import ARCHS\n\n\n@ARCHS.register\ndef mine(): ...\n")
    changes = {
        **{"scael": 2, "imports": ["own.py"], "network_g": {"type": "minne"}, **cut(type="StoreDatset", dataroot=None)},
        "train": {"pixel_opt": {"type": "L1Los"}, "fft_opt": {"type": "FFTLoss"}, "total_iter": "many"},
        "network_t": [{"weights": "a.pth", "type": "IMND"}, {"weights": "b.pth"}],
        "distill": {"objectives": {"l_a": {"type": "L1Lss"}, "l_b": {"type": "UpcyclingTerm"}}},
    }
    lines = refused(capfd, place, dump(data, changes))
    places = [line.partition(": ")[0] for line in lines if not line.startswith(str(place))]
    assert places == ["network_g", "network_t.0", "datasets.train", "train.pixel_opt", "distill.objectives.l_a"]
    assert "did you mean 'mine'?" in lines[-5]
    assert len(lines) == 7
