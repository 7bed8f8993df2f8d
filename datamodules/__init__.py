"""Datasets: one LightningDataModule a file."""

from datamodules.classification import ClassificationDataModule
from datamodules.confounded_images import ConfoundedImagesDataModule
from datamodules.digits import DigitsDataModule
from datamodules.fashion_mnist import FashionMNISTDataModule
from datamodules.group_folder import GroupFolderDataModule
from datamodules.wilds import WILDSDataModule

__all__ = (
    "ClassificationDataModule",
    "ConfoundedImagesDataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "GroupFolderDataModule",
    "WILDSDataModule",
)
