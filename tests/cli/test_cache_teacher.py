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
