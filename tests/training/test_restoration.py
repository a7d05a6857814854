"""Scale 1 from training to a published student: scored, selected, described."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from imdn_kd import zoo
from imdn_kd.config.options import read_options
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.evaluation.benchmark import benchmark, bicubic, open_upsamplers
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import load_model
from imdn_kd.release.publish import publish
from imdn_kd.training.schema import TrainOptions
from tests.fake_set import picture
from tests.refused import refused
from tests.training.small_runs import content, metrics, train

NOISE = {"type": "noise", "sigma": 25}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with photographs, the option file `denoise.yml`, and the run that was trained by it."""
    root = tmp_path_factory.mktemp("denoise")
    options = PrepareOptions(
        source="sample", scale=[1.0], degradation=[{**NOISE, "sigma": 25.0}], output=str(root / "sample.store")
    )
    write_dataset(options, open_source(options, root=root), root=root)
    for seed, name in enumerate(("held_out", "tested")):
        write_image(root / name / "HR" / "0.png", Picture(picture((36, 40), seed)))
    changes = {
        "name": "denoise",
        "scale": 1,
        "datasets": {
            "val": {"name": "held_out", "dataroot_gt": str(root / "held_out"), "degradation": [NOISE]},
            "test": {"name": "tested", "dataroot_gt": str(root / "tested"), "degradation": [NOISE]},
        },
        "network_g": {"type": "Plain", "num_feat": 8, "num_block": 1, "upscale": 1},
        "val": {"val_freq": 4, "select_on": "held_out"},
    }
    (root / "denoise.yml").write_text(yaml.safe_dump(content(root, changes)))
    train(read_options(root / "denoise.yml", TrainOptions), root / "runs")
    return root


def test_the_best_weights_are_kept_by_the_figures_of_benchmark(finished):
    scores = {
        line["step"]: line["scores"]["held_out"] for line in metrics(finished / "runs", "denoise") if "scores" in line
    }
    best = max(scores, key=lambda step: scores[step]["psnr"])
    path = finished / "runs" / "denoise" / "models" / "net_g_best_psnr.safetensors"
    model = load_model(path)
    assert (model.network.info.scale, model.training["updates"]) == (1, best)
    assert "- restores: noise sigma 25\n" in model.card
    (found,) = benchmark(
        open_upsamplers([path], device="cpu"), [DataSource(finished / "held_out", steps=parse_steps("noise=25"))]
    )
    assert found.psnr == pytest.approx(scores[best]["psnr"], abs=1e-6)


def test_a_published_student_says_what_it_restores_and_enlarges_nothing(finished, tmp_path, monkeypatch):
    file = read_options(finished / "denoise.yml", TrainOptions)
    made = publish(file, Path("denoise.yml"), root=finished / "runs", folder=tmp_path, notes="Photographs.")
    card = zoo.card(made.path)
    assert "Restores photographs at their own size (noise sigma 25)" in card
    assert "| Data | Images | Inputs | input | denoise |" in card
    assert "Trained for inputs as it has seen (noise sigma 25)" in card
    assert "--scale" not in card
    clean = benchmark(
        open_upsamplers([made.path], device="cpu"), [DataSource(finished / "held_out", steps=parse_steps("noise=0"))]
    )[0]
    recorded = zoo.record(made.path)["clean"]
    assert recorded["set"] == file.val.select_on
    assert recorded["psnr"] == pytest.approx(clean.psnr, abs=0.02)
    assert f"Clean photographs ({recorded['set']}) come back with {recorded['psnr']:.1f} dB." in card
    noisy = benchmark([bicubic(1)], [DataSource(finished / "tested", steps=parse_steps("noise=25"))])[0]
    assert zoo.record(made.path)["bicubic"]["tested"]["psnr"] == round(noisy.psnr, 3)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    (student,) = zoo.students()
    assert (student.name, student.scale, student.fast) == ("denoise", 1, False)
    with refused("zoo.no-student"):
        zoo.defaults()
