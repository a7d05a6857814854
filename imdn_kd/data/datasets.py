"""The data sets of option files; importing this module fills the registry `DATASETS`."""

from imdn_kd.data.paired import PairedImageDataset
from imdn_kd.data.store import StoreDataset

__all__ = ["PairedImageDataset", "StoreDataset"]
