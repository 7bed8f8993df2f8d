import math

import pytest
import torch

from surefoot.errors import ConfigError, DataError
from surefoot.privacy import (
    Budget,
    CoordinationSettings,
    SeededNoise,
    alternating_minimisation,
    audit_mechanism,
    dp_federated_averaging,
    epsilon_lower_bound,
    local_regressions,
    method_of_moments,
    moments_gamma_bound,
    orthonormal,
    principal_directions,
    private_alternating_minimisation,
    private_moments,
    sine_of_largest_angle,
    tasks_svd,
    transfer_bound,
)
from surefoot.privacy.shared_subspace import SubspaceProblem, make_problem
from surefoot.reproduce.private_transfer.audit import audit_descent


def test_the_angle_is_one_of_subspaces_not_of_bases() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = orthonormal(12, 3, generator)
    turned = basis @ torch.linalg.qr(torch.randn(3, 3, generator=generator).double()).Q
    assert sine_of_largest_angle(turned, basis) == pytest.approx(0, abs=1e-6)
    assert sine_of_largest_angle(-basis, basis) == pytest.approx(0, abs=1e-6)
    both = orthonormal(12, 4, generator)
    assert sine_of_largest_angle(both[:, [0, 1, 3]], both[:, :3]) == pytest.approx(1)
    for gamma in (0.3, 0.8):
        plain, off = (make_problem(SubspaceProblem(12, 3, misalignment=g), 0).basis for g in (0.0, gamma))
        assert sine_of_largest_angle(off, plain) == pytest.approx(gamma)


def test_moments_have_the_expectation_of_the_specification() -> None:
    # E[y^2 x x^T] = (|B a|^2 + s^2) I + 2 B a a^T B^T for one task
    problem = SubspaceProblem(6, 2, 1, 400_000, 1, noise=0.7)
    drawn = make_problem(problem, 1)
    x, y = drawn.public_inputs, drawn.public_target
    weight = torch.linalg.lstsq(x, y[:, None]).solution
    weighted = x * y[:, None]
    expected = (weight.square().sum() + 0.49) * torch.eye(6) + 2 * weight @ weight.T
    torch.testing.assert_close(weighted.T @ weighted / len(x), expected.double(), rtol=0, atol=0.05)


def test_estimators_find_the_subspace_as_public_data_grow() -> None:
    found: dict[str, list[float]] = {}
    for per_task in (30, 300):
        drawn = make_problem(SubspaceProblem(20, 3, 40, per_task, 10, noise=0.3), 0)
        x, y, task = drawn.public_inputs, drawn.public_target, drawn.public_task
        for name, basis in (
            ("moments", method_of_moments(x, y, 3)),
            ("svd", tasks_svd(x, y, task, 3)),
            ("alternating", alternating_minimisation(x, y, task, 3)),
        ):
            torch.testing.assert_close(basis.T @ basis, torch.eye(3).double(), rtol=0, atol=1e-6)
            found.setdefault(name, []).append(sine_of_largest_angle(basis, drawn.basis))
    for few, many in found.values():
        assert many < few
    assert found["alternating"][0] < found["svd"][0] < found["moments"][0]
    assert found["svd"][1] < 0.05
    features = make_problem(SubspaceProblem(20, 3), 0).basis @ torch.randn(3, 500).double()
    directions = principal_directions(features.T, 3)
    assert sine_of_largest_angle(directions, make_problem(SubspaceProblem(20, 3), 0).basis) < 1e-5


def test_joint_least_squares_does_with_fewer_samples_than_dimensions() -> None:
    drawn = make_problem(SubspaceProblem(30, 2, 200, 12, 10, noise=0.1), 0)
    data = drawn.public_inputs, drawn.public_target, drawn.public_task
    with pytest.raises(DataError, match="has 12 examples of 30 features"):
        tasks_svd(*data, 2)
    assert sine_of_largest_angle(alternating_minimisation(*data, 2), drawn.basis) < 0.1


def test_private_moments_without_noise_are_the_public_ones_and_drown_in_noise() -> None:
    drawn = make_problem(SubspaceProblem(10, 2, 50, 400, 10), 0)
    x, y = drawn.public_inputs, drawn.public_target
    plain = private_moments(x, y, 2, Budget(math.inf, 1e-5), 1e9, SeededNoise(0))
    assert sine_of_largest_angle(plain, method_of_moments(x, y, 2)) < 1e-5
    drowned = private_moments(x[:50], y[:50], 2, Budget(0.1, 1e-5), 3.0, SeededNoise(0))
    assert sine_of_largest_angle(drowned, drawn.basis) > 0.5
    with pytest.raises(ConfigError, match="1 to 10 directions, got 11"):
        method_of_moments(x, y, 11)


def test_users_who_learn_alone_equal_a_loop() -> None:
    drawn = make_problem(SubspaceProblem(8, 2, 1, 1, 15, 4), 0)
    x, y = drawn.inputs, drawn.target
    found = local_regressions(x, y, drawn.basis, 0.1)
    for user in range(4):
        z = x[user] @ drawn.basis
        gram = z.T @ z + 0.1 * 15 * torch.eye(2)
        expected = drawn.basis @ torch.linalg.solve(gram, z.T @ y[user])
        torch.testing.assert_close(found[user], expected)


