import math
from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.privacy import (
    Budget,
    DescentSettings,
    NoisyGradientDescent,
    ObjectivePerturbation,
    OutputPerturbation,
    SeededNoise,
    calibrate_noise,
    clipped_gradient_sum,
    epsilon_of,
    excess_risk,
    gaussian_mechanism,
    linear_losses,
    linear_residuals,
    n_outputs,
    noisy_gradient,
    private_descent,
)
from surefoot.privacy.shared_subspace import SubspaceProblem

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 5, generator=GENERATOR, dtype=torch.float64)
LOSSES = ("squared", "logistic", "softmax")


def target_of(loss: str) -> Tensor:
    if loss == "squared":
        return torch.randn(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.arange(30) % (2 if loss == "logistic" else 3)


def weight_of(loss: str) -> Tensor:
    n = 3 if loss == "softmax" else 1
    return torch.randn(5, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("clip", [0.3, 2.0, math.inf])
def test_clipped_sums_equal_a_loop_of_autograd(loss: str, clip: float) -> None:
    target, weight = target_of(loss), weight_of(loss).requires_grad_()
    total, clipped = torch.zeros_like(weight), 0
    for i in range(30):
        value = linear_losses(X[i : i + 1] @ weight, target[i : i + 1], loss)[0]  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(value, weight)
        norm = float(gradient.norm())
        clipped += norm > clip
        total = total + gradient * min(1.0, clip / norm)
    found = clipped_gradient_sum(weight.detach(), X, target, loss, clip)  # type: ignore[arg-type]
    torch.testing.assert_close(found.gradient, total.detach(), rtol=1e-9, atol=1e-12)
    assert int(found.n_clipped) == clipped


@pytest.mark.parametrize("loss", LOSSES)
def test_residuals_are_the_derivatives_and_one_example_moves_the_sum_by_the_clip(loss: str) -> None:
    target, weight = target_of(loss), weight_of(loss)
    outputs = (X @ weight).requires_grad_()
    (gradient,) = torch.autograd.grad(linear_losses(outputs, target, loss).sum(), outputs)  # type: ignore[arg-type]
    torch.testing.assert_close(gradient, linear_residuals(outputs.detach(), target, loss))  # type: ignore[arg-type]
    whole = clipped_gradient_sum(weight, 100 * X, target, loss, 0.7).gradient  # type: ignore[arg-type]
    without = clipped_gradient_sum(weight, 100 * X[1:], target[1:], loss, 0.7).gradient  # type: ignore[arg-type]
    assert float((whole - without).norm()) <= 0.7 + 1e-9


def test_an_empty_batch_is_noise_alone() -> None:
    weight = weight_of("squared")
    empty = clipped_gradient_sum(weight, X[:0], target_of("squared")[:0], "squared", 1.0)
    assert empty.gradient.equal(torch.zeros(5, 1, dtype=torch.float64))
    noise = SeededNoise(0).normal((5, 1), 0)
    step = noisy_gradient(empty.gradient, noise, 2.0, 0.5, 10.0)
    torch.testing.assert_close(step, noise * 2.0 * 0.5 / 10.0)


FREE = Budget(math.inf, 1e-5)


def settings(
    epsilon: float = math.inf, n_steps: int = 500, sampling_rate: float = 1.0, **mechanism: float
) -> DescentSettings:
    given = {"clip": math.inf, "learning_rate": 0.5, "average_last": 0.01} | mechanism
    return DescentSettings(NoisyGradientDescent(**given), Budget(epsilon, 1e-5), n_steps, sampling_rate)  # type: ignore[arg-type]


def test_without_noise_descent_is_least_squares_in_the_subspace() -> None:
    y = target_of("squared")
    basis = torch.linalg.qr(torch.randn(5, 2, generator=GENERATOR, dtype=torch.float64)).Q
    for directions in (None, basis):
        z = X if directions is None else X @ directions
        best = torch.linalg.lstsq(z, y[:, None]).solution
        expected = best if directions is None else directions @ best
        found = private_descent(X, y, "squared", settings(), SeededNoise(0), directions)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_descent_equals_its_algorithm_step_by_step() -> None:
    y, source = target_of("squared"), SeededNoise(4)
    given = settings(epsilon=2.0, clip=1.0, n_steps=6, sampling_rate=0.3, average_last=0.5)
    found = private_descent(X, y, "squared", given, source)
    multiplier = calibrate_noise(2.0, 1e-5, 0.3, 6)
    assert epsilon_of(multiplier, 0.3, 6, 1e-5) <= 2.0
    weight, kept = torch.zeros(5, 1, dtype=torch.float64), []
    for step in range(6):
        total = torch.zeros(5, 1, dtype=torch.float64)
        for i in source.poisson_sample(30, 0.3, step).tolist():
            gradient = X[i, :, None] * (X[i] @ weight - y[i])
            total += gradient / max(1.0, float(gradient.norm()))
        total += multiplier * source.normal((5, 1), step)
        weight = weight - 0.5 * total / (0.3 * 30)
        kept.append(weight)
    torch.testing.assert_close(found, torch.stack(kept[3:]).mean(0), rtol=1e-9, atol=1e-12)
    again = private_descent(X, y, "squared", given, source)
    assert again.equal(found), "the seed decides"


def test_empty_samples_and_a_ball_are_safe() -> None:
    y = target_of("squared")
    rare = settings(epsilon=1.0, clip=1.0, n_steps=3, sampling_rate=0.001)
    found = private_descent(X, y, "squared", rare, SeededNoise(0))
    assert bool(found.isfinite().all())
    held = settings(epsilon=0.01, clip=1.0, n_steps=3, radius=0.5)
    assert float(private_descent(X, y, "squared", held, SeededNoise(0)).norm()) <= 0.5 + 1e-9


def test_private_classifiers_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 5, generator=generator)
    y = (x @ torch.randn(5, 3, generator=generator)).argmax(1)
    given = DescentSettings(NoisyGradientDescent(1.0, 2.0), Budget(1.0, 1e-5), 50)
    weight = private_descent(x, y, "softmax", given, SeededNoise(0), n_classes=3)
    assert float(((x @ weight).argmax(1) == y).float().mean()) > 0.85
    assert weight.dtype == torch.float32


def test_perturbed_solutions_without_noise_are_scikit_learns() -> None:
    x = X / X.norm(dim=1, keepdim=True)
    y = target_of("logistic")
    l2 = 0.05
    theirs = LogisticRegression(C=1 / (l2 * 30), fit_intercept=False, tol=1e-10).fit(x, y).coef_[0]
    for mechanism in (OutputPerturbation(l2), ObjectivePerturbation(l2)):
        found = mechanism.fit(x, y, FREE, SeededNoise(0))
        torch.testing.assert_close(found[:, 0], torch.from_numpy(theirs), rtol=1e-4, atol=1e-6)


def test_output_perturbation_adds_noise_of_its_sensitivity() -> None:
    y, l2 = target_of("logistic"), 0.1
    mechanism, budget = OutputPerturbation(l2), Budget(1.0, 1e-5)
    exact = mechanism.fit(X, y, FREE, SeededNoise(0))
    draws = torch.stack([mechanism.fit(X, y, budget, SeededNoise(s)) - exact for s in range(200)])
    value = torch.zeros(1, dtype=torch.float64)
    unit = torch.stack([gaussian_mechanism(value, 1.0, budget, SeededNoise(s)) for s in range(400)])
    assert float(draws.std()) == pytest.approx(float(unit.std()) / (l2 * 30), rel=0.1)
    # removing one example moves the minimum by at most the sensitivity
    inputs = X.clone()
    inputs[3] = 0.0
    moved = mechanism.fit(inputs, y, FREE, SeededNoise(0))
    assert float((moved - exact).norm()) <= 1 / (l2 * 30)


def test_objective_perturbation_keeps_most_of_the_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 4, generator=generator, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    weight = ObjectivePerturbation(1e-4).fit(x, y, Budget(1.0, 1e-5), SeededNoise(0))
    assert float((((x @ weight)[:, 0] > 0).long() == y).double().mean()) > 0.9


def test_excess_risk_is_the_expected_squared_error_beyond_the_noise() -> None:
    weight, true = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    assert excess_risk(weight, true) == pytest.approx(2.0)
    assert excess_risk(weight, true, covariance) == pytest.approx(2 + 2 * 0.5 + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoisyGradientDescent(clip=0.0), "clip, learning_rate and radius must be above 0"),
        (lambda: NoisyGradientDescent(learning_rate=math.nan), "clip, learning_rate and radius must be above 0"),
        (lambda: NoisyGradientDescent(radius=-1.0), "clip, learning_rate and radius must be above 0"),
        (lambda: NoisyGradientDescent(average_last=1.5), r"average_last in \[0, 1\]"),
        (lambda: OutputPerturbation(0.0), "a finite l2 above 0, got 0"),
        (lambda: OutputPerturbation(math.inf), "a finite l2 above 0, got inf"),
        (lambda: ObjectivePerturbation(-1.0), "a finite l2 of at least 0, got -1"),
        (lambda: ObjectivePerturbation(math.nan), "a finite l2 of at least 0, got nan"),
        (lambda: Budget(0.0, 1e-5), "epsilon must be above 0, got 0"),
        (lambda: Budget(math.nan, 1e-5), "epsilon must be above 0, got nan"),
        (lambda: Budget(1.0, 1.0), r"delta must be in \(0, 1\), got 1"),
        (lambda: Budget(1.0, math.nan), r"delta must be in \(0, 1\), got nan"),
        (lambda: OutputPerturbation().check("squared", FREE), "OutputPerturbation is defined for the logistic loss"),
        (
            lambda: NoisyGradientDescent(math.inf).check("squared", Budget(1.0, 1e-5)),
            "a finite epsilon needs a finite clip",
        ),
        (
            lambda: private_descent(X, target_of("squared"), "squared", settings(epsilon=1.0), SeededNoise(0)),
            "a finite epsilon needs a finite clip",
        ),
        (lambda: SubspaceProblem(k=26), "needs 1 <= k <= d"),
        (lambda: SubspaceProblem(noise=math.nan), "a finite noise of at least 0"),
        (lambda: SubspaceProblem(d=9, k=5, misalignment=0.1), "0 where 2 k > d"),
    ],
)
def test_wrong_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_wrong_classes() -> None:
    with pytest.raises(ConfigError, match="logistic needs two classes, got 3"):
        n_outputs("logistic", 3)
    with pytest.raises(ConfigError, match="softmax needs at least two classes"):
        n_outputs("softmax", None)
