"""DPO's and IPO's losses: golden numbers, loops from the equations, and laws."""

import math

import pytest
import torch

from surefoot.errors import ConfigError
from surefoot.losses.preference import PreferenceKind, dpo_loss


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


def test_golden_numbers_of_ipo() -> None:
    """Log-ratios 1 and -1, beta .5: margin 2 and target 1 / (2 * .5) = 1, loss 1, slope 2 in the chosen one."""
    chosen = torch.tensor([-1.0], requires_grad=True)
    result = dpo_loss(chosen, *(torch.tensor([x]) for x in (-3.0, -2.0, -2.0)), 0.5, kind="ipo")
    result.losses.sum().backward()
    assert (result.losses.item(), chosen.grad.item()) == (1.0, 2.0)
    assert (result.chosen_rewards.item(), result.rejected_rewards.item()) == (0.5, -0.5)


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_ipo_equals_its_equation_and_its_gradient(beta: float) -> None:
    """Azar et al., eq. 17: (h - 1 / (2 tau))^2, whose slope is 2 (h - 1 / (2 tau)) in h."""
    values = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen, rejected = (values[i].clone().requires_grad_() for i in range(2))
    losses = dpo_loss(chosen, rejected, values[2], values[3], beta, kind="ipo").losses
    losses.sum().backward()
    for i in range(7):
        c, r, rc, rr = values[:, i].tolist()
        distance = math.log(math.exp(c) * math.exp(rr) / (math.exp(r) * math.exp(rc))) - 1 / (2 * beta)
        assert losses[i].item() == pytest.approx(distance**2, rel=1e-9)
        assert chosen.grad[i].item() == pytest.approx(2 * distance, rel=1e-9)
        assert rejected.grad[i].item() == pytest.approx(-2 * distance, rel=1e-9)


def test_ipo_has_a_best_margin_and_the_sigmoid_has_none() -> None:
    """Beyond 1 / (2 beta) = 5 nats IPO's loss rises, and the sigmoid's falls on."""
    margins, zero = torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    ipo, sigmoid = (dpo_loss(margins, zero, zero, zero, 0.1, kind=kind).losses for kind in ("ipo", "sigmoid"))
    torch.testing.assert_close(ipo, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    assert (sigmoid.diff() < 0).all()


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_gradcheck(kind: PreferenceKind) -> None:
    values = [torch.randn(3, dtype=torch.float64, requires_grad=i < 2) for i in range(4)]
    assert torch.autograd.gradcheck(lambda c, r: dpo_loss(c, r, *values[2:], kind=kind).losses, tuple(values[:2]))


def test_range() -> None:
    x = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"expected a finite beta > 0 and label_smoothing in \[0, 0.5\), got 0 and 0.0"
    ):
        dpo_loss(x, x, x, x, 0)
    with pytest.raises(ConfigError, match=r"belongs to the sigmoid loss: set it to 0 for ipo, got 0\.1"):
        dpo_loss(x, x, x, x, 0.1, 0.1, "ipo")
    large = dpo_loss(torch.tensor([-1e6]), torch.tensor([0.0]), x, x, 1.0).losses
    assert large.isfinite().all()


def test_at_the_reference_the_loss_is_ln_2_whatever_the_pair() -> None:
    c, r = torch.randn(2, 5)
    torch.testing.assert_close(dpo_loss(c, r, c, r).losses, torch.full((5,), math.log(2)))
