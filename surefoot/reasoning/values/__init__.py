"""Values: how likely a completion ends right, from its prompt and from the end of each of its spans."""

from surefoot.reasoning.metrics import best_of_k, best_of_k_estimate
from surefoot.reasoning.values.base import ValueEstimator, check_values
from surefoot.reasoning.values.judged import Judged, judged_sequence, predicted_values, prefix_lengths, value_logits
from surefoot.reasoning.values.learned import LearnedValues
from surefoot.reasoning.values.monte_carlo import MonteCarloValues, Prefix, prefixes_of
from surefoot.reasoning.values.provers import ProverQuality, prover_quality, rank_provers, values_of_siblings

__all__ = (
    "Judged",
    "LearnedValues",
    "MonteCarloValues",
    "Prefix",
    "ProverQuality",
    "ValueEstimator",
    "best_of_k",
    "best_of_k_estimate",
    "check_values",
    "judged_sequence",
    "predicted_values",
    "prefix_lengths",
    "prefixes_of",
    "prover_quality",
    "rank_provers",
    "value_logits",
    "values_of_siblings",
)
