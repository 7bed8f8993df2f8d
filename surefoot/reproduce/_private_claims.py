"""What is claimed about private transfer: curves, rates, personalisation, features and audits."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.privacy.risk import full_dimension_bound, transfer_bound
from surefoot.report.figures import interval_curves
from surefoot.reproduce._private_audit import audit_descent
from surefoot.reproduce._private_features import DIRECTIONS
from surefoot.reproduce._private_toy import DELTA, CurveSizes, Rows
from surefoot.reproduce.claims import (
    Measurement,
    at_least,
    at_most,
    close_to,
    interval_above,
    reported,
)
from surefoot.statistics import Estimate, mean_interval, paired_difference, rank_correlation

__all__ = ("audit_claims", "curve_claims", "feature_claims", "personal_claims", "rate_claims")

_DIFFERS = "a difference has to stand out from the seeds"
_SPECIFICATION = "specification 5.1"


def _per_seed(rows: Rows, quantity: str, /, **where: Any) -> list[float]:
    """Return a quantity of the rows that fit, averaged within each seed, in the order of seeds."""
    kept = [r for r in rows if all(r.get(k) == v for k, v in where.items())]
    seeds = sorted({r["seed"] for r in kept})
    return [fmean(r[quantity] for r in kept if r["seed"] == seed) for seed in seeds]


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y against log x by least squares."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    center = fmean(a)
    return sum((u - center) * v for u, v in zip(a, b, strict=True)) / sum((u - center) ** 2 for u in a)


def _slopes(rows: Rows, sweep: str, mode: str) -> list[float]:
    """Return each seed's slope of log excess risk over a sweep."""
    kept = [r for r in rows if r["sweep"] == sweep and r["mode"] == mode]
    values = sorted({r["value"] for r in kept})
    by_seed = zip(*(_per_seed(kept, "excess_risk", value=value) for value in values), strict=True)
    return [_slope(values, risks) for risks in by_seed]


def _crossing(rows: Rows, curve: str, seed: int) -> float:
    """Return log n at which learning in all dimensions gets below a curve; beyond the last n, that times two."""
    own, full = (
        sorted((r["n"], r["error"]) for r in rows if r["curve"] == c and r["seed"] == seed)
        for c in (curve, "DP, all dimensions")
    )
    gaps = [(math.log(n), math.log(e) - math.log(f)) for (n, e), (_, f) in zip(own, full, strict=True)]
    for (x0, g0), (x1, g1) in pairwise(gaps):
        if g0 < 0 <= g1:
            return x0 + (x1 - x0) * -g0 / (g1 - g0)
    return gaps[-1][0] + math.log(2) if gaps[-1][1] < 0 else gaps[0][0]


