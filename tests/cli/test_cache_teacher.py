"""`imdn-kd cache-teacher` and `imdn-kd taps`."""

import json

import pytest
import torch
import yaml

from imdn_kd.data.store import Store
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from tests.cli.run import run
from tests.training.small_runs import content, make_data


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a store, a teacher and an option file."""
    folder = make_data(tmp_path_factory.mktemp("data"))
    torch.manual_seed(0)
    save_model(
        folder / "teacher.safetensors",
        ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 4})),
    )
    changes = {
        "network_t": {"weights": str(folder / "teacher.safetensors")},
        "distill": {"objectives": {"l_kd": {"type": "L1Loss"}}, "cache": True, "check_images": 0},
    }
    (folder / "run.yml").write_text(yaml.safe_dump(content(folder, changes)))
    return folder


def test_the_outputs_of_the_teacher_are_written_into_the_store_once(workplace, capfd):
    results = [run(capfd, "cache-teacher", "-opt", workplace / "run.yml") for _ in range(2)]

    assert [result.code for result in results] == [0, 0], results[0].err
    (plane,) = (plane for plane in Store(workplace / "sample.store").planes if plane.startswith("sr_x2_"))
    assert results[0].out == results[1].out == f"{workplace / 'sample.store'}: has {plane}\n"


def test_maps_of_features_are_cached_and_their_price_is_said(workplace, capfd):
    feature = "distill.objectives.l_kd={type: StatisticsLoss, taps: [block.1]}"
    checked = run(capfd, "train", "-opt", workplace / "run.yml", "--set", feature, "--check")
    assert checked.code == 0, checked.err
    assert "1 map of the teacher's features takes" in checked.out
    assert "s of CPU time an iteration" in checked.out
    result = run(capfd, "cache-teacher", "-opt", workplace / "run.yml", "--set", feature)
    assert result.code == 0, result.err
    (plane,) = (plane for plane in Store(workplace / "sample.store").planes if plane.startswith("map_x2_"))
    assert result.out == f"{workplace / 'sample.store'}: has {plane}\n"
    too_much = run(
        capfd, "cache-teacher", "-opt", workplace / "run.yml", "--set", feature, "--set", "distill.cache_limit=0"
    )
    assert (too_much.code, too_much.err.count("\n")) == (2, 1), too_much.err


def test_a_cache_must_be_asked_for(workplace, capfd):
    result = run(capfd, "cache-teacher", "-opt", workplace / "run.yml", "--set", "distill.cache=false")
    assert (result.code, result.err) == (2, "imdn-kd: distill.cache: is not asked for; set it to true\n")


def test_taps_shows_what_can_be_compared(workplace, capfd):
    result = run(capfd, "taps", "-opt", workplace / "run.yml")
    assert result.code == 0, result.err
    assert "| block.2 | IMDB2 | 8x64x96 |" in result.out
    assert "| IMDB4 | 8x64x96 |" in result.out
    assert "| sr | sr | 3x128x192 |" in result.out


def test_taps_without_a_teacher_and_as_json(workplace, capfd):
    result = run(
        capfd,
        "taps",
        "-opt",
        workplace / "run.yml",
        "--json",
        "--set",
        "network_t=~",
        "--set",
        "distill=~",
        "--set",
        "train.pixel_opt.type=MSELoss",
    )
    assert result.code == 0, result.err
    features = json.loads(result.out)["features"]
    assert [row["name"] for row in features] == ["head", "block.1", "block.2", "fusion", "body_out", "sr"]
    assert features[0]["student"] == "fea_conv"


def test_taps_names_what_is_wrong(workplace, capfd):
    result = run(capfd, "taps", "-opt", workplace / "run.yml", "--set", "network_t.weights=no.pth")
    assert result.code == 2
    assert result.err.startswith("imdn-kd: network_t: no.pth: no such model file")
    assert result.err.count("\n") == 1


def test_features_of_a_picture_are_drawn(workplace, tmp_path, capfd):
    picture = next((workplace / "held_out" / "HR").iterdir())
    target = tmp_path / "features.html"
    result = run(capfd, "taps", "-opt", workplace / "run.yml", "--picture", picture, "-o", target)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{target}: 48 drawings of 6 features; the student has random weights")
    assert target.read_text().count("<img ") == 48


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "page.html"],
        ["--picture", "no.png"],
        ["--picture", "PICTURE", "--json"],
        ["--picture", "PICTURE", "-o", "there.html"],
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(workplace, tmp_path, capfd, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("mine")
    picture = next((workplace / "held_out" / "HR").iterdir())
    given = [picture if each == "PICTURE" else each for each in options]
    result = run(capfd, "taps", "-opt", workplace / "run.yml", *given)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert (tmp_path / "there.html").read_text() == "mine"
    assert len([*tmp_path.iterdir()]) == 1
