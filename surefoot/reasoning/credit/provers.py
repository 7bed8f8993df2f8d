"""How good a prover is for a policy, before any of it is learned from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from surefoot.errors import DataError
from surefoot.reasoning.credit.progress import prover_values
from surefoot.reasoning.trajectories import Trajectory
from surefoot.statistics import Estimate, mean_interval

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
        q, mu = torch.tensor(own, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
        if probabilities is None:
            weights, correction = torch.full_like(q, 1 / len(q)), len(q) / (len(q) - 1)
        else:
            weights, correction = torch.tensor(probabilities[state], dtype=torch.float64), 1.0
        centred = mu - (weights * mu).sum()
        variances.append(correction * float((weights * centred.square()).sum()))
        covariances.append(correction * float((weights * centred * (q - (weights * q).sum())).sum()))
    both = [v + c for v, c in zip(variances, covariances, strict=True)]
    return ProverQuality(mean_interval(variances), mean_interval(covariances), mean_interval(both))


def values_of_siblings(
    trajectories: Sequence[Trajectory], k: int = 1
) -> dict[tuple[int, ...], dict[tuple[int, ...], float]]:
    """Return the values after steps that begin in one state: state -> step -> value, where there are two or more.

    Args:
        trajectories: With values; those of a problem have one prompt.
        k: Attempts of the prover; see `prover_values`.
    """
    found: dict[Tokens, dict[Tokens, float]] = defaultdict(dict)
    for t in trajectories:
        values = prover_values(t, k)
        for span, value in zip(t.token_spans(), values[1:], strict=True):
            state = (*t.prompt, *t.completion[: span.start])
            found[state][tuple(t.completion[span.start : span.end])] = value
    return {state: steps for state, steps in found.items() if len(steps) > 1}


def rank_provers(
    policy: Sequence[Trajectory], provers: Mapping[str, tuple[Sequence[Trajectory], int]]
) -> dict[str, ProverQuality]:
    """Return the quality of each prover for a policy, the most promising first.

    Args:
        policy: Completions of the policy, with its values.
        provers: By name, the same completions with the values of another policy, and the attempts of the prover; of the
            policy's own values too, for a prover that takes the best of several attempts.

    Raises:
        DataError: If no two completions part after a common beginning, or a prover has no values of them.
    """
    own = values_of_siblings(policy)
    if not own:
        raise DataError("no two completions take different steps from the same state: sample several of each problem.")
    found: dict[str, ProverQuality] = {}
    for name, (trajectories, k) in provers.items():
        theirs = values_of_siblings(trajectories, k)
        if any(state not in theirs or steps.keys() != theirs[state].keys() for state, steps in own.items()):
            raise DataError(f"the values of {name} are of other completions than the policy's.")
        pairs = [([*steps.values()], [theirs[s][step] for step in steps]) for s, steps in own.items()]
        found[name] = prover_quality([q for q, _ in pairs], [mu for _, mu in pairs])
    return dict(sorted(found.items(), key=lambda item: -item[1].improvement.mean))
