import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.losses import cvar_dual_loss, cvar_example_weights, loss_quantile

LEVELS = [0.05, 0.1, 0.33, 0.5, 1.0]


def test_golden() -> None:
    # level .5 of 3 examples: 1.5 examples in the tail, so weights 1/1.5, 0.5/1.5, 0
    weights = cvar_example_weights(torch.tensor([1.0, 3.0, 2.0]), 0.5)
    torch.testing.assert_close(weights, torch.tensor([0.0, 2 / 3, 1 / 3]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("batch", [1, 2, 10, 64])
def test_equals_a_sorting_oracle(level: float, batch: int) -> None:
    losses = torch.rand(batch, dtype=torch.float64, generator=torch.Generator().manual_seed(batch))
    remaining, oracle = level * batch, 0.0
    for value in sorted(losses.tolist(), reverse=True):
        share = min(1.0, remaining)
        oracle += share * value / (level * batch)
        remaining = max(0.0, remaining - share)
    weights = cvar_example_weights(losses, level)
    assert float((weights * losses).sum()) == pytest.approx(oracle, rel=1e-9)
    assert float(weights.sum()) == pytest.approx(1, rel=1e-9)
    assert float(weights.max()) <= 1 / (level * batch) * (1 + 1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_primal_equals_the_dual_minimum(level: float) -> None:
    losses = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    primal = float((cvar_example_weights(losses, level) * losses).sum())
    dual = min(float(cvar_dual_loss(losses, eta, level)) for eta in losses)  # minimised at a loss
    assert dual == pytest.approx(primal, rel=1e-9)


def test_level_one_is_erm() -> None:
    torch.testing.assert_close(cvar_example_weights(torch.rand(5), 1.0), torch.full((5,), 0.2))


@given(
    st.lists(st.floats(-5, 5, allow_nan=False, width=32), min_size=2, max_size=20),
    st.sampled_from(LEVELS),
)
def test_permuting_the_batch_permutes_the_weighted_losses(values: list[float], level: float) -> None:
    losses = torch.tensor(values, dtype=torch.float64)
    total = float((cvar_example_weights(losses, level) * losses).sum())
    flipped = losses.flip(0)
    assert float((cvar_example_weights(flipped, level) * flipped).sum()) == pytest.approx(total, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("level", [0.0, -0.1, 1.1, math.nan])
def test_refuses_levels_outside_the_unit_interval(level: float) -> None:
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\]"):
        cvar_example_weights(torch.rand(3), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("batch", [1, 4, 20, 64])
def test_quantile_leaves_the_whole_part_of_the_tail_above(level: float, batch: int) -> None:
    losses = torch.randperm(batch, generator=torch.Generator().manual_seed(0)).double()
    assert int((losses > loss_quantile(losses, level)).sum()) == math.floor(level * batch + 1e-9)


def test_dual_gradient() -> None:
    losses = torch.rand(6, dtype=torch.float64, requires_grad=True)
    eta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, e: cvar_dual_loss(x, e, 0.3), (losses, eta))
