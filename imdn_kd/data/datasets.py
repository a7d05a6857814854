"""The data sets that option files can ask for; importing this fills the registry `DATASETS`."""

from imdn_kd.data.paired import PairedImageDataset
from imdn_kd.data.store import StoreDataset

__all__ = ["PairedImageDataset", "StoreDataset"]
