import pytest
import torch
from torch.nn import functional as F

from surefoot.losses import (
    class_maximum,
    generalized_cross_entropy,
    relative_difficulty,
    upsampling_multiplicity,
)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(1, 2), (6, 3), (16, 10)])
def test_gradient_is_q_times_that_of_the_definition(q: float, shape: tuple[int, int]) -> None:
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, shape[1], (shape[0],))
    (ours,) = torch.autograd.grad(generalized_cross_entropy(logits, target, q).sum(), logits)
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    (definition,) = torch.autograd.grad(((1 - p**q) / q).sum(), logits)
    torch.testing.assert_close(ours, q * definition, rtol=1e-9, atol=1e-12)


def test_golden_value() -> None:
    # p_y = 1/2: cross-entropy ln 2, times 0.7 * 0.5 ** 0.7
    value = generalized_cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    torch.testing.assert_close(value, F.cross_entropy(torch.zeros(1, 2), torch.tensor([0])).reshape(1) * 0.7 * 0.5**0.7)


def test_refuses_q_outside_the_unit_interval() -> None:
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\], got 0"):
        generalized_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), 0.0)


def test_relative_difficulty_is_a_share_and_half_when_equal() -> None:
    biased, debiased = torch.rand(50) * 5, torch.rand(50) * 5
    weights = relative_difficulty(biased, debiased)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    torch.testing.assert_close(relative_difficulty(biased, biased), torch.full((50,), 0.5))
    torch.testing.assert_close(relative_difficulty(torch.zeros(3), torch.zeros(3)), torch.full((3,), 0.5))


def test_class_maximum_by_hand() -> None:
    losses, target = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0, 2, 0])
    torch.testing.assert_close(class_maximum(losses, target, 3), torch.tensor([2.0, 0.0, 4.0]))


def test_multiplicity_is_one_plus_the_upweight() -> None:
    errors = torch.tensor([False, True, False])
    torch.testing.assert_close(upsampling_multiplicity(errors, 20.0), torch.tensor([1.0, 21.0, 1.0]))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        upsampling_multiplicity(errors, -1.0)
