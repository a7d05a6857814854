"""BasicSR's own option files: they are read with the same meaning, what differs is said, and they train."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from imdn_kd.config.options import read_options
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.registry import ARCHS
from imdn_kd.training.run import check
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.warnings import config_warnings
from tests.basicsr_compat import import_basicsr, needs_basicsr
from tests.cli.run import run
from tests.fake_set import picture
from tests.training.small_runs import small_options

FOLDER = Path(__file__).parent / "basicsr_options"
FILES = sorted(FOLDER.glob("*.yml"))
REFUSED = sorted((FOLDER / "refused").glob("*.yml"))

ALWAYS = (
    "dist_params.backend: no effect; the launcher says how processes find each other",
    "dist_params.port: no effect; the launcher says how processes find each other",
    "datasets.train.dataset_enlarge_ratio: no effect; there are no epochs, every iteration draws its patches at random",
    "datasets.train.num_worker_per_gpu: threads rather than processes; which patches are cut is the same",
    "val.select_on: not given, so no weights are kept as the best ones; name a data set that is not reported",
)
SHUFFLE = ("datasets.train.use_shuffle: no effect; there are no epochs, every iteration draws its patches at random",)
FLIP = ("datasets.train.use_flip: read as use_hflip, as BasicSR calls it now",)
PATH = (
    "path.pretrain_model_g: read as pretrain_network_g, as BasicSR calls it now",
    "path.strict_load: read as strict_load_g, as BasicSR calls it now",
)
START = ("path.param_key_g: not given, so params_ema is taken if it is there; BasicSR takes params",)
NIQE = ("val.metrics.niqe: not measured; there are PSNR and SSIM",)
SWINIR = ("model_type: SwinIRModel is trained as SRModel; images are padded to its windows by repeating their edges",)
LATE = ("train.scheduler: what is to happen at 1600000 comes after total_iter, 1600000",)
PBAR = ("val.pbar: no effect",)
COLOURED = ", ".join(f"datasets.{key}.color" for key in ("val", "val_2", "val_3", "val_4"))
LUMA = (f"{COLOURED}: no effect; a network of one channel enlarges R, G and B one after the other",)
LMDB = tuple(
    f"datasets.train.{key}: no effect with LMDB, whose two sides have the same keys, all of them used"
    for key in ("meta_info_file", "filename_tmpl")
)
TO_2020, TO_2021 = SHUFFLE + FLIP + PATH, SHUFFLE + FLIP

TOLD = {
    "ecbsr_x2_2021": TO_2021 + LATE + PBAR + LUMA,
    "ecbsr_x4": SHUFFLE + LATE + PBAR + LUMA + LMDB,
    "ecbsr_x4_rgb_2021": TO_2021 + LATE + PBAR + LMDB,
    "edsr_lx2_2021": TO_2021,
    "edsr_lx3_2021": TO_2021 + START,
    "edsr_lx4_2020": TO_2020 + START,
    "edsr_mx2_2020": TO_2020,
    "edsr_mx3_2021": TO_2021 + START,
    "edsr_mx4_2020": TO_2020 + START,
    "msrresnet_x2_2021": TO_2021 + START,
    "msrresnet_x3_2020": TO_2020 + START,
    "msrresnet_x4": NIQE,
    "msrresnet_x4_2020": TO_2020,
    "rcan_x2_2021": TO_2021,
    "rrdbnet_psnr_x4_2020": TO_2020,
    "rrdbnet_psnr_x4_2021": TO_2021,
    "swinir_x2_2021": TO_2021 + SWINIR,
    "swinir_x4": SWINIR,
}
"""What is said of each file besides `ALWAYS`."""

SMALL = {
    "MSRResNet": {"num_feat": 8, "num_block": 1},
    "EDSR": {"num_feat": 8, "num_block": 1},
    "RCAN": {"num_feat": 16, "num_group": 1, "num_block": 1},
    "SwinIR": {"depths": [1], "embed_dim": 8, "num_heads": [2]},
    "RRDBNet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "ECBSR": {"num_block": 1},
}
"""Options of small networks."""

STARTS = {"001": ("MSRResNet", 4), "201": ("EDSR", 2), "204": ("EDSR", 2)}
"""The networks whose weights others start from, by how the names of their folders begin, with their factors."""


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request):
    return request.param


def read(file: Path, *overrides: str) -> TrainOptions:
    return read_options(file, TrainOptions, overrides)


def differences(theirs: Any, ours: Any, place: str = "") -> Iterator[str]:
    """What is in their options and not, with the same value, in ours."""
    if isinstance(theirs, Mapping):
        for key, value in theirs.items():
            yield from differences(value, ours.get(key, "nothing"), f"{place}.{key}")
    elif theirs != ours or isinstance(theirs, bool) != isinstance(ours, bool):
        yield f"{place} is {theirs!r}, not {ours!r}"


def test_every_file_is_expected():
    assert {file.stem for file in FILES} == set(TOLD)
    assert len(FILES) >= 14


@needs_basicsr
def test_has_the_values_that_basicsr_reads(file):
    loader, _ = import_basicsr("basicsr.utils.options").ordered_yaml()
    theirs = yaml.load(file.read_text(), Loader=loader)
    assert list(differences(theirs, read(file).model_dump())) == []


def test_what_differs_is_said_and_nothing_else(file):
    assert sorted(config_warnings(read(file))) == sorted(ALWAYS + TOLD[file.stem])


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("name=debug_x4", "name: 'debug' in it has no effect; BasicSR would validate and save every 8 iterations"),
        (
            "datasets.train.prefetch_mode=cuda",
            "datasets.train.prefetch_mode: no effect; threads cut patches ahead, for as long as the run lasts",
        ),
        (
            "datasets.train.persistent_workers=true",
            "datasets.train.persistent_workers: no effect; threads cut patches ahead, for as long as the run lasts",
        ),
        (
            "num_gpu=4",
            "num_gpu: 4 GPUs need as many processes, and batches are those of one GPU; "
            "start with torchrun --nproc_per_node 4 -m imdn_kd train ...",
        ),
        ("val.suffix=x", "val.suffix: no effect"),
        ("path.pretrain_network_g=a.pth", *START),
    ],
)
def test_other_differences_are_said(override, note):
    file = FOLDER / "msrresnet_x4.yml"
    before = config_warnings(read(file, "path.param_key_g=~"))
    assert set(config_warnings(read(file, "path.param_key_g=~", override))) - set(before) == {note}


def test_gpus_are_not_told_of_where_each_has_its_process(monkeypatch):
    file = FOLDER / "msrresnet_x4.yml"
    assert not [line for line in config_warnings(read(file, "num_gpu=4"), processes=4) if line.startswith("num_gpu")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datasets.train.use_flip=false", "datasets.train: use_flip is the older name of use_hflip"),
        ("path.pretrain_model_g=x.pth", "path: pretrain_model_g is the older name of pretrain_network_g"),
        ("path.strict_load=false", "path: strict_load is the older name of strict_load_g"),
    ],
)
def test_an_old_and_a_new_name_may_not_contradict_each_other(override, message):
    with pytest.raises(InputError) as caught:
        read(FOLDER / "msrresnet_x4.yml", override)
    assert message in str(caught.value)


def test_paths_begin_at_home_as_in_basicsr(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    places = ("datasets.train.dataroot_gt", "datasets.train.dataroot_lq", "datasets.val.dataroot_gt")
    places += ("datasets.val.dataroot_lq", "path.pretrain_network_g", "path.resume_state")
    options = read(FOLDER / "msrresnet_x4.yml", *(f"{place}='~/x'" for place in places)).model_dump()
    for place in places:
        value = options
        for key in place.split("."):
            value = value[key]
        assert value == str(tmp_path / "x")


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_what_is_not_trained_here_is_refused_in_a_few_lines(path, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    result = run(capfd, "train", "-opt", path)
    lines = result.err.splitlines()

    assert result.code == 2
    assert not list(tmp_path.iterdir())
    kind = yaml.safe_load(path.read_text())["model_type"]
    if kind != "SRModel":
        line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "model_type" in text)
        begin = f"imdn-kd: {path}, line {line}: model_type: {kind} is not trained here, but SRModel and SwinIRModel"
        assert len(lines) == 1
        assert lines[0].startswith(begin)
    elif "before_1.0" in path.name:
        for old, new in (
            ("niter", "total_iter"),
            ("num_worker", "num_worker_per_gpu"),
            ("batch_size", "batch_size_per_gpu"),
        ):
            assert any(f"'{old}'" in each for each in lines)
            assert any(new in each for each in lines)
        assert len(lines) == 6
    else:
        assert any("train.optim_g: the optimiser 'Adam' has no option 'scheduler'" in each for each in lines)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder to work in; makes small data and weights where the options look for them."""
    monkeypatch.chdir(tmp_path)

    def furnish(options: TrainOptions) -> None:
        data, scale = options.datasets.train, options.scale
        sides = pairs(scale)
        if data.io_backend.type == "lmdb":
            for place, images in zip((data.dataroot_gt, data.dataroot_lq), zip(*sides, strict=True), strict=True):
                make_lmdb(Path(place), images)
        else:
            make_folders(data.dataroot_gt, data.dataroot_lq, data.filename_tmpl or "{}", sides)
        if data.meta_info_file:
            Path(data.meta_info_file).parent.mkdir(parents=True)
            lines = [f"{number}.png ({gt.shape[0]},{gt.shape[1]},3)\n" for number, (gt, _) in enumerate(sides)]
            Path(data.meta_info_file).write_text("".join(lines))
        for dataset in options.datasets.measured("val"):
            make_folders(dataset.dataroot_gt, dataset.dataroot_lq, dataset.filename_tmpl or "{}", sides)
        if options.path.pretrained:
            make_weights(Path(options.path.pretrained))

    return furnish


