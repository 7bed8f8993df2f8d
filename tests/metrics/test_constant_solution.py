import math

import pytest
import torch
from torch.nn import functional as F

from surefoot.metrics.constant_solution import (
    Moments,
    class_constant,
    gaussian_constant,
    gaussian_kl,
    gaussian_nll,
    kl_to_class_constant,
    mean_constant,
    median_constant,
    reward_constant,
)

TARGET = torch.tensor([0, 0, 0, 1, 1, 2])


def test_marginal_by_hand() -> None:
    torch.testing.assert_close(class_constant(TARGET, 3), torch.tensor([3, 2, 1]).double() / 6)
    # smoothing 0.3: 0.7 * share + 0.1 = 0.45, 1/3, 13/60; weights 1, 3, 0 make 0.45 : 1 : 0
    constant = class_constant(TARGET, 3, 0.3, torch.tensor([1.0, 3.0, 0.0]))
    torch.testing.assert_close(constant, torch.tensor([0.45, 1.0, 0.0]).double() / 1.45)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.5]])
def test_class_constant_minimises_torchs_own_loss(smoothing: float, weights: list[float] | None) -> None:
    """Gradient descent on constant logits, with torch's loss as the oracle, ends at the closed form."""
    weight = None if weights is None else torch.tensor(weights).double()
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=200,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.expand(6, 3), TARGET, weight=weight, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    constant = class_constant(TARGET, 3, smoothing, weight)
    torch.testing.assert_close(logits.detach().softmax(0), constant, rtol=1e-6, atol=1e-8)


def test_example_weights_are_how_often_examples_are_drawn() -> None:
    weights = torch.tensor([1.0, 1, 1, 1.5, 1.5, 3])  # class-balanced
    torch.testing.assert_close(class_constant(TARGET, 3, weights=weights), torch.full((3,), 1 / 3).double())
    repeated = torch.tensor([0.0, 0.0, 5.0, 9.0])
    drawn = torch.tensor([2.0, 1.0, 1.0])
    values = torch.tensor([0.0, 5.0, 9.0])
    assert float(mean_constant(values, drawn)) == pytest.approx(float(mean_constant(repeated)))
    assert float(median_constant(values, drawn)) == float(median_constant(repeated)) == 0.0


def test_regression_constants_minimise_their_losses() -> None:
    target = torch.randn(31, generator=torch.Generator().manual_seed(0)).double() * 3 + 1
    around = torch.linspace(-1, 1, 201).double()
    mean, median = mean_constant(target), median_constant(target)
    squared = ((target - (mean + around)[:, None]) ** 2).mean(1)
    absolute = (target - (median + around)[:, None]).abs().mean(1)
    assert int(squared.argmin()) == int(absolute.argmin()) == 100
    moments = gaussian_constant(target)
    best = gaussian_nll(moments.mean, moments.std.log(), target).mean()
    for mean_off, std_off in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        other = gaussian_nll(moments.mean + mean_off, moments.std.log() + std_off, target)
        assert other.mean() > best


def test_reward_constant_by_hand() -> None:
    # ten balanced classes: 1 * 0.1 - 4 * 0.9 = -3.5; 200 classes: -3.975 (the paper's numbers)
    for n, expected in ((10, -3.5), (200, -3.975)):
        constant = reward_constant(torch.arange(n), n)
        torch.testing.assert_close(constant[:-1], torch.full((n,), expected).double())
        assert float(constant[-1]) == 0.0
    assert reward_constant(torch.arange(10), 10, 2.0, -1.0, 0.5)[-1] == 0.5


def test_distances_against_torchs_distributions() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    constant = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    given = torch.distributions.Categorical(logits=logits)
    expected = torch.distributions.kl_divergence(given, torch.distributions.Categorical(constant))
    torch.testing.assert_close(kl_to_class_constant(logits, constant), expected, rtol=1e-9, atol=0)
    mean, log_std = logits[:, 0], logits[:, 1]
    moments = Moments(torch.tensor(0.7).double(), torch.tensor(1.9).double())
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(*moments)
    )
    torch.testing.assert_close(gaussian_kl(mean, log_std, moments), expected, rtol=1e-9, atol=1e-12)
    expected = -torch.distributions.Normal(mean, log_std.exp()).log_prob(logits[:, 2])
    torch.testing.assert_close(gaussian_nll(mean, log_std, logits[:, 2]), expected)


def test_distances_are_zero_at_the_constant_and_never_infinite() -> None:
    constant = class_constant(TARGET, 3)
    at = kl_to_class_constant(constant.log()[None], constant)
    torch.testing.assert_close(at, torch.zeros(1).double(), rtol=0, atol=1e-12)
    saturated = torch.tensor([[1000.0, 0.0, -1000.0]])  # the probabilities underflow
    absent = class_constant(torch.tensor([0, 1]), 3)  # a class that training lacks
    for distance in (
        kl_to_class_constant(saturated, constant.float()),
        kl_to_class_constant(saturated.flip(1), absent.float()),
    ):
        assert bool(distance.isfinite().all())
    assert float(kl_to_class_constant(saturated.flip(1), absent.float())) == pytest.approx(-math.log(1e-6))


def test_no_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one training target"):
        class_constant(torch.zeros(0, dtype=torch.long), 3)
