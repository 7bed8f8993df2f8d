"""Algorithms: one LightningModule a file, named as its paper names it."""

import surefoot  # noqa: F401  (before lightning, which imports torchvision)
from lightning_modules.base import ResumableModule
from lightning_modules.br_dro import BRDRO
from lightning_modules.classification import ClassifierModule, ReweightedClassifier
from lightning_modules.cvar_dro import CVaRDRO
from lightning_modules.dfr import DFR
from lightning_modules.erm import ERM
from lightning_modules.group_dro import GroupDRO
from lightning_modules.jtt import JTT
from lightning_modules.lff import LfF
from lightning_modules.private_linear import PrivateLinear
from lightning_modules.reasoning import (
    DPO,
    GRPO,
    RFT,
    SFT,
    AdvantageWeightedSFT,
    LanguageModelModule,
    ProcessReward,
    ReasoningModule,
    Reinforce,
    StepScorerEvaluation,
)

__all__ = (
    "BRDRO",
    "DFR",
    "DPO",
    "ERM",
    "GRPO",
    "JTT",
    "RFT",
    "SFT",
    "AdvantageWeightedSFT",
    "CVaRDRO",
    "ClassifierModule",
    "GroupDRO",
    "LanguageModelModule",
    "LfF",
    "PrivateLinear",
    "ProcessReward",
    "ReasoningModule",
    "Reinforce",
    "ResumableModule",
    "ReweightedClassifier",
    "StepScorerEvaluation",
)
