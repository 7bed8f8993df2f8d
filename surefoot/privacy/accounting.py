"""What a mechanism costs, by Google's dp-accounting: Renyi differential privacy or privacy loss distributions.

Neighbours differ by adding or removing one example throughout.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from surefoot.errors import ConfigError

__all__ = (
    "Accountant",
    "Budget",
    "Ledger",
    "calibrate_noise",
    "epsilon_of",
    "epsilon_of_gaussian",
    "guess_noise",
    "warn_of_large_delta",
)

Accountant = Literal["pld", "rdp"]


@dataclass(frozen=True)
class Budget:
    """What may be spent: (epsilon, delta) for adding or removing one example, or one user.

    Args:
        epsilon: Epsilon above 0; ``.inf`` runs the same code without noise.
        delta: Delta in (0, 1), to be chosen below one over the number of examples.

    Raises:
        ConfigError: If a number is out of range.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.epsilon > 0:
            raise ConfigError(f"epsilon must be above 0, got {self.epsilon}.")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta must be in (0, 1), got {self.delta}.")


def _epsilon_by_renyi(noise_multiplier: float, sampling_rate: float, n_steps: int, delta: float) -> float:
    import dp_accounting
    from dp_accounting import rdp

    event: object = dp_accounting.GaussianDpEvent(noise_multiplier)
    if sampling_rate < 1:
        event = dp_accounting.PoissonSampledDpEvent(sampling_rate, event)
    ledger = rdp.RdpAccountant()
    ledger.compose(dp_accounting.SelfComposedDpEvent(event, n_steps))
    return float(ledger.get_epsilon(delta))


#: Width of the intervals that privacy losses are rounded up to: dp-accounting's own
_INTERVAL = 1e-4


@lru_cache(maxsize=8)
def _loss_of_a_step(noise_multiplier: float, sampling_rate: float, interval: float) -> Any:
    """Return the distribution of one step's privacy loss, which takes far longer than composing it."""
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, value_discretization_interval=interval, sampling_prob=sampling_rate
    )


def _epsilon_by_losses(
    noise_multiplier: float, sampling_rate: float, n_steps: int, delta: float, interval: float = _INTERVAL
) -> float:
    if sampling_rate == 1:  # steps on everybody are one with less noise
        losses = _loss_of_a_step(noise_multiplier / math.sqrt(n_steps), 1.0, interval)
    else:
        losses = _loss_of_a_step(noise_multiplier, sampling_rate, interval).self_compose(n_steps)
    return float(losses.get_epsilon_for_delta(delta))


def _check(delta: float, sampling_rate: float, n_steps: int, accountant: Accountant) -> None:
    if accountant not in ("pld", "rdp"):
        raise ConfigError(f"accountant must be pld or rdp, got {accountant!r}.")
    if not 0 < delta < 1:
        raise ConfigError(f"delta must be in (0, 1), got {delta}.")
    if not 0 < sampling_rate <= 1:
        raise ConfigError(f"sampling_rate must be in (0, 1], got {sampling_rate}.")
    if n_steps < 0:
        raise ConfigError(f"n_steps must be at least 0, got {n_steps}.")


def warn_of_large_delta(budget: Budget, n: int, units: str = "private examples") -> None:
    """Warn where delta is not below one over the number of units, which would allow to publish whole ones.

    Args:
        budget: Nothing is said where its epsilon is infinite.
        n: Number of units.
        units: What adding or removing one of is private.
    """
    if math.isfinite(budget.epsilon) and budget.delta * n >= 1:
        warnings.warn(
            f"delta {budget.delta:g} is not below 1/{n}, one over the number of {units}: such a delta allows to publish"
            f" whole {units.split()[-1]}.",
            stacklevel=3,
        )


def epsilon_of(
    noise_multiplier: float,
    sampling_rate: float,
    n_steps: int,
    delta: float,
    accountant: Accountant = "pld",
) -> float:
    """Return the epsilon of so many Poisson-sampled Gaussian steps.

    Args:
        noise_multiplier: Noise over the clipping norm, at least 0.
        sampling_rate: Chance of each example to be in a step, in (0, 1].
        n_steps: Steps.
        delta: Delta in (0, 1).
        accountant: ``pld`` (tight) or ``rdp`` (an upper bound, faster).

    Returns:
        Epsilon; infinite without noise, 0 without a step.

    Raises:
        ConfigError: If a number is out of range.
    """
    _check(delta, sampling_rate, n_steps, accountant)
    if noise_multiplier < 0:
        raise ConfigError(f"noise_multiplier must be at least 0, got {noise_multiplier}.")
    if n_steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    spent = _epsilon_by_losses if accountant == "pld" else _epsilon_by_renyi
    return spent(noise_multiplier, sampling_rate, n_steps, delta)


