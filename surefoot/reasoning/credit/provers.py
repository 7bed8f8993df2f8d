"""How good a prover is for a policy, before any of it is learned from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from surefoot.errors import DataError
from surefoot.reasoning.credit.progress import prover_values
from surefoot.reasoning.trajectories import Trajectory
from surefoot.statistics import Estimate, bootstrap_interval, mean_interval

__all__ = ("ProverQuality", "prover_quality", "rank_provers", "values_of_siblings")


Tokens = tuple[int, ...]


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
    their noise to the first, and to the second where both were made of the same samples.

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
        variance, covariance = _terms(own, theirs, None if probabilities is None else probabilities[state])
        variances.append(variance)
        covariances.append(covariance)
    both = [v + c for v, c in zip(variances, covariances, strict=True)]
    return ProverQuality(mean_interval(variances), mean_interval(covariances), mean_interval(both))


def _terms(
    own: Sequence[float], theirs: Sequence[float], probabilities: Sequence[float] | None = None
) -> tuple[float, float]:
    """Return the variance of the prover's values in a state and their covariance with the policy's.

    Without probabilities the values are those of samples, and both terms unbiased.
    """
    q, mu = torch.tensor(own, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
    if probabilities is None:
        weights, correction = torch.full_like(q, 1 / len(q)), len(q) / (len(q) - 1)
    else:
        weights, correction = torch.tensor(probabilities, dtype=torch.float64), 1.0
    centred = mu - (weights * mu).sum()
    variance, covariance = (weights * centred.square()).sum(), (weights * centred * (q - (weights * q).sum())).sum()
    return correction * float(variance), correction * float(covariance)


class Siblings(NamedTuple):
    """The steps that were sampled from one state, each as often as it was; two or more."""

    steps: list[Tokens]
    values: list[float]  # after each of them


def values_of_siblings(trajectories: Sequence[Trajectory], k: int = 1) -> dict[Tokens, Siblings]:
    """Return the values after steps that begin in one state, for the states that two or more completions reach.

    Args:
        trajectories: With values; those of a problem have one prompt.
        k: Attempts of the prover; see `prover_values`.
    """
    found: dict[Tokens, Siblings] = defaultdict(lambda: Siblings([], []))
    for t in trajectories:
        values = prover_values(t, k)
        for span, value in zip(t.token_spans(), values[1:], strict=True):
            own = found[(*t.prompt, *t.completion[: span.start])]
            own.steps.append(tuple(t.completion[span.start : span.end]))
            own.values.append(value)
    return {state: own for state, own in found.items() if len(own.steps) > 1}


def rank_provers(
    policy: Sequence[Trajectory], provers: Mapping[str, tuple[Sequence[Trajectory], int]]
) -> dict[str, ProverQuality]:
    """Return the quality of each prover for a policy, the most promising first.

    Steps are the policy's samples, a step that was sampled twice counts twice, and a state counts as often as it was
    visited; intervals are over redrawn states.

    Args:
        policy: Completions of the policy, with its values; several of each problem.
        provers: By name, the same completions in the same order with the values of another policy, and the attempts of
            the prover; of the policy's own values too, for a prover that takes the best of several attempts.

    Raises:
        DataError: If no two completions take different steps from the same state, or a prover has no values of them.
    """
    own = values_of_siblings(policy)
    if all(len(set(siblings.steps)) < 2 for siblings in own.values()):
        raise DataError("no two completions take different steps from the same state: sample several of each problem.")
    found: dict[str, ProverQuality] = {}
    for name, (trajectories, k) in provers.items():
        theirs = values_of_siblings(trajectories, k)
        if theirs.keys() != own.keys() or any(theirs[s].steps != siblings.steps for s, siblings in own.items()):
            raise DataError(f"the values of {name} are of other completions than the policy's.")
        found[name] = _quality_by_visits([(siblings.values, theirs[s].values) for s, siblings in own.items()])
    return dict(sorted(found.items(), key=lambda item: -item[1].improvement.mean))


def _quality_by_visits(states: Sequence[tuple[Sequence[float], Sequence[float]]]) -> ProverQuality:
    """Return a prover's quality from the policy's values and its own after the steps of each state."""
    visits = [len(own) for own, _ in states]
    variances, covariances = zip(*(_terms(own, theirs) for own, theirs in states), strict=True)

    def estimate(terms: Sequence[float]) -> Estimate:
        def mean(chosen: Sequence[int]) -> float:
            return sum(visits[i] * terms[i] for i in chosen) / sum(visits[i] for i in chosen)

        return bootstrap_interval(mean, len(terms))

    both = [v + c for v, c in zip(variances, covariances, strict=True)]
    return ProverQuality(estimate(variances), estimate(covariances), estimate(both))
