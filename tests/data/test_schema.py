from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from imdn_kd.config.options import check_options
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.data.schema import TrainDataOptions
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, write_image
from imdn_kd.training.loader import cut_patches, open_images
from tests.fake_set import picture
from tests.refused import refused

# The part `datasets.train` of BasicSR's options for MSRResNet x4, as documented there.
BASICSR = """
name: DIV2K
type: PairedImageDataset
dataroot_gt: DIV2K_train_HR_sub
dataroot_lq: DIV2K_train_LR_bicubic_X4_sub
meta_info_file: meta_info_DIV2K800sub_GT.txt
filename_tmpl: '{}'
io_backend:
  type: disk
gt_size: 32
use_hflip: true
use_rot: true
num_worker_per_gpu: 0
batch_size_per_gpu: 4
dataset_enlarge_ratio: 100
prefetch_mode: ~
"""


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """The same six images as a store, as files and as LMDB, each by the names that BasicSR's options have."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        write_image(Path(f"in/000{number}_s001.png"), Picture(picture((64, 80), number)))

    def prepare(**options: object) -> None:
        request = check_options({"scale": [4], **options}, PrepareOptions, "test")
        write_dataset(request, open_source(request, root=tmp_path), root=tmp_path)

    prepare(source="folder", path="in", output="in.store")
    prepare(source="store", path="in.store", format="folder", output="files")
    prepare(source="store", path="in.store", format="lmdb", output="lmdb")
    Path("files/HR").rename("DIV2K_train_HR_sub")
    Path("files/LRbicx4").rename("DIV2K_train_LR_bicubic_X4_sub")
    for path in Path("DIV2K_train_LR_bicubic_X4_sub").iterdir():
        path.rename(path.with_stem(path.stem.removesuffix("x4")))
    lines = [f"000{number}_s001.png (64,80,3)\n" for number in range(6)]
    Path("meta_info_DIV2K800sub_GT.txt").write_text("".join(lines))
    return tmp_path


def read(**changes: object) -> TrainDataOptions:
    content = {**yaml.safe_load(BASICSR), **changes}
    return check_options({key: value for key, value in content.items() if value != "none"}, TrainDataOptions, "test")


@pytest.mark.usefixtures("places")
def test_every_kind_of_data_gives_the_same_batches():
    lmdb = {"dataroot_gt": "lmdb/gt.lmdb", "dataroot_lq": "lmdb/lq_x4.lmdb", "io_backend": {"type": "lmdb"}}
    kinds = (
        read(),
        read(meta_info_file=None),
        read(**lmdb, meta_info_file=None),
        read(type="StoreDataset", dataroot="in.store", dataroot_gt=None, dataroot_lq=None, meta_info_file=None),
    )
    batches = [cut_patches(options, open_images(options, 4), options.stages()[0], seed=5)[3] for options in kinds]
    assert batches[0]["gt"].shape == (4, 3, 32, 32)
    assert batches[0]["lq"].shape == (4, 3, 8, 8)
    for batch in batches[1:]:
        for plane in ("gt", "lq"):
            assert torch.equal(batch[plane], batches[0][plane])


@pytest.mark.usefixtures("places")
def test_options_reach_the_patches():
    options = read(sampling="area", sharpness=3, use_rot=False, use_inversion=True, augment_on="device")
    patches = cut_patches(options, open_images(options, 4), options.stages()[0], seed=1)
    assert (patches.sampling, patches.sharpness, patches.seed) == ("area", 3, 1)
    assert (patches.use_hflip, patches.use_rot, patches.use_inversion) == (True, False, True)
    assert "transform_codes" in patches[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "StoreDataset"}, "StoreDataset needs dataroot"),
        ({"dataroot_lq": None}, "PairedImageDataset needs dataroot_lq"),
        ({"options": {"count": 3}}, "options is for data sets of your own"),
        ({"gt_sise": 3}, "did you mean 'gt_size'?"),
        ({"gt_size": 0}, "gt_size"),
        ({"gt_size": "none"}, "gt_size: is missing"),
        ({"io_backend": {"type": "memcached"}}, "'disk' or 'lmdb'"),
        ({"use_hflip": "yes"}, "use_hflip"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError) as caught:
        read(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_nobody_has_registered():
    with refused("registry.unknown-name") as caught:
        open_images(read(type="PairedImagDataset"), 4)
    assert "did you mean 'PairedImageDataset'?" in str(caught.value)