@cache
def calibrate_noise(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    n_steps: int,
    accountant: Accountant = "pld",
) -> float:
    """Return the smallest noise multiplier (to 1e-3 relative) for which the steps cost at most epsilon.

    Args:
        epsilon: Budget above 0; infinite for no noise.
        delta: Delta in (0, 1).
        sampling_rate: Chance of each example to be in a step.
        n_steps: Steps, at least 1.
        accountant: ``pld`` or ``rdp``.

    Raises:
        ConfigError: If a number is out of range.
    """
    _check(delta, sampling_rate, n_steps, accountant)
    if not epsilon > 0 or n_steps < 1:
        raise ConfigError(f"epsilon must be above 0 and n_steps at least 1, got {epsilon} and {n_steps}.")
    if math.isinf(epsilon):
        return 0.0
    known: dict[float, bool] = {}

    def fits(multiplier: float) -> bool:
        """Return whether so much noise is enough; more than enough is enough, and it is not asked again."""
        if any(fit and multiplier >= other for other, fit in known.items()):
            return True
        if any(not fit and multiplier <= other for other, fit in known.items()):
            return False
        known[multiplier] = epsilon_of(multiplier, sampling_rate, n_steps, delta, accountant) <= epsilon
        return known[multiplier]

    if accountant == "pld":  # a guess decides nothing, and saves most of the evaluations below
        guess = guess_noise(epsilon, delta, sampling_rate, n_steps)
        fits(guess * (1 + _GUESS_TOLERANCE))
        fits(guess * (1 - _GUESS_TOLERANCE))
    high = 1.0
    while not fits(high):
        high *= 2
    low = high / 2
    while low > 1e-6 and fits(low):
        low, high = low / 2, low
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


#: How far the guess may be from the noise that is looked for, relative; where it is further, more is evaluated.
_GUESS_TOLERANCE = 1e-4


def guess_noise(epsilon: float, delta: float, sampling_rate: float, n_steps: int) -> float:
    """Return about the noise multiplier for which the steps cost epsilon, from coarser losses.

    Intervals of h change the noise by about ``n_steps * (h / epsilon)**2``, relative (measured).
    """
    from scipy.optimize import brentq

    interval = min(max(epsilon * math.sqrt(0.3 * _GUESS_TOLERANCE / n_steps), _INTERVAL), 1e-2)

    @cache
    def excess(log_multiplier: float) -> float:
        spent = _epsilon_by_losses(math.exp(log_multiplier), sampling_rate, n_steps, delta, interval)
        return math.log(max(spent, 1e-12) / epsilon)

    low = high = 0.0
    while excess(high) > 0:
        high += 1
    while excess(low) < 0 and low > -10:
        low -= 1
    return math.exp(brentq(excess, low, high, xtol=1e-5)) if excess(low) > 0 else math.exp(low)


def epsilon_of_gaussian(noise_multiplier: float, delta: float) -> float:
    """Return the exact epsilon of one Gaussian mechanism from its privacy profile (Balle & Wang, ICML 2018, thm. 8)."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    mu = 1 / noise_multiplier

    def gap(epsilon: float) -> float:
        first = norm.cdf(mu / 2 - epsilon / mu)
        second = math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        return float(first - second - delta)

    if gap(0.0) <= 0:
        return 0.0
    high = 1.0
    while gap(high) > 0:
        high *= 2
    return float(brentq(gap, 0.0, high))


class Ledger(NamedTuple):
    """What has been spent: steps of one sampled Gaussian mechanism and its settings, which must not change."""

    noise_multiplier: float
    sampling_rate: float
    clip: float
    n_steps: int = 0

    def spend(self, n_steps: int = 1) -> "Ledger":
        """Return the ledger after more steps."""
        return self._replace(n_steps=self.n_steps + n_steps)

    def epsilon(self, delta: float, accountant: Accountant = "pld") -> float:
        """Return the epsilon spent so far."""
        return epsilon_of(self.noise_multiplier, self.sampling_rate, self.n_steps, delta, accountant)

    def check_unchanged(self, other: "Ledger") -> None:
        """Raise if another ledger belongs to another mechanism.

        Raises:
            ConfigError: If noise, sampling rate or clipping norm differ.
        """
        for name in ("noise_multiplier", "sampling_rate", "clip"):
            was, now = getattr(self, name), getattr(other, name)
            if not math.isclose(was, now, rel_tol=1e-9):
                raise ConfigError(
                    f"the checkpoint was trained with {name} {was:g}, the settings say {now:g}: the privacy spent so"
                    " far would be accounted for wrongly. Keep the setting, or start a new run."
                )
