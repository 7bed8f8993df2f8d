"""How good a prover is for a policy, before any of it is learned from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from surefoot.errors import DataError
from surefoot.statistics import Estimate, mean_interval

__all__ = ("ProverQuality", "improvement_terms", "prover_quality")


class ProverQuality(NamedTuple):
    """The two terms by which a policy improves when it follows a prover's advantages, each over states.

    Reference: Setlur et al. 2024, arXiv 2410.08146, theorem 3.1.
    """

    distinguishability: Estimate  # variance of the prover's advantage over the policy's steps
    alignment: Estimate  # mean product of the prover's advantage and the policy's own
    improvement: Estimate  # their sum


def prover_quality(
    policy_values: Sequence[Sequence[float]],
    prover_values: Sequence[Sequence[float]],
    probabilities: Sequence[Sequence[float]] | None = None,
) -> ProverQuality:
    """Return a prover's distinguishability and alignment, with 95% intervals over states.

    Within a state advantages differ from values by a constant, and the policy's own have mean 0: the terms are the
    variance of the prover's values and their covariance with the policy's. Values that were sampled add the variance of
    their noise to the first, and to the second where both were made of the same samples; `rank_provers` subtracts it.

    Args:
        policy_values: Of each state, the policy's value after each of two or more steps.
        prover_values: Of each state, the prover's value after the same steps.
        probabilities: The policy's of these steps; by default the steps are samples of its, and the terms are unbiased.

    Raises:
        DataError: If states or steps do not match, or a state has a single step.
    """
    if len(policy_values) != len(prover_values) or not policy_values:
        raise DataError(f"{len(policy_values)} states of the policy and {len(prover_values)} of the prover.")
    variances, covariances = [], []
    for state, (own, theirs) in enumerate(zip(policy_values, prover_values, strict=True)):
        if len(own) != len(theirs) or len(own) < 2:
            raise DataError(f"state {state} has {len(own)} and {len(theirs)} values: expected two or more of each.")
        variance, covariance = improvement_terms(own, theirs, None if probabilities is None else probabilities[state])
        variances.append(variance)
        covariances.append(covariance)
    both = [v + c for v, c in zip(variances, covariances, strict=True)]
    return ProverQuality(mean_interval(variances), mean_interval(covariances), mean_interval(both))


def improvement_terms(
    own: Sequence[float], theirs: Sequence[float], probabilities: Sequence[float] | None = None
) -> tuple[float, float]:
    """Return the variance of the prover's values in a state and their covariance with the policy's.

    Args:
        own: The policy's value after each step.
        theirs: The prover's.
        probabilities: The policy's of these steps; by default they are samples of its, two or more, and both terms are
            unbiased.
    """
    q, mu = torch.tensor(own, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
    if probabilities is None:
        weights, correction = torch.full_like(q, 1 / len(q)), len(q) / (len(q) - 1)
    else:
        weights, correction = torch.tensor(probabilities, dtype=torch.float64), 1.0
    centred = mu - (weights * mu).sum()
    variance, covariance = (weights * centred.square()).sum(), (weights * centred * (q - (weights * q).sum())).sum()
    return correction * float(variance), correction * float(covariance)
