"""Weights of steps by their advantages."""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from surefoot.errors import ConfigError

__all__ = ("AdvantageWeights", "advantage_weights", "check_weighting")


class AdvantageWeights(NamedTuple):
    """Weights of steps in the loss; no gradient."""

    weights: Tensor  # (steps,)
    clipped: Tensor  # whether the largest weight bounds it, (steps,)


def advantage_weights(
    advantages: Float[Tensor, " steps"], beta: float, max_weight: float = math.inf
) -> AdvantageWeights:
    """Return ``min(exp(A / beta), max_weight)`` of each step's advantage A.

    The weighted log-likelihood of a policy's own steps is largest at the policy times ``exp(A / beta)``, normalised in
    each state.

    Args:
        advantages: Of steps, each by how much it makes a right end more likely, in [-1, 1].
        beta: Temperature; the lower, the more the best steps count.
        max_weight: Largest weight, at least 1, that of a step which changes nothing.

    Raises:
        ConfigError: If beta is not positive and finite, or the largest weight below 1.

    References: Setlur et al. 2024, arXiv 2406.14532, eq. 4; Peng et al. 2019, arXiv 1910.00177, for the clipping.
    """
    check_weighting(beta, max_weight)
    weights = (advantages.detach() / beta).exp()
    return AdvantageWeights(weights.clamp(max=max_weight), weights > max_weight)


def check_weighting(beta: float, max_weight: float) -> None:
    """Raise a `ConfigError` unless these are settings of `advantage_weights`."""
    if not 0 < beta < math.inf or not max_weight >= 1:
        raise ConfigError(f"expected a finite beta > 0 and max_weight >= 1, got {beta} and {max_weight}.")
