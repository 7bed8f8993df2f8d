import math

import pytest
import torch
from torch import Tensor

from surefoot.losses import (
    adversary_objective,
    br_dro_example_weights,
    br_dro_risk,
    cvar_example_weights,
    loss_quantile,
    tail_classification_loss,
)


def test_golden_objective() -> None:
    # mean of (1*(3-1), 0.5*(1-1), 0*(0-1)) = 2/3; minus 0.1 * 2
    weights, losses = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([3.0, 1.0, 0.0])
    value = adversary_objective(weights, losses, torch.tensor(1.0), torch.tensor(2.0), 0.1)
    assert float(value) == pytest.approx(2 / 3 - 0.2, rel=1e-6)


def test_golden_tail_loss() -> None:
    # One example in the tail with logit 0 (ln 2), two in the bulk with logits 0 and ln 3 (ln 2 and ln 4).
    logits = torch.tensor([0.0, 0.0, math.log(3)])
    loss = tail_classification_loss(logits, torch.tensor([9.0, 1.0, 1.0]), torch.tensor(2.0))
    assert float(loss) == pytest.approx((math.log(2) + (math.log(2) + math.log(4)) / 2) / 2, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_tail_loss_equals_a_naive_loop(batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    logits, losses = (torch.randn(batch, generator=generator, dtype=torch.float64) for _ in range(2))
    sides: dict[bool, list[float]] = {True: [], False: []}
    for z, loss in zip(logits.tolist(), losses.tolist(), strict=True):
        tail = loss > 0.2
        p = 1 / (1 + math.exp(-z))
        sides[tail].append(-math.log(p if tail else 1 - p))
    naive = sum(sum(v) / len(v) for v in sides.values() if v) / 2
    value = tail_classification_loss(logits, losses, torch.tensor(0.2, dtype=torch.float64))
    assert float(value) == pytest.approx(naive, rel=1e-9)


def test_gradients() -> None:
    weights = torch.rand(5, dtype=torch.float64, requires_grad=True)
    losses, threshold = torch.rand(5, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)

    def objective(w: Tensor) -> Tensor:
        return adversary_objective(w, losses, threshold, w.square().sum(), 0.3)

    assert torch.autograd.gradcheck(objective, weights)
    assert torch.autograd.gradcheck(lambda z: tail_classification_loss(z, losses, threshold), weights)


def test_no_gradient_reaches_the_losses_through_the_adversary_or_the_weights() -> None:
    losses = torch.rand(4, requires_grad=True)
    weights = torch.rand(4, requires_grad=True)
    assert not adversary_objective(weights.detach(), losses, torch.tensor(0.1), torch.tensor(0.0), 1.0).requires_grad
    assert not br_dro_example_weights(weights, 0.1).requires_grad


@pytest.mark.parametrize("level", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("batch", [20, 40, 50])
def test_unrestricted_best_response_is_cvar(level: float, batch: int) -> None:
    losses = torch.rand(batch, dtype=torch.float64, generator=torch.Generator().manual_seed(batch))
    eta = loss_quantile(losses, level)
    response = (losses > eta).double()
    cvar = (cvar_example_weights(losses, level) * losses).sum()
    torch.testing.assert_close(br_dro_risk(response, losses, eta, level), cvar, rtol=1e-9, atol=0)
    if float(level * batch).is_integer():
        for normalisation in ("level", "batch"):
            weights = br_dro_example_weights(response, level, normalisation)
            torch.testing.assert_close(weights, cvar_example_weights(losses, level), rtol=1e-9, atol=0)


def test_constant_weights_are_erm() -> None:
    weights = br_dro_example_weights(torch.full((8,), 0.37), 0.1)
    torch.testing.assert_close(weights, torch.full((8,), 1 / 8), rtol=1e-6, atol=0)


def test_saturated_adversary_cannot_freeze_the_learner() -> None:
    assert float(br_dro_example_weights(torch.zeros(8), 0.1, floor=0.01).sum()) == pytest.approx(1)
    assert float(br_dro_example_weights(torch.zeros(8), 0.1).sum()) == 0  # no floor: nothing is learnt, nothing is NaN
