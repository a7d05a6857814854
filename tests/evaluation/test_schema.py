from __future__ import annotations

from pathlib import Path

import pytest

from imdn_kd.config.options import read_options
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.errors import InputError
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.evaluation.schema import BenchmarkOptions
from tests.refused import refused

GOOD = """\
name: run
scale: 4
datasets:
  test_1:
    name: Set5
    dataroot_gt: datasets/Set5
network_g: {type: imdn}
path:
  pretrain_network_g: a.pth
val:
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: true
"""


def read(folder: Path, text: str) -> BenchmarkOptions:
    path = folder / "test.yml"
    path.write_text(text)
    return read_options(path, BenchmarkOptions)


def test_good(tmp_path):
    options = read(tmp_path, GOOD)
    assert options.protocol() == Protocol()
    assert options.datasets["test_1"].source(4) == DataSource("datasets/Set5", None, "Set5", None)


def test_protocols(tmp_path):
    """BasicSR measures RGB unless told otherwise."""
    assert read(tmp_path, GOOD.replace("test_y_channel: true", "test_y_channel: false")).protocol() == Protocol(
        space="rgb"
    )
    assert read(tmp_path, GOOD.replace("      test_y_channel: true\n", "")).protocol() == Protocol(space="rgb")
    assert read(tmp_path, GOOD.replace("crop_border: 4", "crop_border: 0")).protocol() == Protocol(shave=0)
    assert read(tmp_path, GOOD[: GOOD.index("val:")]).protocol() is None


def test_niqe_is_named_as_not_measured(tmp_path):
    niqe = "    niqe: {type: calculate_niqe, crop_border: 0, better: lower}\n"
    options = read(tmp_path, GOOD + niqe)
    assert options.protocol() == Protocol()
    assert options.val.ignored() == ["niqe"]


def test_a_set_by_name_alone(tmp_path):
    options = read(tmp_path, "name: run\nscale: 2\ndatasets: {test_1: {name: Set5}}\n")
    assert options.datasets["test_1"].source(4).data == "Set5"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "dataroot_gt",
            "dataroot_gtt",
            "line 6: datasets.test_1: no option is called 'dataroot_gtt'; did you mean 'dataroot_gt'?",
        ),
        ("scale: 4", "scale: 4\nscael: 3", "line 3: no option is called 'scael'; did you mean 'scale'?"),
        ("scale: 4", "scale: 4\nzzz: 3", "line 3: no option is called 'zzz'; known: name, scale"),
        ("scale: 4", "scale: four", "line 2: scale: is to be a whole number"),
        ("scale: 4", "scale: true", "line 2: scale: is to be a whole number"),
        ("scale: 4", "scale: 0", "line 2: scale: is to be at least 1"),
        ("scale: 4", "scale: 4\nscale: 2", "line 3: 'scale' is given twice"),
        ("scale: 4\n", "", "line 1: scale: is missing"),
        ("name: Set5", "type: PairedImageDataset", "line 4: datasets.test_1.name: is missing"),
        (
            "name: Set5",
            "name: Set5\n    type: SingleImageDataset",
            "line 6: datasets.test_1.type: SingleImageDataset has no HR",
        ),
        ("crop_border: 4", "crop_border: -1", "line 14: val.metrics.psnr.crop_border: is to be"),
        ("calculate_psnr", "calculate_nothing", "line 13: val.metrics.psnr.type: is to be"),
        ("  metrics:", "  metrics:\n    ssim: {type: calculate_ssim, crop_border: 0}", "metrics differ in crop_border"),
        ("  pretrain_network_g: a.pth", "  {}", "network_g has no weights"),
        ("name: run", "name: !!python/object/apply:os.system ['true']", "line 1: is not plain YAML"),
        ("name: run", "name: [", "is not plain YAML"),
        ("scale: 4", "{x{: 4", "not plain YAML"),
        ("scale: 4", "'{x}': 4", "no option is called '{x}'"),
    ],
)
def test_mistakes_are_one_line_with_place_and_key(tmp_path, old, new, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "test.yml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "just text", "- a\n- b\n", "a: &a [*a]\n", "[" * 2000])
def test_not_options(tmp_path, content):
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_unreadable(tmp_path):
    with refused("options.unreadable-file"):
        read_options(tmp_path / "none.yml", BenchmarkOptions)
    (tmp_path / "binary.yml").write_bytes(b"\xff\x00\x80")
    with refused("options.unreadable-file"):
        read_options(tmp_path / "binary.yml", BenchmarkOptions)
