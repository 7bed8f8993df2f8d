"""Datasets: one LightningDataModule a file; in `shifts`, what is evaluated beside them."""

import surefoot  # noqa: F401  (before lightning, which imports torchvision)
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.classification import ClassificationDataModule
from datamodules.confounded_images import ConfoundedImagesDataModule
from datamodules.digits import DigitsDataModule
from datamodules.fashion_mnist import FashionMNISTDataModule
from datamodules.frozen_features import FrozenFeaturesDataModule
from datamodules.group_folder import GroupFolderDataModule
from datamodules.madlibs import MadlibsDataModule
from datamodules.mnist5k import MNIST5kDataModule
from datamodules.private import PrivateDataModule
from datamodules.reasoning import (
    ArithmeticDataModule,
    BigBenchMistakeDataModule,
    CompletionsDataModule,
    CuratedDataModule,
    EvaluationSetDataModule,
    GSM8KDataModule,
    GSM8KSolutionsDataModule,
    GSMSymbolicDataModule,
    HendrycksMathDataModule,
    JSONLDataModule,
    JudgedDataModule,
    LabelledCompletionsDataModule,
    LabelledTrajectoriesDataModule,
    MathShepherdDataModule,
    PreferencesDataModule,
    PRM800KDataModule,
    ProblemsDataModule,
    ProcessBenchDataModule,
)
from datamodules.shared_subspace import SharedSubspaceDataModule
from datamodules.shifts import Corruption, HeldOut, OtherDataset, Shift, TextPerturbation
from datamodules.subclasses import SubclassShiftDataModule
from datamodules.training_set import TrainingSet
from datamodules.two_streams import TwoStreamDataModule
from datamodules.unlabeled_wilds import UnlabeledWILDSDataModule
from datamodules.wilds import WILDSDataModule, WILDSSplits

__all__ = (
    "ArithmeticDataModule",
    "BigBenchMistakeDataModule",
    "CIFAR10DataModule",
    "ClassificationDataModule",
    "CompletionsDataModule",
    "ConfoundedImagesDataModule",
    "Corruption",
    "CuratedDataModule",
    "DigitsDataModule",
    "EvaluationSetDataModule",
    "FashionMNISTDataModule",
    "FrozenFeaturesDataModule",
    "GSM8KDataModule",
    "GSM8KSolutionsDataModule",
    "GSMSymbolicDataModule",
    "GroupFolderDataModule",
    "HeldOut",
    "HendrycksMathDataModule",
    "JSONLDataModule",
    "JudgedDataModule",
    "LabelledCompletionsDataModule",
    "LabelledTrajectoriesDataModule",
    "MNIST5kDataModule",
    "MadlibsDataModule",
    "MathShepherdDataModule",
    "OtherDataset",
    "PRM800KDataModule",
    "PreferencesDataModule",
    "PrivateDataModule",
    "ProblemsDataModule",
    "ProcessBenchDataModule",
    "SharedSubspaceDataModule",
    "Shift",
    "SubclassShiftDataModule",
    "TextPerturbation",
    "TrainingSet",
    "TwoStreamDataModule",
    "UnlabeledWILDSDataModule",
    "WILDSDataModule",
    "WILDSSplits",
)
