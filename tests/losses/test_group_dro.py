import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.losses import (
    group_dro_example_weights,
    initial_group_weights,
    update_group_log_weights,
)


def test_golden_update() -> None:
    # q = (1/2, 1/2), losses (0, ln 3), step 1 -> (1, 3) / 4
    log_weights = torch.tensor([0.5, 0.5]).log()
    out = update_group_log_weights(log_weights, torch.tensor([0.0, math.log(3)]), 1.0)
    torch.testing.assert_close(out.exp(), torch.tensor([0.25, 0.75]))


def test_three_steps_equal_closed_form() -> None:
    losses = torch.tensor([[0.1, 0.9, 0.4], [0.3, 0.2, 0.8], [0.5, 0.5, 0.1]], dtype=torch.float64)
    log_weights = torch.zeros(3, dtype=torch.float64).log_softmax(0)
    for row in losses:
        log_weights = update_group_log_weights(log_weights, row, 0.7)
    expected = torch.exp(0.7 * losses.sum(0))
    torch.testing.assert_close(log_weights.exp(), expected / expected.sum(), rtol=1e-9, atol=0)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=6), st.floats(0, 10))
def test_stays_on_the_simplex_and_never_underflows_to_nan(losses: list[float], step: float) -> None:
    log_weights = torch.zeros(len(losses), dtype=torch.float64).log_softmax(0)
    for _ in range(3):
        log_weights = update_group_log_weights(log_weights, torch.tensor(losses, dtype=torch.float64), step)
    assert bool(log_weights.isfinite().all())
    assert float(log_weights.exp().sum()) == pytest.approx(1, rel=1e-9)


def test_no_step_changes_nothing_and_negative_steps_are_refused() -> None:
    log_weights = torch.tensor([0.2, 0.8]).log()
    torch.testing.assert_close(update_group_log_weights(log_weights, torch.tensor([1.0, 5.0]), 0.0), log_weights)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        update_group_log_weights(log_weights, torch.tensor([1.0, 5.0]), -1.0)


@pytest.mark.parametrize("n_groups", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_weighted_sum_equals_a_naive_loop(n_groups: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    losses = torch.rand(batch, generator=generator, dtype=torch.float64)
    group = torch.randint(0, n_groups, (batch,), generator=generator)
    q = torch.rand(n_groups, generator=generator, dtype=torch.float64)
    q = q / q.sum()
    naive = 0.0
    for g in range(n_groups):
        members = [float(losses[i]) for i in range(batch) if int(group[i]) == g]
        if members:
            naive += float(q[g]) * sum(members) / len(members)
    weights = group_dro_example_weights(q.log(), group)
    assert float((weights * losses).sum()) == pytest.approx(naive, rel=1e-9)


def test_one_group_is_the_mean() -> None:
    weights = group_dro_example_weights(torch.zeros(1), torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(weights, torch.full((8,), 1 / 8))


def test_groups_without_training_examples_have_no_weight_now_or_later() -> None:
    start = initial_group_weights(torch.tensor([100.0, 0.0, 25.0, 0.0]), adjustment=3.0)
    # Even over the two that are there; 3 / sqrt(100) and 3 / sqrt(25).
    torch.testing.assert_close(start.log_weights.exp(), torch.tensor([0.5, 0.0, 0.5, 0.0]))
    torch.testing.assert_close(start.adjustments, torch.tensor([0.3, 0.0, 0.6, 0.0]))
    log_weights = start.log_weights
    for _ in range(3):
        log_weights = update_group_log_weights(log_weights, torch.tensor([0.2, 0.0, 0.9, 5.0]), 0.7)
    expected = torch.tensor([0.2, 0.9]).mul(3 * 0.7).softmax(0)
    torch.testing.assert_close(log_weights.exp()[[0, 2]], expected)
    assert log_weights.exp()[[1, 3]].tolist() == [0, 0]
    with pytest.raises(ValueError, match="no group has a training example"):
        initial_group_weights(torch.zeros(2))
