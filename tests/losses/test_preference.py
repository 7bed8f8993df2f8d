"""DPO's loss: golden numbers, a loop from the equation, and laws."""

import math

import pytest
import torch

from surefoot.losses import dpo_loss


def test_golden_numbers() -> None:
    """Log-ratios 1 and -1, beta .5: margin 1, loss ln(1 + e^-1) = .313262."""
    result = dpo_loss(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.0)), 0.5)
    assert result.losses.item() == pytest.approx(0.313262, rel=1e-5)
    assert (result.chosen_rewards.item(), result.rejected_rewards.item()) == (0.5, -0.5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_equals_the_equation(beta: float, smoothing: float) -> None:
    values = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = dpo_loss(*values, beta, smoothing).losses
    for i in range(7):
        c, r, rc, rr = values[:, i].tolist()
        margin = beta * ((c - rc) - (r - rr))
        expected = (1 - smoothing) * math.log1p(math.exp(-margin)) + smoothing * math.log1p(math.exp(margin))
        assert found[i].item() == pytest.approx(expected, rel=1e-9)


def test_gradcheck_and_range() -> None:
    values = [torch.randn(3, dtype=torch.float64, requires_grad=i < 2) for i in range(4)]
    assert torch.autograd.gradcheck(lambda c, r: dpo_loss(c, r, *values[2:]).losses, tuple(values[:2]))
    x = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"expected a finite beta > 0 and label_smoothing in \[0, 0.5\), got 0 and 0.0"
    ):
        dpo_loss(x, x, x, x, 0)
    large = dpo_loss(torch.tensor([-1e6]), torch.tensor([0.0]), x, x, 1.0).losses
    assert large.isfinite().all()


def test_at_the_reference_the_loss_is_ln_2_whatever_the_pair() -> None:
    c, r = torch.randn(2, 5)
    torch.testing.assert_close(dpo_loss(c, r, c, r).losses, torch.full((5,), math.log(2)))