def curve_claims(rows: Rows, sizes: CurveSizes, out: Path) -> list[Measurement]:
    """Judge how errors fall with private samples, where they stop, and where all dimensions become better."""
    names = list(dict.fromkeys(r["curve"] for r in rows))
    public = [n for n in names if "moments of" in n or "SVD" in n]
    series = {
        name: [(float(n), mean_interval(_per_seed(rows, "error", curve=name, n=n))) for n in sizes.private]
        for name in names
    }
    gammas = {name: mean_interval(_per_seed(rows, "gamma", curve=name, n=sizes.private[-1])) for name in public}
    labels = {name: f"{name}, gamma {gammas[name].mean:.2f}" if name in gammas else name for name in names}
    bounds = {
        "bound, all dimensions": [
            (
                float(n),
                Estimate(math.sqrt(full_dimension_bound(sizes.d, 0.5, n, 1.0, DELTA)), 0, 0, 1),
            )
            for n in sizes.private
        ],
        "bound, true subspace": [
            (
                float(n),
                Estimate(math.sqrt(transfer_bound(0.0, 1.0, 0.5, sizes.k, n, 1.0, DELTA)), 0, 0, 1),
            )
            for n in sizes.private
        ],
    }
    interval_curves(
        {labels[n]: points for n, points in series.items()} | bounds,
        ("private samples", "error of the weights"),
        out / "figures" / "error_against_samples",
        f"d = {sizes.d}, k = {sizes.k}, epsilon = 1; bounds without constants",
        log_x=True,
        log_y=True,
    )
    small, large = sizes.private[0], sizes.private[-1]
    claims = []
    for name in public:
        key = name.removeprefix("DP, ").replace(" ", "_").replace(",", "")
        last = _per_seed(rows, "error", curve=name, n=large)
        gamma = _per_seed(rows, "gamma", curve=name, n=large)
        middle = _per_seed(rows, "error", curve=name, n=sizes.private[-3])
        note = f"{name} (gamma {gammas[name].mean:.3f})"
        claims += [
            Measurement(
                f"floor_{key}",
                f"{note}: the error at {large:,} private samples over gamma",
                f"{_SPECIFICATION}: a floor of at most gamma times the weights' norm",
                at_most(1.02, "the floor is at most gamma, a fiftieth left for noise"),
                mean_interval([e / g for e, g in zip(last, gamma, strict=True)]),
                "ratio",
            ),
            Measurement(
                f"plateau_{key}",
                f"{note}: it has stopped falling (error at {large:,} over error at {sizes.private[-3]:,} samples)",
                _SPECIFICATION,
                at_least(0.9, "a tenth at most, while learning in all dimensions falls by two thirds"),
                mean_interval([a / b for a, b in zip(last, middle, strict=True)]),
                "ratio",
            ),
            Measurement(
                f"early_gain_{key}",
                f"{note}: error of all dimensions over its error at {small:,} samples",
                "abstract: public representations help where private data are few",
                interval_above(1, _DIFFERS),
                mean_interval(
                    [
                        a / b
                        for a, b in zip(
                            _per_seed(rows, "error", curve="DP, all dimensions", n=small),
                            _per_seed(rows, "error", curve=name, n=small),
                            strict=True,
                        )
                    ]
                ),
                "ratio",
            ),
        ]
    seeds = sorted({r["seed"] for r in rows})
    ordered = sorted(public, key=lambda name: -gammas[name].mean)
    for worse, better in pairwise(ordered):
        differences = [_crossing(rows, better, seed) - _crossing(rows, worse, seed) for seed in seeds]
        claims.append(
            Measurement(
                f"crossing_later_{better.removeprefix('DP, ').replace(' ', '_').replace(',', '')}",
                f"All dimensions overtake later for a smaller gamma: {better} ({gammas[better].mean:.2f}) after {worse}"
                f" ({gammas[worse].mean:.2f}), in log n",
                f"{_SPECIFICATION}, qualitative result 2",
                interval_above(0, _DIFFERS),
                mean_interval(differences),
                "log n",
            )
        )
    at = sizes.private[2]
    bound = _per_seed(rows, "error", curve="DP, true subspace", n=at)
    others = [n for n in names if n.startswith("DP") and n != "DP, true subspace"]
    errors = [_per_seed(rows, "error", curve=n, n=at) for n in others]
    best = [min(e) / b for e, b in zip(zip(*errors, strict=True), bound, strict=True)]
    true, free = (_per_seed(rows, "error", curve=c, n=large) for c in ("DP, true subspace", "least squares"))
    return [
        *claims,
        Measurement(
            "true_subspace_best",
            f"At {sizes.private[2]:,} samples every other private curve is above that of the true subspace (smallest"
            " ratio)",
            f"{_SPECIFICATION}, qualitative result 3",
            interval_above(1, _DIFFERS),
            mean_interval(best),
            "ratio",
        ),
        Measurement(
            "true_subspace_below_least_squares",
            f"... and at {large:,} samples it is below least squares without privacy in all dimensions (difference)",
            f"{_SPECIFICATION}, qualitative result 3",
            interval_above(0, _DIFFERS),
            paired_difference(free, true),
            "error",
        ),
        Measurement(
            "svd_beats_moments",
            "Sample for sample, the SVD of tasks' solutions has a smaller gamma than moments (20,000 public samples;"
            " difference)",
            f"{_SPECIFICATION}, qualitative result 4",
            interval_above(0, _DIFFERS),
            paired_difference(
                _per_seed(rows, "gamma", curve=f"DP, moments of {sizes.moments[1]:,}", n=large),
                _per_seed(rows, "gamma", curve=public[-1], n=large),
            ),
            "gamma",
        ),
        Measurement(
            "private_subspace_control",
            f"Control: the subspace from private data, half the budget each, at {large:,} samples, over all dimensions",
            "ours",
            reported("no claim is made"),
            mean_interval(
                [
                    a / b
                    for a, b in zip(
                        _per_seed(rows, "error", curve="DP, private moments", n=large),
                        _per_seed(rows, "error", curve="DP, all dimensions", n=large),
                        strict=True,
                    )
                ]
            ),
            "ratio",
        ),
    ]