def pairs(scale: int) -> list[tuple[Any, Any]]:
    originals = [picture((14 * scale, 16 * scale), seed) for seed in range(2)]
    return [(image, imresize(image, 1 / scale)) for image in originals]


def make_folders(gt: str, lq: str, template: str, sides: list[tuple[Any, Any]]) -> None:
    for number, (original, small) in enumerate(sides):
        write_image(Path(gt) / f"{number}.png", Picture(original))
        write_image(Path(lq) / f"{template.format(number)}.png", Picture(small))


def make_lmdb(path: Path, images: tuple[Any, ...]) -> None:
    """By BasicSR's own writer."""
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    maker = import_basicsr("basicsr.utils.lmdb_util").LmdbMaker(str(path), map_size=2**24)
    for number, image in enumerate(images):
        _, code = cv2.imencode(".png", image[..., ::-1])
        maker.put(code.tobytes(), f"{number:04}", image.shape)
    maker.close()


def make_weights(path: Path) -> None:
    """Those of a network of another factor, in a checkpoint of BasicSR."""
    kind, upscale = STARTS[path.parts[1][:3]]
    network = ARCHS.build({"type": kind, "num_in_ch": 3, "num_out_ch": 3, **SMALL[kind], "upscale": upscale})
    path.parent.mkdir(parents=True)
    torch.save({"params": network.state_dict()}, path)


