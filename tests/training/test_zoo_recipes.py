"""The option files of the zoo: accepted, true to what they say, and they train."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from imdn_kd.config.options import read_options
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
from tests.training.small_runs import fake_clock

ROOT = Path(__file__).resolve().parents[2]
STUDENTS = sorted((ROOT / "options" / "zoo").glob("*.yml"))
HARMLESS = (
    "num_gpu: there is no GPU here; the run is on the CPU|train.compile: the norms of the gradients of single losses "
    r"are not logged|path\.pretrain_network_g: not loaded: (model\.2|tail)\."
)
"""What may be told of a file: only the tail depends on the factor."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with small data sets, teachers and students by the names that the files give."""
    root = tmp_path_factory.mktemp("workplace")
    for seed in range(3):
        write_image(root / "photographs" / f"{seed}.png", Picture(picture((264, 276), seed)))
    options = PrepareOptions(
        source="folder", path=str(root / "photographs"), scale=[2, 3, 4], output=str(root / "datasets" / "photos.store")
    )
    write_dataset(options, open_source(options, root=root), root=root)
    for name in ("kodak24", "edges", "Set5", "Set14"):
        make_set(default_output(name, "folder", root / "datasets"), size=(48, 60))
    for path in STUDENTS:
        options = read_options(path, TrainOptions)
        for teacher in options.teachers():
            save_model(root / teacher.weights, ModelFile(ARCHS.build({"type": "imdn_rtc", "upscale": options.scale})))
        if options.path.pretrained is not None:
            scale = re.search(r"_x(\d)\.", str(options.path.pretrained))
            network = {**options.network_g.spec(), "upscale": int(scale[1])}
            save_model(root / options.path.pretrained, ModelFile(ARCHS.build(network)))
    return root


