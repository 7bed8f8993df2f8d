"""Datasets: one LightningDataModule a file."""

from datamodules.classification import ClassificationDataModule
from datamodules.confounded_images import ConfoundedImagesDataModule
from datamodules.digits import DigitsDataModule
from datamodules.fashion_mnist import FashionMNISTDataModule
from datamodules.group_folder import GroupFolderDataModule
from datamodules.reasoning import (
    ArithmeticDataModule,
    CompletionsDataModule,
    CuratedDataModule,
    EvaluationSetDataModule,
    GSM8KDataModule,
    GSMSymbolicDataModule,
    HendrycksMathDataModule,
    PreferencesDataModule,
    ProblemsDataModule,
)
from datamodules.wilds import WILDSDataModule

__all__ = (
    "ArithmeticDataModule",
    "ClassificationDataModule",
    "CompletionsDataModule",
    "ConfoundedImagesDataModule",
    "CuratedDataModule",
    "DigitsDataModule",
    "EvaluationSetDataModule",
    "FashionMNISTDataModule",
    "GSM8KDataModule",
    "GSMSymbolicDataModule",
    "GroupFolderDataModule",
    "HendrycksMathDataModule",
    "PreferencesDataModule",
    "ProblemsDataModule",
    "WILDSDataModule",
)