def shrunk(options: TrainOptions) -> list[str]:
    """Overrides for two updates of a small network on the CPU."""
    changes = {f"network_g.{key}": value for key, value in SMALL[options.network_g.type].items()}
    changes |= {"num_gpu": 0, "train.total_iter": 2, "datasets.train.batch_size_per_gpu": 2}
    changes |= {"datasets.train.gt_size": 8 * options.scale, "datasets.train.num_worker_per_gpu": 1}
    changes |= {"logger.print_freq": 1, "logger.save_checkpoint_freq": 2, "logger.use_tb_logger": "false"}
    changes |= {"val.val_freq": 2}
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.slow
@needs_basicsr
def test_trains_and_validates(file, workplace, tmp_path, capfd):
    options = read(file)
    workplace(options)
    words = shrunk(options)
    if file.stem == "rcan_x2_2021":
        refused = run(capfd, "train", "-opt", file, *words)
        assert refused.code == 2
        assert refused.err == "imdn-kd: network_g: RCAN enlarges x4, but scale is 2\n"
        words += ["--set", "network_g.upscale=2"]
    result = run(capfd, "train", "-opt", file, *words)
    folder = tmp_path / "experiments" / options.name

    assert result.code == 0, result.err
    assert (folder / "models" / "net_g_2.pth").is_file()
    assert re.search(r"iter: 2, lr:.* l_pix: \d", result.err)
    for dataset in options.datasets.measured("val"):
        assert re.search(rf"iter: 2, validation on {dataset.name}: \d+\.\d+ dB, ", result.err)
    assert ("not loaded: " in result.err) == (options.path.pretrained is not None)
    saved = torch.load(folder / "models" / "net_g_2.pth", weights_only=True)
    assert set(saved) == ({"params", "params_ema"} if options.train.ema_decay else {"params"})


@needs_basicsr
def test_basicsr_loads_what_was_trained(workplace, tmp_path, capfd):
    file = FOLDER / "msrresnet_x4.yml"
    options = read(file)
    workplace(options)
    assert run(capfd, "train", "-opt", file, *shrunk(options)).code == 0

    spec = {**SMALL["MSRResNet"], "upscale": 4}
    theirs = import_basicsr("basicsr.archs.srresnet_arch").MSRResNet(**spec)
    saved = torch.load(tmp_path / "experiments" / options.name / "models" / "net_g_2.pth", weights_only=True)
    theirs.load_state_dict(saved["params_ema"], strict=True)


def test_gpus_that_are_left_idle_are_told_of(data, monkeypatch, tmp_path):
    told = "num_gpu: one of 8 GPUs is used; all with torchrun --nproc_per_node 8 -m imdn_kd train ..."
    options = small_options(data, {"num_gpu": "auto"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert told in check(options, root=tmp_path).warnings

    monkeypatch.setenv("WORLD_SIZE", "8")
    assert told not in check(options, root=tmp_path).warnings
