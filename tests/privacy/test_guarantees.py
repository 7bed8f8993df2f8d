"""What every private function refuses or warns of: a delta that protects nobody, examples that are no numbers."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from surefoot.errors import DataError
from surefoot.privacy import SeededNoise
from surefoot.privacy.accounting import Budget
from surefoot.privacy.descent import DescentSettings, NoisyGradientDescent, private_descent
from surefoot.privacy.personalisation import (
    CoordinationSettings,
    dp_federated_averaging,
    private_alternating_minimisation,
)
from surefoot.privacy.perturbation import ObjectivePerturbation, OutputPerturbation
from surefoot.privacy.subspace import private_moments

N = 20  # examples, or users
Fit = Callable[[Tensor, Tensor, float, float], Tensor]


def users(inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Give each of 20 users three times the same example."""
    return inputs[:, None].expand(-1, 3, -1), target[:, None].expand(-1, 3)


FITS: dict[str, Fit] = {
    "descent": lambda x, y, e, d: private_descent(
        x, y, "squared", DescentSettings(NoisyGradientDescent(1.0, 0.1), Budget(e, d), 2), SeededNoise(0)
    ),
    "output_perturbation": lambda x, y, e, d: OutputPerturbation(0.1).fit(x, y, Budget(e, d), SeededNoise(0)),
    "objective_perturbation": lambda x, y, e, d: ObjectivePerturbation(0.1).fit(x, y, Budget(e, d), SeededNoise(0)),
    "moments": lambda x, y, e, d: private_moments(x, y, 1, Budget(e, d), 1.0, SeededNoise(0)),
    "federated_averaging": lambda x, y, e, d: dp_federated_averaging(
        *users(x, y), CoordinationSettings(Budget(e, d), 1.0, 2), SeededNoise(0)
    ),
    "alternating_minimisation": lambda x, y, e, d: private_alternating_minimisation(
        *users(x, y), torch.eye(3)[:, :1], CoordinationSettings(Budget(e, d), 1.0, 2), SeededNoise(0)
    ),
}


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, 3, generator=generator), (torch.rand(N, generator=generator) < 0.5).float()


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_delta_that_publishes_whole_examples_is_warned_of(fit: Fit) -> None:
    with pytest.warns(UserWarning, match=rf"delta 0.05 is not below 1/{N}, one over the number of"):
        fit(*examples(), 1.0, 1 / N)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(*examples(), 1.0, 0.9 / N)
        fit(*examples(), math.inf, 1 / N)  # nothing is promised


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("kind", ["inputs", "target"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_examples_that_are_no_numbers_are_refused(fit: Fit, kind: str, value: float) -> None:
    inputs, target = examples()
    (inputs[3] if kind == "inputs" else target)[:1] = value
    with pytest.raises(DataError, match=f"1 of {N} rows of {kind}"):
        fit(inputs, target, 1.0, 1e-5)


@pytest.mark.parametrize("name", ["output_perturbation", "objective_perturbation"])
def test_targets_beyond_0_and_1_would_exceed_the_sensitivity(name: str) -> None:
    inputs, target = examples()
    with pytest.raises(DataError, match=rf"{int(target.sum())} of {N} targets are neither 0 nor 1, such as 5"):
        FITS[name](inputs, 5 * target, 1.0, 1e-5)
