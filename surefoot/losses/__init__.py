"""Losses and example weights: one paper a file."""

from surefoot.losses.advantage_weighted_sft import AdvantageWeights, advantage_weights
from surefoot.losses.adversary_updates import AdversaryUpdate, NoRegretUpdate, SoftUpdate
from surefoot.losses.br_dro import (
    adversary_objective,
    br_dro_example_weights,
    br_dro_risk,
    tail_classification_loss,
)
from surefoot.losses.cvar_dro import cvar_dual_loss, cvar_example_weights, loss_quantile
from surefoot.losses.group_dro import (
    group_dro_example_weights,
    initial_group_weights,
    update_group_log_weights,
)
from surefoot.losses.jtt import upsampling_multiplicity
from surefoot.losses.lff import class_maximum, generalized_cross_entropy, relative_difficulty
from surefoot.losses.policy import MismatchCorrection, PolicyLoss, TokenLosses, sequence_mean
from surefoot.losses.preference import PreferenceLoss, dpo_loss

__all__ = (
    "AdvantageWeights",
    "AdversaryUpdate",
    "MismatchCorrection",
    "NoRegretUpdate",
    "PolicyLoss",
    "PreferenceLoss",
    "SoftUpdate",
    "TokenLosses",
    "advantage_weights",
    "adversary_objective",
    "br_dro_example_weights",
    "br_dro_risk",
    "class_maximum",
    "cvar_dual_loss",
    "cvar_example_weights",
    "dpo_loss",
    "generalized_cross_entropy",
    "group_dro_example_weights",
    "initial_group_weights",
    "loss_quantile",
    "relative_difficulty",
    "sequence_mean",
    "tail_classification_loss",
    "update_group_log_weights",
    "upsampling_multiplicity",
)
