"""Language models that learn to reason: one method a file."""

from lightning_modules.reasoning.advantage_weighted_sft import AdvantageWeightedSFT
from lightning_modules.reasoning.base import ReasoningModule
from lightning_modules.reasoning.dpo import DPO
from lightning_modules.reasoning.grpo import GRPO
from lightning_modules.reasoning.language_model import LanguageModelModule
from lightning_modules.reasoning.process_reward import ProcessReward
from lightning_modules.reasoning.reinforce import Reinforce
from lightning_modules.reasoning.rft import RFT
from lightning_modules.reasoning.sft import SFT
from lightning_modules.reasoning.step_scorer_evaluation import StepScorerEvaluation

__all__ = (
    "DPO",
    "GRPO",
    "RFT",
    "SFT",
    "AdvantageWeightedSFT",
    "LanguageModelModule",
    "ProcessReward",
    "ReasoningModule",
    "Reinforce",
    "StepScorerEvaluation",
)
