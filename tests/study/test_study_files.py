"""The option files of studies that ship: each can be run on the data that it names, and says true things of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imdn_kd.config.options import read_options
from imdn_kd.data.preparation.job import default_output, open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.evaluation.study.schema import StudyOptions
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.study import check_study, read_study
from tests.fake_set import make_set, picture

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "options" / "study").glob("*.yml"))
HARMLESS = (
    r"arms\.\w+: (num_gpu: there is no GPU here; the run is on the CPU"
    r"|distill\.cache: teachers run in every iteration, since .* more than distill\.cache_limit, 0;"
    r"|distill\.cache: \d maps? of the teacher's features)"
)
SMALL = ["options.datasets.train.batch_size_per_gpu=1"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with small data sets and teachers by the names that the files give."""
    root = tmp_path_factory.mktemp("workplace")
    write_image(root / "photographs" / "0.png", Picture(picture((204, 216))))
    for name in ("photos", "photos_bsds", "eco", "sample"):
        output = str(root / "datasets" / f"{name}.store")
        options = PrepareOptions(source="folder", path=str(root / "photographs"), scale=[2, 4], output=output)
        write_dataset(options, open_source(options, root=root), root=root)
    for name in ("kodak24", "edges", "Set5", "Set14", "sample", "sample_valid"):
        make_set(default_output(name, "folder", root / "datasets"), size=(48, 60))
    for scale, names in ((2, ["IMDN_x2.pth"]), (4, ["IMDN_x4.pth", "DAT_light_x4_params.pth", "DCTLSA_x4.pt"])):
        for name in names:
            network = ARCHS.build({"type": "IMDN", "num_feat": 8, "upscale": scale})
            save_model(root / "experiments" / "teachers" / name, ModelFile(network))
    return root


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_can_be_run_and_has_nothing_without_effect(path, workplace, monkeypatch):
    monkeypatch.chdir(workplace)

    lines = check_study(read_study(path, SMALL))

    assert [line for line in lines if not re.match(HARMLESS, line)] == []


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_says_how_it_is_run_and_what_it_costs(path):
    text, options = path.read_text(), read_options(path, StudyOptions)

    assert options.name == path.stem
    assert f"# imdn-kd study -opt options/study/{path.name}" in text
    assert options.seeds == [0, 1, 2]
    runs = re.search(r"# Costs: .*?(\d+) runs", text)
    assert runs is None or int(runs[1]) == len(options.seeds) * len(options.arms)
    assert all(arm.found or arm.source is None for arm in options.arms.values())
    # Two sentences on what the source found, where there is one.
    found = {name: arm.found for name, arm in options.arms.items() if arm.found}
    assert {name: len(re.findall(r"\.(?= |$)", text)) >= 2 for name, text in found.items()} == dict.fromkeys(
        found, True
    )
    assert all(arm.found for arm in options.arms.values() if arm.expect)
