"""Problems with checkable answers, and completions of them."""

from datamodules.reasoning.arithmetic import ArithmeticDataModule
from datamodules.reasoning.completions import CompletionsDataModule, PreferencesDataModule
from datamodules.reasoning.curated import CuratedDataModule
from datamodules.reasoning.evaluation_set import EvaluationSetDataModule
from datamodules.reasoning.gsm8k import GSM8KDataModule
from datamodules.reasoning.gsm_symbolic import GSMSymbolicDataModule
from datamodules.reasoning.hendrycks_math import HendrycksMathDataModule
from datamodules.reasoning.jsonl import JSONLDataModule
from datamodules.reasoning.labelled import LabelledCompletionsDataModule
from datamodules.reasoning.problems import ProblemsDataModule

__all__ = (
    "ArithmeticDataModule",
    "CompletionsDataModule",
    "CuratedDataModule",
    "EvaluationSetDataModule",
    "GSM8KDataModule",
    "GSMSymbolicDataModule",
    "HendrycksMathDataModule",
    "JSONLDataModule",
    "LabelledCompletionsDataModule",
    "PreferencesDataModule",
    "ProblemsDataModule",
)
