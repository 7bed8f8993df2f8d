"""The theory's networks as tables: deep homogeneous ones, and ones with a bias in the last layer."""

from surefoot.reproduce.constant_solution.homogeneous_networks import HomogeneousOutcome, HomogeneousProblem, train_toy
from surefoot.reproduce.jobs import run_calls
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured

__all__ = ("measure_theory",)

#: Weight matrices of the networks without a claim about their bias.
DEPTHS = (2, 3, 4, 6)
#: Margin points and far points, positive and negative: which labels the margin has, and which all points have, vary
#: apart.
_COMPOSITIONS = (
    *((30, 10, 10, 30), (10, 30, 30, 10), (30, 10, 30, 10), (10, 30, 10, 30)),
    *((20, 20, 35, 5), (20, 20, 5, 35), (35, 5, 20, 20), (5, 35, 20, 20)),
)
_BIAS_DEPTHS = (1, 2)


def measure_theory(n_seeds: int, quick: bool) -> Measured:
    """Train deep ReLU networks without inner biases on separable points.

    Args:
        n_seeds: Seeds.
        quick: Whether to train for few steps only, in this process.

    Returns:
        ``theory``, a row per network, and ``theory_layers``, a row per layer of the deep ones.
    """
    n_steps = 50 if quick else 2000
    deep = [(HomogeneousProblem(depth=d), s) for d in DEPTHS for s in range(n_seeds)]
    biased = [
        (HomogeneousProblem(*counts, depth=d), s)
        for d in _BIAS_DEPTHS
        for s in range(n_seeds)
        for counts in _COMPOSITIONS
    ]
    calls = {(p, s): (p, s, n_steps) for p, s in (*deep, *biased)}
    found, seconds = run_calls(train_toy, calls, side_by_side=not quick)
    rows = [_deep_row(p, s, found[p, s]) for p, s in deep] + [_biased_row(p, s, found[p, s]) for p, s in biased]
    layers: Rows = [
        {"depth": problem.depth, "seed": seed, "layer": i + 1, "relative_norm": norm}
        for problem, seed in deep
        for i, norm in enumerate(found[problem, seed].relative_norms)
    ]
    return Measured({"theory": rows, "theory_layers": layers}, {"theory": seconds})


def _deep_row(problem: HomogeneousProblem, seed: int, outcome: HomogeneousOutcome) -> dict[str, object]:
    return {
        "depth": problem.depth,
        "seed": seed,
        "accuracy": outcome.accuracy,
        "relative_output": outcome.relative_output,
        "first_relative_norm": outcome.relative_norms[0],
        "top_share": min(outcome.top_share, default=None),
    }


def _biased_row(problem: HomogeneousProblem, seed: int, outcome: HomogeneousOutcome) -> dict[str, object]:
    return {
        "depth": problem.depth,
        "seed": seed,
        "accuracy": outcome.accuracy,
        "bias": outcome.bias,
        "support_mean": outcome.support_mean,
        "label_mean": outcome.label_mean,
    }