@pytest.fixture(params=STUDENTS, ids=[path.stem for path in STUDENTS])
def file(request, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return request.param


@pytest.mark.slow
def test_is_accepted_and_has_nothing_without_effect(file):
    setup = check(read_options(file, TrainOptions), root="runs")
    for line in setup.warnings:
        assert re.match(HARMLESS, line), line


def shrunk(options: TrainOptions) -> list[str]:
    """What makes small patches of those of a recipe."""
    changes = [f"datasets.train.gt_size={8 * options.scale}", "datasets.train.batch_size_per_gpu=2", "num_gpu=0"]
    changes += ["logger.use_tb_logger=false", "train.compile=false"]
    if options.distill is not None:
        # The teacher of this test has not been trained.
        changes += ["distill.check_images=0"]
        changes += [f"distill.objectives.{name}.start_iter=0" for name in options.distill.objectives]
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.slow
def test_trains_and_leaves_a_model(file, tmp_path, capfd):
    options = read_options(file, TrainOptions)
    changes = ("train.total_iter=2", "train.scheduler.periods=[2]", "train.scheduler.restart_weights=[1]")
    few = [word for change in (*changes, "val.val_freq=2") for word in ("--set", change)]
    result = run(capfd, "train", "-opt", file, "--root", tmp_path, *shrunk(options), *few)

    assert result.code == 0, result.err
    model = load_model(tmp_path / options.name / "models" / "net_g_best_psnr.safetensors")
    assert (model.network.info.scale, model.training["updates"]) == (options.scale, 2)


@pytest.mark.slow
def test_the_commands_of_the_documentation_train_a_piece_and_publish_it(workplace, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(workplace)
    commands = re.findall(r"^imdn-kd (.+ -opt options/zoo/(\w+)\.yml.*)$", (ROOT / "docs" / "zoo.md").read_text(), re.M)
    assert [command.split()[0] for command, _ in commands] == ["train", "zoo"]
    (train, name), (publish, same) = commands
    assert name == same
    assert " --minutes 50" in train
    fake_clock(monkeypatch, seconds=300)
    file = ROOT / "options" / "zoo" / f"{name}.yml"
    here = [word.replace("options/zoo/", f"{ROOT}/options/zoo/") for word in f"{train} {publish}".split()]
    train_words, publish_words = here[: len(train.split())], here[len(train.split()) :]

    result = run(capfd, *train_words, "--root", tmp_path, *shrunk(read_options(file, TrainOptions)))
    assert result.code == 0, result.err
    result = run(capfd, *publish_words, "--root", tmp_path, "--to", tmp_path / "zoo")
    assert result.code == 0, result.err
    assert f"{name}.safetensors: published" in result.out
    assert (tmp_path / "zoo" / f"{name}.md").read_text().count("891 photographs") == 1


def test_says_how_it_is_run_and_what_it_costs(file):
    text, options = file.read_text(), read_options(file, TrainOptions)
    counts = count(ARCHS.build(options.network_g.spec()), (720 // options.scale, -(-1280 // options.scale)))
    costs = re.search(r"# Costs: ([\d,]+) parameters, ([\d.]+) G multi-adds", text)

    assert int(costs[1].replace(",", "")) == counts.parameters
    assert float(costs[2]) == pytest.approx(counts.multi_adds / 1e9, abs=0.051)
    assert f"# Gives: experiments/{options.name}" in text
    assert text.startswith(f"# make zoo STUDENT={file.stem} MINUTES=50\n# imdn-kd train -opt options/zoo/{file.name}\n")
    assert options.name == file.stem


def test_selects_on_no_benchmark_and_reports_what_it_has_not_seen(file):
    options = read_options(file, TrainOptions)
    assert options.val.selection[0] == "kodak24"
    assert {*options.val.selection} <= {"kodak24", "edges"}
    assert [each.name for each in options.datasets.measured("val")] == options.val.selection
    assert [each.name for each in options.datasets.measured("test")] == ["Set5", "Set14"]


@pytest.mark.parametrize("path", STUDENTS, ids=[path.stem for path in STUDENTS])
def test_the_periods_of_a_student_make_up_its_iterations(path):
    train = read_options(path, TrainOptions).train
    assert sum(train.scheduler.periods) == train.total_iter


def make(*words):
    return subprocess.run(
        ["make", "--no-print-directory", "-f", ROOT / "Makefile", *words], capture_output=True, text=True, check=False
    )


def test_a_pack_holds_the_data_and_the_teacher(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    shutil.copytree(ROOT / "options" / "zoo", "options/zoo", dirs_exist_ok=True)
    (tmp_path / "list.txt").write_text("photographs/0.png\nphotographs/2.png\n")
    words = ("pack", "PHOTOS=.", f"LIST={tmp_path}/list.txt", "STUDENT=imdn_s_x4", f"PACK={tmp_path}/pack.tar")

    large = make(*words, "PACK_LIMIT=1000")
    assert large.returncode == 2
    assert "larger than 60 MiB; give a shorter LIST" in large.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]

    assert make(*words).returncode == 0
    with tarfile.open(tmp_path / "pack.tar") as pack:
        names = {name for name in pack.getnames() if "." in name}
    assert {"datasets/pack/photographs/0.png", "datasets/pack/photographs/2.png"} < names
    assert {name for name in names if "teachers" in name} == {"experiments/teachers/DAT_light_x4_params.pth"}
    assert {name.split("/")[1] for name in names if name.startswith("datasets/")} == {
        "pack",
        "kodak24",
        "edges",
        "Set5",
        "Set14",
    }


def test_the_line_names_recipes():
    names = [
        line for line in (ROOT / "options" / "zoo" / "line.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    assert names
    assert {*names} <= {path.stem for path in STUDENTS}


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder where `make` finds photographs, two of which are to be selected on, and an environment."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/hq/a b.webp",
        "photos/c.png",
        "photos/d.png",
        "setup.py",
        "pyproject.toml",
        ".venv/.installed",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("options/zoo").mkdir(parents=True)
    Path("options/zoo/edges.txt").write_text("# large ones\nhq/a b.webp\n\nc.png\n")
    return tmp_path


def test_photographs_to_select_on_are_copied_and_not_trained_on(photographs):
    assert make("datasets/edges", "PHOTOS=photos").returncode == 0
    found = {path.name: path.read_text() for path in (photographs / "datasets" / "edges").iterdir()}
    assert found == {"a b.webp": "photos/hq/a b.webp", "c.png": "photos/c.png"}
    assert [path.name for path in (photographs / "datasets").iterdir()] == ["edges"]
    (command,) = (line for line in make("-n", "zoo", "PHOTOS=photos").stdout.splitlines() if " prepare folder " in line)
    assert "'photos' --scale 2 --scale 3 --scale 4" in command
    sets = ("kodak24", "edges", "Set5", "Set14")
    assert " ".join(f"--exclude-like datasets/{name}" for name in sets) in command


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ("photos", "photos/c.png: cannot be copied, but options/zoo/edges.txt lists it; give the folder that has it"),
        ("nowhere", "make zoo PHOTOS=FOLDER: give the folder of the training photographs"),
    ],
)
def test_photographs_to_select_on_that_are_missing_are_said(photographs, photos, message):
    (photographs / "photos" / "c.png").unlink()
    result = make("zoo", f"PHOTOS={photos}")
    assert (result.returncode, result.stderr.splitlines()[0]) == (2, message)
    assert not list(photographs.glob("datasets/*"))


def test_make_trains_the_next_student_or_the_one_that_is_named(photographs):
    make("datasets/edges", "PHOTOS=photos")
    (photographs / "datasets" / "photos.store").mkdir()
    for words, command in (
        ((), "zoo train  --minutes 50 "),
        (("STUDENT=imdn_s_x4", "MINUTES=5", "NOTES=n.md"), "zoo train imdn_s_x4 --minutes 5 --notes n.md"),
    ):
        assert make("-n", "zoo", *words).stdout == f".venv/bin/imdn-kd {command}\n"


def test_what_a_pack_lacks_is_said(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    (tmp_path / "list.txt").write_text("photographs/none.png\n")
    assert "give the list of photographs to pack" in make("pack", "PHOTOS=.").stderr
    assert make("pack", "PHOTOS=.", f"LIST={tmp_path}/list.txt", f"PACK={tmp_path}/pack.tar").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]
