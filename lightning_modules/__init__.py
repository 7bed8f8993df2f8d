"""Algorithms: one LightningModule a file, named as its paper names it."""

from lightning_modules.base import ResumableModule
from lightning_modules.br_dro import BRDRO
from lightning_modules.classification import ClassifierModule, ReweightedClassifier
from lightning_modules.cvar_dro import CVaRDRO
from lightning_modules.dfr import DFR
from lightning_modules.erm import ERM
from lightning_modules.group_dro import GroupDRO
from lightning_modules.jtt import JTT
from lightning_modules.lff import LfF

__all__ = (
    "BRDRO",
    "DFR",
    "ERM",
    "JTT",
    "CVaRDRO",
    "ClassifierModule",
    "GroupDRO",
    "LfF",
    "ResumableModule",
    "ReweightedClassifier",
)
