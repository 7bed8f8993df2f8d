"""Private linear models: noise, accounting, mechanisms, descent in a public subspace, personalisation and audits."""

from surefoot.privacy.accounting import (
    Accountant,
    Budget,
    Ledger,
    calibrate_noise,
    epsilon_of,
    epsilon_of_gaussian,
)
from surefoot.privacy.audit import Audit, audit_mechanism, epsilon_lower_bound
from surefoot.privacy.descent import DescentSettings, NoisyGradientDescent, noisy_gradient, private_descent
from surefoot.privacy.linear_models import (
    LinearLoss,
    clipped_gradient_sum,
    linear_losses,
    linear_residuals,
    n_outputs,
)
from surefoot.privacy.mechanisms import Mechanism, PrivateFit, gaussian_mechanism
from surefoot.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from surefoot.privacy.personalisation import (
    CoordinationSettings,
    dp_federated_averaging,
    local_regressions,
    private_alternating_minimisation,
)
from surefoot.privacy.perturbation import ObjectivePerturbation, OutputPerturbation
from surefoot.privacy.risk import (
    excess_risk,
    full_dimension_bound,
    moments_gamma_bound,
    orthonormal,
    transfer_bound,
)
from surefoot.privacy.subspace import (
    alternating_minimisation,
    method_of_moments,
    principal_directions,
    private_moments,
    sine_of_largest_angle,
    tasks_svd,
)

__all__ = (
    "Accountant",
    "Audit",
    "Budget",
    "CoordinationSettings",
    "DescentSettings",
    "Ledger",
    "LinearLoss",
    "Mechanism",
    "NoiseSource",
    "NoisyGradientDescent",
    "ObjectivePerturbation",
    "OutputPerturbation",
    "PrivateFit",
    "SecureNoise",
    "SeededNoise",
    "alternating_minimisation",
    "audit_mechanism",
    "calibrate_noise",
    "clipped_gradient_sum",
    "dp_federated_averaging",
    "epsilon_lower_bound",
    "epsilon_of",
    "epsilon_of_gaussian",
    "excess_risk",
    "full_dimension_bound",
    "gaussian_mechanism",
    "linear_losses",
    "linear_residuals",
    "local_regressions",
    "method_of_moments",
    "moments_gamma_bound",
    "n_outputs",
    "noisy_gradient",
    "orthonormal",
    "principal_directions",
    "private_alternating_minimisation",
    "private_descent",
    "private_moments",
    "sine_of_largest_angle",
    "tasks_svd",
    "transfer_bound",
)
