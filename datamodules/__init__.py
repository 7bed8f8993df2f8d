"""Datasets: one LightningDataModule a file; in `shifts`, what is evaluated beside them."""

from datamodules.cifar10 import CIFAR10DataModule
from datamodules.classification import ClassificationDataModule
from datamodules.confounded_images import ConfoundedImagesDataModule
from datamodules.digits import DigitsDataModule
from datamodules.fashion_mnist import FashionMNISTDataModule
from datamodules.group_folder import GroupFolderDataModule
from datamodules.madlibs import MadlibsDataModule
from datamodules.mnist5k import MNIST5kDataModule
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
from datamodules.shifts import Corruption, HeldOut, OtherDataset, Shift, TextPerturbation
from datamodules.subclasses import SubclassShiftDataModule
from datamodules.wilds import WILDSDataModule

__all__ = (
    "ArithmeticDataModule",
    "CIFAR10DataModule",
    "ClassificationDataModule",
    "CompletionsDataModule",
    "ConfoundedImagesDataModule",
    "Corruption",
    "CuratedDataModule",
    "DigitsDataModule",
    "EvaluationSetDataModule",
    "FashionMNISTDataModule",
    "GSM8KDataModule",
    "GSMSymbolicDataModule",
    "GroupFolderDataModule",
    "HeldOut",
    "HendrycksMathDataModule",
    "MNIST5kDataModule",
    "MadlibsDataModule",
    "OtherDataset",
    "PreferencesDataModule",
    "ProblemsDataModule",
    "Shift",
    "SubclassShiftDataModule",
    "TextPerturbation",
    "WILDSDataModule",
)
