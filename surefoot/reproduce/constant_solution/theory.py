"""The claims that the homogeneous toy carries."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from surefoot.processes import die_with_parent
from surefoot.report.figures import interval_curves
from surefoot.reproduce.claims import Measurement, at_least, at_most, interval_above
from surefoot.reproduce.constant_solution.homogeneous_networks import ToyOutcome, ToyProblem, train_toy
from surefoot.statistics import correlation, mean_interval, paired_difference

__all__ = ("theory_claims",)

_DEPTHS = (2, 3, 4, 6)
#: Margin points and far points, positive and negative: which labels the margin has, and which all points have, vary
#: apart.
_COMPOSITIONS = (
    *((30, 10, 10, 30), (10, 30, 30, 10), (30, 10, 30, 10), (10, 30, 10, 30)),
    *((20, 20, 35, 5), (20, 20, 5, 35), (35, 5, 20, 20), (5, 35, 20, 20)),
)
_BIAS_DEPTHS = (1, 2)


def _one(problem: ToyProblem, seed: int, n_steps: int) -> ToyOutcome:
    import torch

    torch.set_num_threads(1)
    return train_toy(problem, seed, n_steps)


def theory_claims(n_seeds: int, quick: bool, out: Path) -> tuple[list[Measurement], list[dict[str, Any]]]:
    """Train deep ReLU networks without inner biases on separable points, and look at what the theory speaks of.

    Args:
        n_seeds: Seeds.
        quick: Whether to train for few steps only.
        out: Folder of the figures.
    """
    n_steps = 50 if quick else 2000
    deep = [(ToyProblem(depth=d), s) for d in _DEPTHS for s in range(n_seeds)]
    biased = [
        (ToyProblem(*counts, depth=d), s) for d in _BIAS_DEPTHS for s in range(n_seeds) for counts in _COMPOSITIONS
    ]
    if quick:
        outcomes = [_one(problem, seed, n_steps) for problem, seed in (*deep, *biased)]
    else:
        with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=die_with_parent) as pool:
            futures = [pool.submit(_one, p, seed, n_steps) for p, seed in (*deep, *biased)]
            outcomes = [f.result() for f in futures]
    found = dict(zip(deep, outcomes[: len(deep)], strict=True))
    rows: list[dict[str, Any]] = [
        {
            "depth": problem.depth,
            "seed": seed,
            "accuracy": o.accuracy,
            "relative_output": o.relative_output,
            "first_relative_norm": o.relative_norms[0],
            "top_share": min(o.top_share, default=None),
        }
        for (problem, seed), o in found.items()
    ]
    correlations: dict[tuple[int, str], list[float]] = {}
    for depth in _BIAS_DEPTHS:
        for seed in range(n_seeds):
            these = [
                o for (p, s), o in zip(biased, outcomes[len(deep) :], strict=True) if p.depth == depth and s == seed
            ]
            bias = [o.bias for o in these]
            for label, values in (
                ("support", [o.support_mean for o in these]),
                ("all", [o.label_mean for o in these]),
            ):
                correlations.setdefault((depth, label), []).append(correlation(bias, values))
            rows += [
                {
                    "depth": depth,
                    "seed": seed,
                    "accuracy": o.accuracy,
                    "bias": o.bias,
                    "support_mean": o.support_mean,
                    "label_mean": o.label_mean,
                }
                for o in these
            ]
    layers = {
        f"{depth} layers": [
            (
                float(i + 1),
                mean_interval([found[ToyProblem(depth=depth), s].relative_norms[i] for s in range(n_seeds)]),
            )
            for i in range(depth)
        ]
        for depth in _DEPTHS
    }
    interval_curves(
        layers,
        ("layer", "norm of inputs off the data's span, relative"),
        out / "figures" / "theory_norms",
        "Homogeneous networks: signals off the span",
    )
    off = [found[ToyProblem(depth=_DEPTHS[-1]), s].relative_output for s in range(n_seeds)]
    contraction = [
        found[ToyProblem(depth=_DEPTHS[-1]), s].relative_norms[-1]
        / found[ToyProblem(depth=_DEPTHS[-1]), s].relative_norms[0]
        for s in range(n_seeds)
    ]
    low_rank = [min(found[ToyProblem(depth=d), s].top_share) for d in (4,) for s in range(n_seeds)]
    claims = [
        Measurement(
            "theory_output_off_span_vanishes",
            f"Off the data's span, the output of a homogeneous network of {_DEPTHS[-1]} layers is next to nothing"
            " (relative size)",
            "theorem 4.1 (informal) [M]",
            at_most(0.05, "a twentieth of what inputs in the span give"),
            mean_interval(off),
            "ratio",
        ),
        Measurement(
            "theory_contraction",
            "What the first layer lets through shrinks on the way to the output (relative norm at the output over the"
            " first layer's)",
            "theorem 4.1: the norm contracts through the remaining layers [M]",
            at_most(0.5, "more than half is lost on the way"),
            mean_interval(contraction),
            "ratio",
        ),
        Measurement(
            "theory_low_rank",
            "Weights between hidden layers have little beside two directions, one per label (share of two of 64"
            " squared singular"
            " values; smallest layer of 4)",
            "theorem 4.1: later weights near low rank [M]; 0.12 at random",
            at_least(0.75, "three quarters in two of 64 directions"),
            mean_interval(low_rank),
            "fraction",
        ),
    ]
    for depth in _BIAS_DEPTHS:
        claims.append(
            Measurement(
                f"theory_bias_follows_support_depth_{depth}",
                f"The last bias follows the mean label of the margin points (correlation over {len(_COMPOSITIONS)}"
                " data sets,"
                f" depth {depth})",
                "propositions 4.2 and 4.3 [M]",
                at_least(0.9, "close to proportional"),
                mean_interval(correlations[depth, "support"]),
                "correlation",
            )
        )
        claims.append(
            Measurement(
                f"theory_bias_not_marginal_depth_{depth}",
                f"... and not that of all points (difference of the correlations, depth {depth})",
                "proposition 4.3: the marginal only if margin points represent the classes [M]",
                interval_above(0, "a difference has to stand out from the seeds"),
                paired_difference(correlations[depth, "support"], correlations[depth, "all"]),
                "correlation",
            )
        )
    return claims, rows
