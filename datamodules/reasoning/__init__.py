"""Problems with checkable answers, and completions of them."""

from datamodules.reasoning.arithmetic import ArithmeticDataModule
from datamodules.reasoning.big_bench_mistake import BigBenchMistakeDataModule
from datamodules.reasoning.completions import CompletionsDataModule, PreferencesDataModule
from datamodules.reasoning.curated import CuratedDataModule
from datamodules.reasoning.evaluation_set import EvaluationSetDataModule
from datamodules.reasoning.gsm8k import GSM8KDataModule
from datamodules.reasoning.gsm8k_solutions import GSM8KSolutionsDataModule
from datamodules.reasoning.gsm_symbolic import GSMSymbolicDataModule
from datamodules.reasoning.hendrycks_math import HendrycksMathDataModule
from datamodules.reasoning.jsonl import JSONLDataModule
from datamodules.reasoning.judged import JudgedDataModule
from datamodules.reasoning.labelled import LabelledCompletionsDataModule
from datamodules.reasoning.labelled_trajectories import LabelledTrajectoriesDataModule
from datamodules.reasoning.math_shepherd import MathShepherdDataModule
from datamodules.reasoning.prm800k import PRM800KDataModule
from datamodules.reasoning.problems import ProblemsDataModule
from datamodules.reasoning.process_bench import ProcessBenchDataModule

__all__ = (
    "ArithmeticDataModule",
    "BigBenchMistakeDataModule",
    "CompletionsDataModule",
    "CuratedDataModule",
    "EvaluationSetDataModule",
    "GSM8KDataModule",
    "GSM8KSolutionsDataModule",
    "GSMSymbolicDataModule",
    "HendrycksMathDataModule",
    "JSONLDataModule",
    "JudgedDataModule",
    "LabelledCompletionsDataModule",
    "LabelledTrajectoriesDataModule",
    "MathShepherdDataModule",
    "PRM800KDataModule",
    "PreferencesDataModule",
    "ProblemsDataModule",
    "ProcessBenchDataModule",
)
