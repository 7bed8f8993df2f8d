import pytest
import torch
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.losses.prediction import (
    UNLABELLED,
    AbsoluteError,
    CrossEntropy,
    GaussianNLL,
    PredictionLoss,
    RewardPrediction,
    SquaredError,
)

LOSSES: dict[str, PredictionLoss] = {
    "cross_entropy": CrossEntropy(),
    "smoothed": CrossEntropy(0.1, [1.0, 2.0, 0.5]),
    "squared": SquaredError(),
    "absolute": AbsoluteError(),
    "gaussian": GaussianNLL(),
    "reward": RewardPrediction(),
}
TARGET = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])


def outputs_of(loss: PredictionLoss, constant: Tensor) -> Tensor:
    """Return network outputs whose prediction is the constant."""
    if isinstance(loss, CrossEntropy):
        return constant.log()[None]
    if isinstance(loss, GaussianNLL):
        return torch.stack([constant[0], constant[1].log()])[None]
    return constant[None]


@pytest.mark.parametrize("name", LOSSES)
def test_no_constant_output_beats_the_optimal_one(name: str) -> None:
    """The same loss that trains is lowest, over 300 other constants, at the constant that is claimed to be optimal."""
    loss = LOSSES[name]
    constant = loss.constant(TARGET, 3)
    best = outputs_of(loss, constant)
    torch.testing.assert_close(loss.predictions(best)[0], constant)
    at_best = loss.losses(best.expand(len(TARGET), -1), TARGET).mean()
    generator = torch.Generator().manual_seed(0)
    for scale in (0.01, 0.1, 1.0):
        for _ in range(100):
            noise = scale * torch.randn(best.shape, generator=generator).double()
            other = loss.losses((best + noise).expand(len(TARGET), -1), TARGET).mean()
            assert float(other) >= float(at_best) - 1e-12


@pytest.mark.parametrize("name", LOSSES)
def test_distance_is_zero_at_the_constant_and_positive_elsewhere(name: str) -> None:
    loss = LOSSES[name]
    constant = loss.constant(TARGET, 3)
    best = outputs_of(loss, constant)
    assert float(loss.distances(best, constant)) == pytest.approx(0, abs=1e-12)
    other = best + torch.linspace(1, 2, best.shape[1]).double()
    assert float(loss.distances(other, constant)) > 0.01


@pytest.mark.parametrize("name", LOSSES)
def test_unlabelled_examples_cost_nothing_and_gradients_are_right(name: str) -> None:
    loss = LOSSES[name]
    n_outputs = loss.n_outputs(3)
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(4, n_outputs, generator=generator).double().requires_grad_()
    target = torch.tensor([0, UNLABELLED, 2, 1])
    losses = loss.losses(outputs, target)
    assert float(losses[1].detach()) == 0
    assert bool((losses[[0, 2, 3]] != 0).all())
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert float(gradient[1].abs().sum()) == 0
    assert torch.autograd.gradcheck(lambda o: loss.losses(o, target), (outputs,))


def test_rewards_by_hand() -> None:
    loss = RewardPrediction(1.0, -4.0, 0.0)
    outputs = torch.tensor([[1.0, -4.0, 0.0], [0.0, 0.0, 0.0]])
    # the second: (0 - 1)^2 + (0 + 4)^2 + 0 over three actions; its true class is 0
    assert loss.losses(outputs, torch.tensor([0, 0])).tolist() == pytest.approx([0.0, 17 / 3])
    assert loss.class_scores(outputs).shape == (2, 2)
    assert loss.n_outputs(10) == 11


def test_gaussian_warm_up_is_squared_error() -> None:
    loss, outputs = GaussianNLL(warmup_epochs=2), torch.tensor([[1.5, 0.0], [0.0, 1.0]])
    target = torch.tensor([1, 2])
    torch.testing.assert_close(loss.training_losses(outputs, target, 1), SquaredError().losses(outputs[:, :1], target))
    torch.testing.assert_close(loss.training_losses(outputs, target, 2), loss.losses(outputs, target))


def test_confidence_and_signal_of_classifiers() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0]])
    loss = CrossEntropy()
    assert float(loss.confidences(logits)) == pytest.approx(float(logits.softmax(1).max()))
    torch.testing.assert_close(loss.signal(logits + 7), loss.signal(logits))
    assert SquaredError().class_scores(logits) is None
    assert RewardPrediction().confidences(logits) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (lambda: CrossEntropy(0.0, [-1.0, 1.0]), "class_weights must be at least 0"),
        (lambda: CrossEntropy(0.0, [1.0]).n_outputs(2), "1 weights, but there are 2 classes"),
        (lambda: CrossEntropy().n_outputs(None), "n_classes must be at least 2, got None"),
        (lambda: RewardPrediction().n_outputs(1), "n_classes must be at least 2, got 1"),
        (lambda: RewardPrediction(1.0, 2.0), "ordered wrong < abstain < right"),
        (lambda: GaussianNLL(-1), "warmup_epochs must be at least 0"),
    ],
)
def test_wrong_arguments(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
