"""Settings of reasoning that are numbers: what is not finite, or out of range, ends in a line, not in NaN results."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import MemorizationTracker
from datamodules import GSM8KSolutionsDataModule
from lightning_modules import DPO, SFT, AdvantageWeightedSFT
from surefoot.errors import ConfigError
from surefoot.losses import advantage_weights
from surefoot.losses.policy import MismatchCorrection, PolicyLoss
from surefoot.losses.preference import dpo_loss
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.credit import (
    EffectiveReward,
    EffectiveRewardAdvantage,
    GroupAdvantage,
    PerStepAdvantage,
)
from surefoot.reasoning.curation import choose_parents
from surefoot.reasoning.language_models import LoRA, TinyLanguageModel
from surefoot.reasoning.rollouts import HFEngine, RayEngine, Sampling, VLLMEngine, VLLMServerEngine
from surefoot.reasoning.rollouts.vllm_server import ServerLaunch
from surefoot.reasoning.values import LearnedValues, MonteCarloValues


def sft(**settings: Any) -> SFT:
    model = TinyLanguageModel(width=16, n_layers=1, n_heads=2, max_length=16)
    return SFT(language_model=model, optimizer=torch.optim.SGD, **settings)


def pairs_loss(**settings: float) -> object:
    return dpo_loss(*[torch.zeros(1)] * 4, **settings)


Make = Callable[..., object]
#: What takes the number, its name, and whether infinity is one of its values.
SETTINGS: list[tuple[Make, str, bool]] = [
    (Sampling, "temperature", False),
    (Sampling, "top_p", False),
    (partial(LearnedValues, Path("nowhere")), "cache_gib", False),
    (MonteCarloValues, "half_width", False),
    (MonteCarloValues, "first_pit", False),
    (VLLMEngine, "cache_gib", False),
    (VLLMEngine, "memory_share", False),
    (lambda **launch: VLLMServerEngine(launch=ServerLaunch(**launch)), "cache_gib", False),
    (VLLMServerEngine, "startup_seconds", False),
    (VLLMServerEngine, "request_seconds", False),
    (partial(RayEngine, HFEngine()), "cpus_per_worker", False),
    (partial(RayEngine, HFEngine()), "gpus_per_worker", False),
    (EffectiveReward, "alpha", False),
    (EffectiveRewardAdvantage, "alpha", False),
    (EffectiveRewardAdvantage, "epsilon", False),
    (GroupAdvantage, "epsilon", False),
    (PerStepAdvantage, "epsilon", False),
    (Grader, "time_limit", False),
    (Grader, "budget", False),
    (GSM8KSolutionsDataModule, "val_share", False),
    (GSM8KSolutionsDataModule, "test_share", False),
    (sft, "warmup", False),
    (sft, "max_gradient_norm", True),
    (AdvantageWeightedSFT, "beta", False),
    (partial(advantage_weights, torch.zeros(1), 0.5), "max_weight", True),
    (DPO, "beta", False),
    (DPO, "label_smoothing", False),
    (pairs_loss, "beta", False),
    (PolicyLoss, "kl_coefficient", False),
    (PolicyLoss, "clip_high", True),
    (MismatchCorrection, "cap", True),
    (LoRA, "alpha", False),
    (LoRA, "dropout", False),
    (TinyLanguageModel, "initializer_range", False),
    (partial(choose_parents, "iid", []), "log_log_threshold", False),
    (partial(choose_parents, "iid", []), "accuracy_threshold", False),
    (partial(choose_parents, "iid", []), "percentile", False),
    (MemorizationTracker, "log_log_threshold", False),
]


@pytest.mark.parametrize(("make", "name", "takes_infinity"), SETTINGS)
def test_numbers_that_are_none_are_refused(make: Make, name: str, takes_infinity: bool) -> None:
    for value in (math.nan, -math.inf) if takes_infinity else (math.nan, -math.inf, math.inf):
        with pytest.raises((ConfigError, ValueError)) as error:
            make(**{name: value})
        assert name in str(error.value)
        assert str(value) in str(error.value)
        assert "\n" not in str(error.value)
    if takes_infinity:
        make(**{name: math.inf})
