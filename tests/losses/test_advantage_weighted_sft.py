"""Weights of steps: golden numbers, the clip, and refusals."""

import math

import pytest
import torch

from surefoot.errors import ConfigError
from surefoot.losses import advantage_weights


def test_golden_numbers() -> None:
    """e^(.5/.5) = 2.71828, e^0 = 1, e^(-1/.5) = .135335; with a largest weight of 2 the first is clipped."""
    advantages = torch.tensor([0.5, 0.0, -1.0])
    free = advantage_weights(advantages, 0.5)
    torch.testing.assert_close(free.weights, torch.tensor([2.718282, 1.0, 0.135335]))
    assert not free.clipped.any()
    clipped = advantage_weights(advantages, 0.5, 2.0)
    torch.testing.assert_close(clipped.weights, torch.tensor([2.0, 1.0, 0.135335]))
    assert clipped.clipped.tolist() == [True, False, False]


def test_weights_are_1_where_beta_is_large_and_finite_where_it_is_small() -> None:
    advantages = torch.linspace(-1, 1, 9)
    assert advantage_weights(advantages, 1e12).weights.equal(torch.ones(9))
    assert advantage_weights(advantages, 1e-6, 20.0).weights.tolist() == [0.0] * 4 + [1.0] + [20.0] * 4


def test_weights_have_no_gradient() -> None:
    advantages = torch.zeros(2, requires_grad=True)
    assert not advantage_weights(advantages, 1.0).weights.requires_grad


@pytest.mark.parametrize(("beta", "max_weight"), [(0.0, 20.0), (-1.0, 20.0), (math.inf, 20.0), (1.0, 0.5)])
def test_settings_out_of_range_are_refused(beta: float, max_weight: float) -> None:
    with pytest.raises(ConfigError, match=f"expected a finite beta > 0 and max_weight >= 1, got {beta} and"):
        advantage_weights(torch.zeros(1), beta, max_weight)
