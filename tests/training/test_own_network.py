"""A network and a loss from a file of the user: training, distillation, resuming, cropping, model files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from imdn_kd.archs import SRNetwork
from imdn_kd.inference.model_file import load_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.registry import ARCHS, DATASETS, LOSSES
from tests.cli.run import run
from tests.fake_set import picture
from tests.refused import refused
from tests.training.small_runs import make_data

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILE = EXAMPLES / "distil_your_own_network.yml"
CROPS = (("exact", 32), ("whole", None))
MODEL = Path("own_network/models/net_g_latest.safetensors")


def forget() -> None:
    """As if nothing of the user's had been imported."""
    for registry in (ARCHS, LOSSES, DATASETS):
        for name in list(registry._sources):
            del registry._builders[name], registry._sources[name]
    sys.modules.pop("my_networks", None)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Leave no registered network to other tests."""
    forget()
    path = list(sys.path)
    yield
    forget()
    sys.path[:] = path


@pytest.mark.slow
def test_trains_distils_resumes_and_is_cropped_exactly(tmp_path, capfd):
    make_data(tmp_path)
    words = ["train", "-opt", FILE, "--set", f"datasets.train.dataroot={tmp_path / 'sample.store'}"]
    words += ["--set", "logger.save_checkpoint_freq=2"]

    def train(folder: str, iterations: int, *more: str) -> dict[str, torch.Tensor]:
        result = run(capfd, *words, "--root", tmp_path / folder, "--set", f"train.total_iter={iterations}", *more)
        assert result.code == 0, result.err
        return load_model(tmp_path / folder / MODEL).network.state_dict()

    whole = train("whole", 4)
    train("parts", 2)
    resumed = train("parts", 4, "--auto_resume")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    state = next((tmp_path / "parts").rglob("4.state"))
    assert torch.load(state, weights_only=False)["options"]["imports"] == ["my_networks.py"]

    image = picture((60, 70))
    exact, once = (Upscaler(tmp_path / "whole" / MODEL, crop=crop, crop_size=size) for crop, size in CROPS)
    assert np.array_equal(exact(image), once(image))

    forget()
    with refused("model.needs-import") as caught:
        load_model(tmp_path / "whole" / MODEL)
    (line,) = caught.value.lines
    assert line.endswith("give --import my_networks.py")
    model = tmp_path / "whole" / MODEL
    assert run(capfd, "profile", "--model", model, "--runs", 0).code == 2
    shown = run(capfd, "profile", "--model", model, "--runs", 0, "--import", EXAMPLES / "my_networks.py")
    assert (shown.code, shown.err) == (0, "")
    assert isinstance(load_model(model).network, SRNetwork)


STUDENTS = {  # of spandrel; the first has another forward in training, the second takes sides in multiples of 8
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
    "SAFMN": {"dim": 8, "n_blocks": 1, "upscaling_factor": 2},
}

SPANDREL_RUN = """
_base_: {base}
_drop_: [imports]
network_g:
  _drop_: [width, upscale]
  {options}
distill:
  objectives:
    _drop_: [l_edge, l_feature]
logger:
  save_checkpoint_freq: 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_a_network_of_spandrel_is_distilled_resumed_and_cropped_exactly(name, tmp_path, capfd):
    pytest.importorskip("spandrel")
    make_data(tmp_path)
    options = "\n  ".join(f"{key}: {value}" for key, value in {"type": f"spandrel/{name}", **STUDENTS[name]}.items())
    (tmp_path / "run.yml").write_text(SPANDREL_RUN.format(base=FILE, options=options))
    words = ["train", "-opt", tmp_path / "run.yml", "--set", f"datasets.train.dataroot={tmp_path / 'sample.store'}"]

    def train(folder: str, iterations: int, *more: str) -> Path:
        result = run(capfd, *words, "--root", tmp_path / folder, "--set", f"train.total_iter={iterations}", *more)
        assert result.code == 0, result.err
        return tmp_path / folder / MODEL

    whole = train("whole", 4)
    train("parts", 2)
    resumed = train("parts", 4, "--auto_resume")
    image = picture((60, 70))
    results = [Upscaler(model, crop="whole")(image) for model in (whole, resumed)]
    results.append(Upscaler(whole, crop="exact", crop_size=32)(image))
    assert results[0].shape == (120, 140, 3)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


OWN_DATA = """
from fractions import Fraction
import numpy as np
from imdn_kd.registry import DATASETS


@DATASETS.register
class Ramps:
    planes = ("gt", "lq")

    def __init__(self, *, scale, count):
        self.scale, self._count = Fraction(scale), count

    def __len__(self):
        return self._count

    def name(self, index):
        return f"ramp {index}"

    def lq_sizes(self):
        return np.full((self._count, 2), 24)

    def read(self, index):
        ramp = np.tile(np.arange(0, 96, 2, dtype=np.uint8)[:, None, None] + np.uint8(index), (1, 48, 3))
        return {"gt": ramp, "lq": np.ascontiguousarray(ramp[::2, ::2])}
"""

OWN_RUN = """
_base_: {}
_drop_: [network_t, distill]
imports: [my_data.py]
network_g:
  _drop_: [width]
  type: plain_t
datasets:
  train:
    _drop_: [dataroot]
    type: Ramps
    options: {{count: 3}}
"""


def test_a_data_set_of_the_user(tmp_path, capfd):
    (tmp_path / "my_data.py").write_text(OWN_DATA)
    file = tmp_path / "run.yml"
    file.write_text(OWN_RUN.format(FILE))
    words = ["train", "-opt", file, "--root", tmp_path / "runs", "--set", "train.total_iter=2"]
    result = run(capfd, *words)
    assert result.code == 0, result.err
    assert "on 3 images" in result.err
    sys.modules.pop("my_data")
    result = run(capfd, *words, "--set", "datasets.train.type=StoreDataset")
    assert result.err.startswith(f"imdn-kd: {file}, line ")
    assert "options is for data sets of your own" in result.err