def rate_claims(rows: Rows, out: Path) -> list[Measurement]:
    """Judge the rates in n and epsilon, the effect of gamma, and the gain as d/k grows."""
    for sweep in dict.fromkeys(r["sweep"] for r in rows):
        kept = [r for r in rows if r["sweep"] == sweep]
        values = sorted({r["value"] for r in kept})
        names = {"full": "all dimensions", "true": "true subspace", "public": "public subspace"}
        modes = list(dict.fromkeys(r["mode"] for r in kept))
        series = {
            f"{label}{names[mode]}": [(v, mean_interval(_per_seed(kept, quantity, value=v, mode=mode))) for v in values]
            for label, quantity in (("", "excess_risk"), ("bound, ", "bound"))
            for mode in modes
        }
        interval_curves(
            series,
            (sweep, "excess risk"),
            out / "figures" / f"excess_risk_against_{sweep.replace(' ', '_')}",
            log_x=True,
            log_y=True,
        )
    gain_at = sorted({r["value"] for r in rows if r["sweep"] == "d over k"})
    gains = [
        [
            math.log(a / b)
            for a, b in zip(
                _per_seed(rows, "excess_risk", sweep="d over k", value=v, mode="full"),
                _per_seed(rows, "excess_risk", sweep="d over k", value=v, mode="true"),
                strict=True,
            )
        ]
        for v in gain_at
    ]
    by_seed = list(zip(*gains, strict=True))
    gammas = sorted({r["value"] for r in rows if r["sweep"] == "gamma"})
    ratios = [[r / gamma**2 for r in _per_seed(rows, "excess_risk", sweep="gamma", value=gamma)] for gamma in gammas]
    private_part = "the privacy term is squared; sampling error and clipping bend it at the ends"
    return [
        Measurement(
            "gain_grows_with_d_over_k",
            "The gain of the subspace over all dimensions grows with d/k (Kendall's tau of the log ratio of excess"
            " risks)",
            "sections 1 and 4",
            at_least(0.8, "at least nine of ten pairs in order"),
            mean_interval([rank_correlation(gain_at, g) for g in by_seed]),
            "tau",
        ),
        Measurement(
            "gain_at_largest_d_over_k",
            f"... and is, at d/k = {gain_at[-1]:g}, this many times",
            "sections 1 and 4",
            interval_above(0, _DIFFERS),
            mean_interval([math.log10(math.exp(g[-1])) for g in by_seed]),
            "log10 of the ratio",
        ),
        Measurement(
            "rate_in_epsilon",
            "Excess risk against epsilon in the true subspace, where privacy dominates (slope of logs)",
            "section 4: k^2 / (n epsilon)^2",
            close_to(-2, 0.5, private_part),
            mean_interval(_slopes(rows, "epsilon", "true")),
            "slope",
        ),
        Measurement(
            "rate_in_n",
            "Excess risk against private samples in the true subspace, where privacy dominates (slope of logs)",
            "section 4: k^2 / (n epsilon)^2",
            close_to(-2, 0.5, private_part),
            mean_interval(_slopes(rows, "n", "true")),
            "slope",
        ),
        Measurement(
            "rate_in_k",
            "Excess risk against the number of directions, where privacy dominates (slope of logs)",
            "section 4: k^2 / (n epsilon)^2",
            close_to(2, 0.5, private_part),
            mean_interval(_slopes(rows, "k", "true")),
            "slope",
        ),
        Measurement(
            "bias_is_gamma_squared",
            "With many samples the excess risk in a subspace turned by a known angle is gamma^2 (ratio, mean over"
            " angles)",
            "section 4: the bias, gamma squared times the squared norm",
            close_to(1, 0.1, "other terms are below a hundredth of gamma^2 but at the smallest angle"),
            mean_interval([fmean(r) for r in zip(*ratios, strict=True)]),
            "ratio",
        ),
    ]