def test_coordination_without_noise_learns_the_shared_subspace() -> None:
    drawn = make_problem(SubspaceProblem(10, 2, 1, 1, 60, 80, noise=0.1), 0)
    start = orthonormal(10, 2, torch.Generator().manual_seed(5))
    free = CoordinationSettings(Budget(math.inf, 1e-5), 100.0, 60, 1.0)
    basis = private_alternating_minimisation(drawn.inputs, drawn.target, start, free, SeededNoise(0))
    assert sine_of_largest_angle(basis, drawn.basis) < 0.1 < sine_of_largest_angle(start, drawn.basis)
    paid = CoordinationSettings(Budget(0.1, 1e-5), 1.0, 10, 1.0)
    noisy = private_alternating_minimisation(drawn.inputs, drawn.target, start, paid, SeededNoise(0))
    assert sine_of_largest_angle(noisy, drawn.basis) > 0.5


def test_federated_averaging_without_noise_finds_the_common_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 40, 5, generator=generator, dtype=torch.float64)
    true = torch.randn(5, generator=generator, dtype=torch.float64)
    free = CoordinationSettings(Budget(math.inf, 1e-5), 100.0, 30, 1.0)
    found = dp_federated_averaging(x, x @ true, free, SeededNoise(0))
    torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-4)


def test_bounds_by_hand() -> None:
    # .5^2 * 2^2 + .1^2 * 5 / 100 + 25 log(1e5) / (100 * 2)^2
    expected = 1 + 0.0005 + 25 * math.log(1e5) / 40_000
    assert transfer_bound(0.5, 2.0, 0.1, 5, 100, 2.0, 1e-5) == pytest.approx(expected)
    assert transfer_bound(0.5, 2.0, 0.1, 5, 100, math.inf, 1e-5) == pytest.approx(1.0005)
    assert moments_gamma_bound(25, 5, 62_500) == pytest.approx(0.1)
    assert moments_gamma_bound(25, 5, 1) == 1.0


def test_lower_bounds_hold_for_a_mechanism_whose_epsilon_is_known() -> None:
    """One Gaussian of noise 3.73 is (1, 1e-5)-private: the bound stays below; of noise 0.4 it is caught."""
    from surefoot.privacy import epsilon_of_gaussian

    def score(noise: float) -> object:
        def draw(present: bool, trial: int) -> float:
            return float(present) + noise * float(SeededNoise(2 * trial + present).normal((1,), 0))

        return draw

    assert epsilon_of_gaussian(3.73, 1e-5) == pytest.approx(1.0, abs=0.01)
    honest = audit_mechanism(score(3.73), 1.0, 1e-5, 400)  # type: ignore[arg-type]
    assert honest.passes
    caught = audit_mechanism(score(0.4), 1.0, 1e-5, 400)  # type: ignore[arg-type]
    assert not caught.passes
    assert caught.epsilon_lower_bound <= epsilon_of_gaussian(0.4, 1e-5)
    with pytest.raises(ValueError, match="four trials"):
        epsilon_lower_bound(torch.zeros(3), torch.zeros(3), 1e-5)
    assert epsilon_lower_bound(torch.zeros(50), torch.zeros(50), 1e-5) == 0.0


def test_clopper_pearson_equals_scipys() -> None:
    from scipy.stats import binomtest

    from surefoot.privacy.audit import clopper_pearson

    for hits, n in ((0, 20), (7, 20), (20, 20)):
        interval = binomtest(hits, n).proportion_ci(0.9, "exact")
        assert clopper_pearson(hits, n, 0.95) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("breakage", "rate", "steps", "passes"),
    [
        ("none", 0.05, 4, True),
        ("none", 1.0, 1, True),
        ("no clipping", 0.05, 4, False),
        ("noise too small", 1.0, 1, False),
        ("no sampling", 0.05, 4, False),
    ],
)
def test_the_audit_passes_the_correct_mechanism_and_catches_broken_ones(
    breakage: str, rate: float, steps: int, passes: bool
) -> None:
    audit = audit_descent(breakage, 1.0, 800, steps, rate)  # type: ignore[arg-type]
    assert audit.passes is passes, audit


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_users_with_numbers_that_are_none_are_refused(wrong: float) -> None:
    x, y = torch.randn(4, 6, 3), torch.randn(4, 6)
    free = CoordinationSettings(Budget(math.inf, 1e-5), 1.0, 2)
    x[1, 2, 0] = wrong
    for learn in (
        lambda: local_regressions(x, y),
        lambda: dp_federated_averaging(x, y, free, SeededNoise(0)),
        lambda: private_alternating_minimisation(x, y, torch.eye(3)[:, :2], free, SeededNoise(0)),
    ):
        with pytest.raises(DataError, match="1 of 4 rows of inputs in the users' data"):
            learn()
