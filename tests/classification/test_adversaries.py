import math
from itertools import pairwise

import pytest
import torch

from surefoot.classification.adversaries import (
    Adversary,
    ConstantAdversary,
    LinearAdversary,
    MLPAdversary,
    UnrestrictedAdversary,
    VIBAdversary,
    gaussian_bits,
)

CLASSES = (ConstantAdversary, LinearAdversary, MLPAdversary, UnrestrictedAdversary, VIBAdversary)


@pytest.mark.parametrize("make", CLASSES)
@pytest.mark.parametrize("batch", [1, 9])
def test_weights_are_in_the_unit_interval(make: type[Adversary], batch: int) -> None:
    adversary = make(4, 3)
    x, y, losses = torch.randn(batch, 4), torch.randint(0, 3, (batch,)), torch.rand(batch)
    weights = adversary.respond(x, y, losses, torch.tensor(0.5))
    assert weights.shape == (batch,)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert adversary.complexity(x, y).shape == ()


def test_linear_adversary_starts_undecided_and_keeps_labels_apart() -> None:
    adversary = LinearAdversary(2, 2)
    x, y = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([0, 1])
    assert adversary(x, y).tolist() == [0.0, 0.0]
    with torch.no_grad():
        adversary.weight[1] = torch.tensor([3.0, -1.0])
    assert adversary(x, y).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("norm", "expected"), [("l1", 4.0), ("l2", 10.0)])
def test_norms_by_hand(norm: str, expected: float) -> None:
    adversary = LinearAdversary(2, 1, norm=norm)  # type: ignore[arg-type]
    with torch.no_grad():
        adversary.weight[0] = torch.tensor([3.0, -1.0])
    complexity = adversary.complexity(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    assert float(complexity.detach()) == expected


def test_gaussian_bits_equal_torchs_divergence() -> None:
    mean, scale = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.rand(5, 3, dtype=torch.float64) + 0.1,
    )
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, scale), normal(torch.zeros(5, 3), torch.ones(5, 3)))
    torch.testing.assert_close(gaussian_bits(mean, scale), expected.double().sum(1).mean(), rtol=1e-9, atol=0)
    assert float(gaussian_bits(torch.zeros(2, 3), torch.ones(2, 3))) == pytest.approx(0, abs=1e-7)


def test_unrestricted_adversary_marks_the_losses_above_the_threshold() -> None:
    adversary = UnrestrictedAdversary(4, 2)
    losses = torch.tensor([0.2, 0.9, 0.5])
    y = torch.zeros(3, dtype=torch.long)
    assert adversary.respond(torch.zeros(3, 4), y, losses, torch.tensor(0.5)).tolist() == [
        0.0,
        1.0,
        0.0,
    ]


def test_vib_noise_depends_on_its_own_count_alone() -> None:
    @torch.no_grad()
    def draws(adversary: VIBAdversary) -> list[float]:
        x, y = torch.ones(2, 3), torch.zeros(2, dtype=torch.long)
        return [float(adversary(x, y)[0]) for _ in range(3)]

    torch.manual_seed(0)
    first = VIBAdversary(3, 2)
    state = first.state_dict()
    before = torch.get_rng_state()
    values = draws(first)
    assert torch.get_rng_state().equal(before)
    second = VIBAdversary(3, 2)
    second.load_state_dict(state)
    assert draws(second) == values
    assert len(set(values)) == 3
    assert all(a != b for a, b in pairwise(values))


@pytest.mark.parametrize("make", [LinearAdversary, MLPAdversary, VIBAdversary])
def test_ascent_raises_the_objective(make: type[Adversary]) -> None:
    from surefoot.losses import adversary_objective

    torch.manual_seed(0)
    adversary = make(3, 2)
    x, y = torch.randn(64, 3), torch.randint(0, 2, (64,))
    losses = (x[:, 0] > 0).float()  # a simple function of the observation

    def objective() -> torch.Tensor:
        weights = adversary.respond(x, y, losses, torch.tensor(0.5))
        return adversary_objective(weights, losses, torch.tensor(0.5), adversary.complexity(x, y), 1e-4)

    optimizer = torch.optim.Adam(adversary.parameters(), lr=0.05)
    start = float(objective().detach())
    for _ in range(100):
        optimizer.zero_grad()
        (-objective()).backward()
        optimizer.step()
    assert float(objective().detach()) > start + 0.05
    weights = adversary.respond(x, y, losses, torch.tensor(0.5)).detach()
    assert float(weights[losses == 1].mean() - weights[losses == 0].mean()) > 0.3
    assert math.isfinite(start)
