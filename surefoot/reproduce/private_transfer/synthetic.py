"""Private regression in shared subspaces, synthetic tasks: errors against samples, epsilon, subspace error and d/k."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from surefoot.privacy import (
    Budget,
    CoordinationSettings,
    DescentSettings,
    NoisyGradientDescent,
    SeededNoise,
    dp_federated_averaging,
    local_regressions,
    method_of_moments,
    orthonormal,
    private_alternating_minimisation,
    private_descent,
    private_moments,
    sine_of_largest_angle,
    tasks_svd,
    transfer_bound,
)
from surefoot.privacy.risk import full_dimension_bound
from surefoot.privacy.shared_subspace import SharedSubspace, SubspaceProblem, make_problem
from surefoot.reproduce.results import Rows

__all__ = ("DELTA", "STEPS", "CurveSizes", "bound_rows", "curves", "personalisation", "sweeps")

DELTA = 1e-5
#: Fixed in advance for every curve: ten steps of 0.5, the last two averaged; clip the square root of the number of
#: directions.
STEPS, RATE, AVERAGED = 10, 0.5, 0.2


class CurveSizes(NamedTuple):
    """How large the comparison against private samples is."""

    d: int = 100
    k: int = 5
    private: tuple[int, ...] = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
    moments: tuple[int, ...] = (5000, 20_000, 100_000)  # public samples, of 1,000 tasks
    svd_tasks: int = 20
    svd_per_task: int = 1000


def _error(x: Tensor, y: Tensor, true: Tensor, basis: Tensor | None, budget: Budget, seed: int) -> float:
    """Return ``|w - w*|`` of private descent."""
    directions = x.shape[1] if basis is None else basis.shape[1]
    mechanism = NoisyGradientDescent(math.sqrt(directions), RATE, AVERAGED)
    weight = private_descent(x, y, "squared", DescentSettings(mechanism, budget, STEPS), SeededNoise(seed), basis)
    return float((weight[:, 0] - true).norm())


def curves(sizes: CurveSizes, seed: int, epsilon: float = 1.0) -> Rows:
    """Return the errors of every curve at every number of private samples, and each subspace's gamma, for one seed."""
    largest = max(sizes.moments)
    per_task = -(-largest // 1000)
    base = SubspaceProblem(
        d=sizes.d,
        k=sizes.k,
        n_public_tasks=1000,
        n_public_per_task=per_task,
        n_private=max(sizes.private),
    )
    drawn = make_problem(base, seed)
    x, y, true = drawn.inputs[0], drawn.target[0], drawn.weights[0]
    mixed = torch.randperm(len(drawn.public_target), generator=torch.Generator().manual_seed(seed))
    bases: dict[str, Tensor | None] = {"DP, all dimensions": None}
    for n in sizes.moments:
        rows = mixed[:n]
        bases[f"DP, moments of {n:,}"] = method_of_moments(
            drawn.public_inputs[rows], drawn.public_target[rows], sizes.k
        )
    tasks = _public_tasks(drawn.basis, sizes, seed)
    name = f"DP, SVD of {sizes.svd_tasks} x {sizes.svd_per_task:,}"
    bases[name] = tasks_svd(*tasks, sizes.k)
    bases["DP, true subspace"] = drawn.basis
    whole, half = Budget(epsilon, DELTA), Budget(epsilon / 2, DELTA / 2)
    found: Rows = []
    for n in sizes.private:
        least = torch.linalg.lstsq(x[:n], y[:n, None]).solution[:, 0]
        found.append({"curve": "least squares", "n": n, "error": float((least - true).norm())})
        for curve, basis in bases.items():
            error = _error(x[:n], y[:n], true, basis, whole, seed)
            found.append({"curve": curve, "n": n, "error": error, **_angles(basis, drawn, true)})
        control = private_moments(x[:n], y[:n], sizes.k, half, math.sqrt(sizes.d), SeededNoise(seed))
        error = _error(x[:n], y[:n], true, control, half, seed)
        angles = _angles(control, drawn, true)
        found.append({"curve": "DP, private moments", "n": n, "error": error, **angles})
    return [row | {"seed": seed} for row in found]


def bound_rows(sizes: CurveSizes, epsilon: float = 1.0) -> Rows:
    """Return the bounds on the errors of `curves` in all dimensions and in the true subspace, without constants."""
    found: Rows = []
    for n in sizes.private:
        bounds = {
            "bound, all dimensions": full_dimension_bound(sizes.d, 0.5, n, epsilon, DELTA),
            "bound, true subspace": transfer_bound(0.0, 1.0, 0.5, sizes.k, n, epsilon, DELTA),
        }
        for curve, risk in bounds.items():
            found.append({"curve": curve, "n": n, "seed": 0, "error": math.sqrt(risk), "d": sizes.d, "k": sizes.k})
    return found


def _public_tasks(basis: Tensor, sizes: CurveSizes, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return few public tasks with many samples each, in a given subspace."""
    generator = torch.Generator().manual_seed(10_000 + seed)  # no derive_seed: committed results are of these tasks
    n = sizes.svd_tasks * sizes.svd_per_task
    alphas = torch.randn(sizes.svd_tasks, sizes.k, generator=generator, dtype=torch.float64)
    task = torch.arange(sizes.svd_tasks).repeat_interleave(sizes.svd_per_task)
    x = torch.randn(n, sizes.d, generator=generator, dtype=torch.float64)
    weights = alphas / math.sqrt(sizes.k) @ basis.T
    noise = 0.5 * torch.randn(n, generator=generator, dtype=torch.float64)
    return x, (x * weights[task]).sum(1) + noise, task


def _angles(basis: Tensor | None, drawn: SharedSubspace, true: Tensor) -> dict[str, float]:
    """Return gamma, and the bias floor: what of the true weights lies off the subspace."""
    if basis is None:
        return {"gamma": 0.0, "floor": 0.0}
    off = true - basis @ (basis.T @ true)
    return {"gamma": sine_of_largest_angle(basis, drawn.basis), "floor": float(off.norm())}


def sweeps(seed: int, quick: bool = False) -> Rows:
    """Return excess risks against epsilon, n, the subspace's angle, k and d, for one seed; all private, none tuned."""
    found: Rows = []

    def add(sweep: str, value: float, problem: SubspaceProblem, epsilon: float, mode: str) -> None:
        drawn = make_problem(problem, seed)
        basis = {"full": None, "true": drawn.basis, "public": None}[mode]
        if mode == "public":  # what a turned subspace is taken for: the public one
            straight = make_problem(replace(problem, misalignment=0.0), seed)
            basis = straight.basis
        x, y, true = drawn.inputs[0], drawn.target[0], drawn.weights[0]
        error = _error(x, y, true, basis, Budget(epsilon, DELTA), seed)
        directions = problem.d if mode == "full" else problem.k
        numbers = (problem.misalignment, 1.0, problem.noise, directions, problem.n_private)
        row = {
            "sweep": sweep,
            "value": value,
            "mode": mode,
            "excess_risk": error**2,
            "bound": transfer_bound(*numbers, epsilon, DELTA),
        }
        found.append(row | {"seed": seed})

    plain = SubspaceProblem(d=25, k=5, n_public_tasks=1, n_public_per_task=1, n_private=1000)
    epsilons = (0.1, 0.2, 0.4) if quick else (0.05, 0.1, 0.2, 0.4)
    for epsilon in epsilons:
        for mode in ("full", "true"):
            add("epsilon", epsilon, replace(plain, n_private=4000), epsilon, mode)
    for n in (500, 1000, 2000, 4000):
        for mode in ("full", "true"):
            add("n", n, replace(plain, n_private=n), 0.2, mode)
    for gamma in (0.1, 0.2, 0.4, 0.8):
        turned = replace(plain, misalignment=gamma, n_private=20_000)
        add("gamma", gamma, turned, 1.0, "public")
    for d in (10, 20, 40, 80) if quick else (10, 20, 40, 80, 160):
        for mode in ("full", "true"):
            add("d over k", d / 5, replace(plain, d=d), 1.0, mode)
    for k in (1, 2, 5, 10, 20):
        add("k", k, replace(plain, k=k), 0.2, "true")
    return found


def _coordination_grid(budget: Budget) -> list[CoordinationSettings]:
    return [
        CoordinationSettings(budget, clip=clip, n_rounds=n_rounds, learning_rate=rate)
        for clip in (0.2, 1.0)
        for n_rounds in (2, 10)
        for rate in (0.1, 0.5)
    ]


def personalisation(seed: int, n_examples: int, n_users: int = 50, epsilon: float = 1.0) -> Rows:
    """Return the mean error of users' weights under every way to learn them, for one seed and number of samples a user.

    Ways that coordinate are given the best of eight settings, chosen with the true weights and not charged to their
    budget: optimistic for them.
    """
    problem = SubspaceProblem(
        d=25,
        k=5,
        n_public_tasks=20,
        n_public_per_task=500,
        n_private=n_examples,
        n_private_tasks=n_users,
    )
    drawn = make_problem(problem, seed)
    public = tasks_svd(drawn.public_inputs, drawn.public_target, drawn.public_task, problem.k)
    x, y, true = drawn.inputs, drawn.target, drawn.weights
    blind = orthonormal(25, 5, torch.Generator().manual_seed(seed))
    source = SeededNoise(seed)
    ridge = 0.25 / n_examples  # the labels' noise variance over a weight's, in advance
    grid = _coordination_grid(Budget(epsilon, DELTA))

    def error(weights: Tensor) -> float:
        return float((weights - true).norm(dim=1).mean())

    def coordinated(start: Tensor) -> float:
        return min(
            error(local_regressions(x, y, private_alternating_minimisation(x, y, start, settings, source), ridge))
            for settings in grid
        )

    errors = {
        "alone, all dimensions": error(local_regressions(x, y, None, ridge)),
        "alone, public subspace": error(local_regressions(x, y, public, ridge)),
        "alone, true subspace": error(local_regressions(x, y, drawn.basis, ridge)),
        "coordinated from nothing": coordinated(blind),
        "coordinated from the public subspace": coordinated(public),
        "DP-FedAvg, one model": min(
            error(dp_federated_averaging(x, y, settings, source).expand_as(true)) for settings in grid
        ),
    }
    gamma = sine_of_largest_angle(public, drawn.basis)
    return [
        {"seed": seed, "n_examples": n_examples, "way": way, "error": value, "gamma": gamma}
        for way, value in errors.items()
    ]