def personal_claims(rows: Rows, out: Path) -> list[Measurement]:
    """Judge purely local learning in a public subspace against coordination under user-level privacy."""
    counts = sorted({r["n_examples"] for r in rows})
    interval_curves(
        {
            way: [(float(n), mean_interval(_per_seed(rows, "error", way=way, n_examples=n))) for n in counts]
            for way in dict.fromkeys(r["way"] for r in rows)
        },
        ("samples a user", "error of the weights, mean over users"),
        out / "figures" / "personalisation",
        "50 users, d = 25, k = 5, epsilon = 1 for a user",
        log_x=True,
        log_y=True,
    )
    middle = counts[len(counts) // 2]

    def errors(way: str) -> list[float]:
        return _per_seed(rows, "error", way=way, n_examples=middle)

    local, oracle = errors("alone, public subspace"), errors("alone, true subspace")
    gamma = fmean(r["gamma"] for r in rows)
    claims = [
        Measurement(
            "personal_matches_oracle",
            f"Users who learn alone in the public subspace (gamma {gamma:.3f}, {middle} samples each) are near the"
            " true subspace's error"
            " (ratio)",
            "v1: with enough public data no coordination is needed",
            at_most(1.2, "a fifth more"),
            mean_interval([a / b for a, b in zip(local, oracle, strict=True)]),
            "ratio",
        )
    ]
    coordinated = errors("coordinated from the public subspace")
    claims.append(
        Measurement(
            "personal_matches_coordination",
            "... and near users who improve that subspace together under user-level privacy (ratio)",
            "v1: purely local learning matches private coordination",
            at_most(1.05, "a twentieth more, though the others' settings were chosen with the truth"),
            mean_interval([a / b for a, b in zip(local, coordinated, strict=True)]),
            "ratio",
        )
    )
    for way in ("coordinated from nothing", "DP-FedAvg, one model", "alone, all dimensions"):
        claims.append(
            Measurement(
                f"personal_below_{way.replace(' ', '_').replace(',', '')}",
                f"... and below: {way} (difference of errors)",
                "v1: public data replace coordination",
                interval_above(0, _DIFFERS),
                paired_difference(errors(way), local),
                "error",
            )
        )
    return claims


def feature_claims(rows: Rows, out: Path) -> list[Measurement]:
    """Judge private probes on CIFAR-10's features: against pixels, and over the number of directions."""
    probes = [r for r in rows if r["kind"] == "public features"]
    epsilons = sorted({r["epsilon"] for r in rows if math.isfinite(r["epsilon"])})
    interval_curves(
        {
            f"epsilon {epsilon:g}": [
                (
                    float(k),
                    mean_interval(_per_seed(probes, "accuracy", directions=k, epsilon=epsilon)),
                )
                for k in DIRECTIONS
            ]
            for epsilon in (*epsilons, math.inf)
        },
        ("directions of the public subspace", "test accuracy of five private classes"),
        out / "figures" / "features_directions",
        "CIFAR-10, encoder of five other classes",
        log_x=True,
    )
    lowest, one = epsilons[0], 1.0 if 1.0 in epsilons else epsilons[-1]

    def accuracy(k: int, epsilon: float) -> list[float]:
        return _per_seed(probes, "accuracy", directions=k, epsilon=epsilon)

    seeds = sorted({r["seed"] for r in rows})
    best = [[max(DIRECTIONS, key=lambda k: accuracy(k, epsilon)[i]) for epsilon in epsilons] for i in range(len(seeds))]
    pixels = _per_seed(rows, "accuracy", kind="pixels", epsilon=one)
    return [
        Measurement(
            "features_interior_optimum_upper",
            f"At epsilon {lowest:g} twenty directions beat all {DIRECTIONS[-1]} (difference of accuracies)",
            "specification 7: an interior optimum in k",
            interval_above(0, _DIFFERS),
            paired_difference(accuracy(20, lowest), accuracy(DIRECTIONS[-1], lowest)),
            "accuracy",
        ),
        Measurement(
            "features_interior_optimum_lower",
            f"... and two (difference), at epsilon {lowest:g}",
            "specification 7: an interior optimum in k",
            interval_above(0, _DIFFERS),
            paired_difference(accuracy(20, lowest), accuracy(2, lowest)),
            "accuracy",
        ),
        Measurement(
            "features_optimum_moves_right",
            "The best number of directions grows with epsilon (Kendall's tau)",
            "specification 7",
            interval_above(0, _DIFFERS),
            mean_interval([t for b in best if not math.isnan(t := rank_correlation(epsilons, b))] or [0.0]),
            "tau",
        ),
        Measurement(
            "features_beat_pixels",
            f"At epsilon {one:g} a private probe of public features beats a private linear model of pixels"
            " (difference)",
            "abstract: up to 67 points over private training from scratch",
            interval_above(0, _DIFFERS),
            paired_difference(accuracy(20, one), pixels),
            "accuracy",
        ),
        Measurement(
            "features_price_of_privacy",
            f"What privacy costs the probe at epsilon {one:g} (accuracy without noise minus with)",
            "section 6: close to its non-private accuracy",
            at_most(0.05, "five points"),
            paired_difference(accuracy(20, math.inf), accuracy(20, one)),
            "accuracy",
        ),
    ]


def audit_claims(n_trials: int, n_seeds: int) -> tuple[list[Measurement], Rows]:
    """Judge whether an audit lets the correct mechanism pass and catches three broken ones."""
    cases = {
        "correct, sampled": ("none", 0.05, 4),
        "correct, all examples": ("none", 1.0, 1),
        "no clipping": ("no clipping", 0.05, 4),
        "noise too small": ("noise too small", 1.0, 1),
        "accounted as sampled, but not": ("no sampling", 0.05, 4),
    }
    claims, rows = [], []
    for name, (breakage, rate, steps) in cases.items():
        audits = [
            audit_descent(breakage, 1.0, n_trials, steps, rate, seed)  # type: ignore[arg-type]
            for seed in range(n_seeds)
        ]
        rows += [
            {
                "mechanism": name,
                "seed": s,
                "claimed": a.claimed,
                "bound": a.epsilon_lower_bound,
                "trials": a.n_trials,
            }
            for s, a in enumerate(audits)
        ]
        correct = breakage == "none"
        criterion = (
            at_most(1.0, "the epsilon that it claims")
            if correct
            else interval_above(1.0, "more than the epsilon that it claims")
        )
        claims.append(
            Measurement(
                f"audit_{name.replace(' ', '_').replace(',', '')}",
                f"An audit's lower bound on epsilon ({n_trials} runs each way, 95%), claimed 1: {name}",
                "ours",
                criterion,
                mean_interval([a.epsilon_lower_bound for a in audits]),
                "epsilon",
            )
        )
    return claims, rows
