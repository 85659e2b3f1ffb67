"""Data sets, read from torchvision's on-disk layouts without torchvision; one small set is shipped in the package."""

from heirmark.data.registry import DATASETS, DataSet, load_images, load_task
from heirmark.data.root import data_root

__all__ = ["DATASETS", "DataSet", "data_root", "load_images", "load_task"]
