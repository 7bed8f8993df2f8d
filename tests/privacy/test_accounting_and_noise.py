import json
import math
from pathlib import Path

import dp_accounting
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from surefoot.errors import ConfigError
from surefoot.privacy import (
    Ledger,
    SecureNoise,
    SeededNoise,
    accounting,
    calibrate_noise,
    epsilon_of,
    epsilon_of_gaussian,
)
from surefoot.privacy.accounting import guess_noise

CASES = json.loads((Path(__file__).parents[1] / "data/opacus_epsilons.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['noise_multiplier']}-{c['n_steps']}")
def test_epsilons_equal_opacus(case: dict[str, float]) -> None:
    """Made by benchmarks/peers/opacus_accounting.py; opacus' PRV figures are upper bounds, 4e-4 above."""
    given = (case["noise_multiplier"], case["sampling_rate"], int(case["n_steps"]), case["delta"])
    assert epsilon_of(*given, "rdp") == pytest.approx(case["rdp"], abs=1e-3)
    assert epsilon_of(*given, "pld") == pytest.approx(case["prv"], abs=1e-3)


def test_three_accounts_of_full_batches_are_ordered() -> None:
    # the specification's example: rho = T / (2 sigma^2) = .0208 at T = 10, sigma = 15.5
    rho = 10 / (2 * 15.5**2)
    zcdp = rho + 2 * math.sqrt(rho * math.log(1e5))
    rdp, exact = (epsilon_of(15.5, 1.0, 10, 1e-5, a) for a in ("rdp", "pld"))
    assert (zcdp, rdp, exact) == pytest.approx((1.0, 0.812, 0.742), abs=1e-2)
    assert zcdp > rdp > exact
    # ten steps are one with sqrt(10) times less noise, whose epsilon is known in closed form
    assert exact == pytest.approx(epsilon_of_gaussian(15.5 / math.sqrt(10), 1e-5), abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("rate", [1.0, 0.02])
def test_calibrated_noise_spends_the_budget_and_no_more(epsilon: float, rate: float) -> None:
    noise = calibrate_noise(epsilon, 1e-5, rate, 50)
    spent = epsilon_of(noise, rate, 50, 1e-5)
    assert 0.99 * epsilon < spent <= epsilon
    assert calibrate_noise(math.inf, 1e-5, rate, 50) == 0.0


@pytest.mark.parametrize(("noise", "rate", "n_steps"), [(1.5, 0.2, 7), (3.0, 1.0, 5), (0.8, 0.01, 300)])
def test_epsilons_are_those_of_the_accountants(noise: float, rate: float, n_steps: int) -> None:
    for accountant, theirs in (("pld", PLDAccountant()), ("rdp", RdpAccountant())):
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        theirs.compose(dp_accounting.SelfComposedDpEvent(event, n_steps))
        assert epsilon_of(noise, rate, n_steps, 1e-5, accountant) == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-6)


@pytest.mark.parametrize("settings", [(0.2, 1e-4, 0.3, 2), (0.1, 1e-4, 0.05, 30), (1.0, 1e-6, 1.0, 10)])
@pytest.mark.parametrize("wrong_by", [1.0, 0.6])
def test_noise_does_not_depend_on_the_guess(
    settings: tuple[float, float, float, int], wrong_by: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halving the interval from the next power of two alone, as it is written in every textbook."""
    monkeypatch.setattr(accounting, "guess_noise", lambda *a: wrong_by * guess_noise(*a))
    epsilon, delta, rate, n_steps = settings
    high = 1.0
    while epsilon_of(high, rate, n_steps, delta) > epsilon:
        high *= 2
    low = high / 2
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        fits = epsilon_of(middle, rate, n_steps, delta) <= epsilon
        low, high = (low, middle) if fits else (middle, high)
    assert calibrate_noise.__wrapped__(*settings) == high


def test_a_guess_spares_most_of_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(accounting, "epsilon_of", lambda *a: asked.append(a) or epsilon_of(*a))
    calibrate_noise.__wrapped__(1.0, 1e-5, 0.1, 20)
    assert len(asked) <= 4


def test_extremes_and_wrong_numbers() -> None:
    assert epsilon_of(0.0, 1.0, 5, 1e-5) == math.inf
    assert epsilon_of(1.0, 1.0, 0, 1e-5) == 0.0
    assert epsilon_of_gaussian(1e6, 0.1) == 0.0
    for wrong in (
        (1.0, 1.0, 1, 0.0),
        (1.0, 0.0, 1, 1e-5),
        (1.0, 1.5, 1, 1e-5),
        (-1.0, 1.0, 1, 1e-5),
    ):
        with pytest.raises(ConfigError, match="must be"):
            epsilon_of(*wrong)
    with pytest.raises(ConfigError, match="epsilon must be above 0"):
        calibrate_noise(0.0, 1e-5, 1.0, 1)


def test_a_ledger_adds_up_and_refuses_another_mechanism() -> None:
    ledger = Ledger(2.0, 0.1, 1.0)
    spent = ledger.spend(3).spend()
    assert spent.n_steps == 4
    assert spent.epsilon(1e-5) == epsilon_of(2.0, 0.1, 4, 1e-5)
    spent.check_unchanged(ledger)
    for change in ({"noise_multiplier": 1.0}, {"sampling_rate": 0.2}, {"clip": 2.0}):
        with pytest.raises(ConfigError, match=f"trained with {next(iter(change))}"):
            spent.check_unchanged(ledger._replace(**change))


@pytest.mark.parametrize("source", [SeededNoise(3), SecureNoise()], ids=lambda s: type(s).__name__)
def test_noise_is_standard_normal_and_samples_have_the_rate(source: SeededNoise) -> None:
    noise = source.normal((100, 500), 7)
    assert noise.dtype == torch.float64
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.2)
    sizes = [len(source.poisson_sample(1000, 0.1, step)) for step in range(200)]
    assert sum(sizes) / 200 == pytest.approx(100, abs=4)
    assert len(set(sizes)) > 10, "sizes vary, as Poisson samples do"
    assert source.poisson_sample(5, 1.0, 0).tolist() == [0, 1, 2, 3, 4]
    assert len(source.poisson_sample(3, 1e-9, 0)) == 0
    repeats = source.normal((3,), 7).equal(source.normal((3,), 7))
    assert repeats == isinstance(source, SeededNoise)


def test_seeds_steps_and_purposes_do_not_share_numbers() -> None:
    first = SeededNoise(0).normal((50,), 0)
    assert not first.equal(SeededNoise(0).normal((50,), 1))
    assert not first.equal(SeededNoise(1).normal((50,), 0))
    many = torch.stack([SeededNoise(s).normal((50,), t) for s in range(8) for t in range(8)])
    assert float(torch.corrcoef(many).fill_diagonal_(0).abs().max()) < 0.65
