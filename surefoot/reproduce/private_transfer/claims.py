"""What is claimed of private transfer: curves, rates, personalisation, features and audits."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from surefoot.reproduce.claims import (
    ABOVE_ONE,
    ABOVE_ZERO,
    Criterion,
    Keys,
    at_least,
    at_most,
    claim,
    close_to,
    interval_above,
    reported,
)
from surefoot.reproduce.results import PerSeed, Results, by_seed, combine, trend
from surefoot.statistics import rank_correlation

__all__ = ("crossing", "is_public", "log_slope")

SPECIFICATION = "specification 5.1"
FULL, TRUE = "DP, all dimensions", "DP, true subspace"


def is_public(curve: str) -> bool:
    """Return whether a curve's subspace comes from public data."""
    return "moments of" in curve or "SVD" in curve


def _name(text: str) -> str:
    return text.removeprefix("DP, ").replace(" ", "_").replace(",", "")


def public_curves(results: Results) -> Keys:
    """Return the public subspaces with their mean gamma, and numbers of private samples."""
    table = results["curves"]
    n = sorted(table.distinct("n"))
    for curve in filter(is_public, table.distinct("curve")):
        gamma = table.estimate("gamma", curve=curve, n=n[-1]).mean
        yield {"curve": curve, "name": _name(curve), "gamma": gamma, "few": n[0], "late": n[-3], "many": n[-1]}


def errors(results: Results, curve: str, n: int) -> PerSeed:
    """Return a curve's error of the weights at a number of private samples."""
    return results["curves"].per_seed("error", curve=curve, n=n)


@claim(
    id="floor_{name}",
    over=public_curves,
    source=f"{SPECIFICATION}: a floor of at most gamma times the weights' norm",
    unit="ratio",
    criterion=at_most(1.02, "the floor is at most gamma, a fiftieth left for noise"),
)
def floor(results: Results, curve: str, many: int) -> PerSeed:
    """{curve} (gamma {gamma:.3f}): the error at {many:,} private samples over gamma."""
    return errors(results, curve, many) / results["curves"].per_seed("gamma", curve=curve, n=many)


@claim(
    id="plateau_{name}",
    over=public_curves,
    source=SPECIFICATION,
    unit="ratio",
    criterion=at_least(0.9, "a tenth at most, while learning in all dimensions falls by two thirds"),
)
def plateau(results: Results, curve: str, late: int, many: int) -> PerSeed:
    """{curve} (gamma {gamma:.3f}): it has stopped falling (error at {many:,} over error at {late:,} samples)."""
    return errors(results, curve, many) / errors(results, curve, late)


@claim(
    id="early_gain_{name}",
    over=public_curves,
    source="abstract: public representations help where private data are few",
    unit="ratio",
    criterion=ABOVE_ONE,
)
def early_gain(results: Results, curve: str, few: int) -> PerSeed:
    """{curve} (gamma {gamma:.3f}): error of all dimensions over its error at {few:,} samples."""
    return errors(results, FULL, few) / errors(results, curve, few)


def crossing(own: Mapping[int, float], full: Mapping[int, float]) -> float:
    """Return log n at which learning in all dimensions gets below a curve; beyond the last n, that times two.

    Args:
        own: Private samples -> the curve's error, n ascending.
        full: Private samples -> the error in all dimensions.
    """
    gaps = [(math.log(n), math.log(error) - math.log(full[n])) for n, error in own.items()]
    for (x0, g0), (x1, g1) in pairwise(gaps):
        if g0 < 0 <= g1:
            return x0 + (x1 - x0) * -g0 / (g1 - g0)
    return gaps[-1][0] + math.log(2) if gaps[-1][1] < 0 else gaps[0][0]


def crossings(results: Results, curve: str) -> PerSeed:
    """Return each seed's `crossing` of a curve."""

    def by_n(of: str) -> dict[int, dict[int, float]]:
        rows = sorted(results["curves"].where(curve=of), key=lambda row: row["n"])
        return {seed: {r["n"]: r["error"] for r in of_seed} for seed, of_seed in by_seed(rows).items()}

    full = by_n(FULL)
    return PerSeed({seed: crossing(own, full[seed]) for seed, own in by_n(curve).items()})


def neighbours_in_gamma(results: Results) -> Keys:
    """Return public subspaces whose gammas are next to each other, the larger one first."""
    ordered = sorted(public_curves(results), key=lambda key: -key["gamma"])
    for worse, better in pairwise(ordered):
        gammas = {"gamma": better["gamma"], "worse_gamma": worse["gamma"]}
        yield {"better": better["curve"], "worse": worse["curve"], "name": better["name"], **gammas}


@claim(
    id="crossing_later_{name}",
    over=neighbours_in_gamma,
    source=f"{SPECIFICATION}, qualitative result 2",
    unit="log n",
    criterion=ABOVE_ZERO,
)
def crossing_later(results: Results, better: str, worse: str) -> PerSeed:
    """All dimensions overtake later for a smaller gamma: {better} ({gamma:.2f}) after {worse} ({worse_gamma:.2f})."""
    return crossings(results, better) - crossings(results, worse)


def sample_sizes(results: Results) -> Keys:
    """Return the third and the largest number of private samples."""
    n = sorted(results["curves"].distinct("n"))
    return [{"n": n[2], "many": n[-1]}]


@claim(
    id="true_subspace_best",
    over=sample_sizes,
    source=f"{SPECIFICATION}, qualitative result 3",
    unit="ratio",
    criterion=ABOVE_ONE,
)
def true_subspace_best(results: Results, n: int) -> PerSeed:
    """At {n:,} samples every other private curve is above that of the true subspace (smallest ratio)."""
    others = [c for c in results["curves"].distinct("curve") if c.startswith("DP") and c != TRUE]
    return combine([errors(results, curve, n) for curve in others], min) / errors(results, TRUE, n)


@claim(
    id="true_subspace_below_least_squares",
    over=sample_sizes,
    source=f"{SPECIFICATION}, qualitative result 3",
    unit="error",
    criterion=ABOVE_ZERO,
)
def true_subspace_below_least_squares(results: Results, many: int) -> PerSeed:
    """At {many:,} samples the true subspace is below least squares without privacy in all dimensions (difference)."""
    return errors(results, "least squares", many) - errors(results, TRUE, many)


def moments_and_svd(results: Results) -> Keys:
    """Return the moments' and the SVD's curves that saw about as many public samples."""
    public = [key["curve"] for key in public_curves(results)]
    moments = [curve for curve in public if "moments of" in curve][1]
    return [{"moments": moments, "svd": public[-1], "n_public": moments.removeprefix("DP, moments of ")}]


@claim(
    id="svd_beats_moments",
    over=moments_and_svd,
    source=f"{SPECIFICATION}, qualitative result 4",
    unit="gamma",
    criterion=ABOVE_ZERO,
)
def svd_beats_moments(results: Results, moments: str, svd: str) -> PerSeed:
    """The SVD of tasks' solutions has a smaller gamma than moments ({n_public} public samples; difference)."""
    table = results["curves"]
    largest = table.where(n=max(table.distinct("n")))
    return largest.per_seed("gamma", curve=moments) - largest.per_seed("gamma", curve=svd)


@claim(
    id="private_subspace_control",
    over=sample_sizes,
    source="ours",
    unit="ratio",
    criterion=reported("no claim is made"),
)
def private_subspace_control(results: Results, many: int) -> PerSeed:
    """Control: the subspace from private data, half the budget each, at {many:,} samples, over all dimensions."""
    return errors(results, "DP, private moments", many) / errors(results, FULL, many)


def excess_risks(results: Results, sweep: str, mode: str) -> dict[float, PerSeed]:
    """Return the excess risks at each value of what a sweep varies."""
    table = results["sweeps"].where(sweep=sweep, mode=mode)
    return {value: table.per_seed("excess_risk", value=value) for value in sorted(table.distinct("value"))}


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y against log x by least squares."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    center = fmean(a)
    return sum((u - center) * v for u, v in zip(a, b, strict=True)) / sum((u - center) ** 2 for u in a)


def rates(results: Results, sweep: str) -> PerSeed:
    """Return each seed's slope of log excess risk in the true subspace over a sweep."""
    curve = excess_risks(results, sweep, "true")
    return combine([*curve.values()], lambda risks: log_slope([*curve], risks))


def log_gains(results: Results) -> dict[float, PerSeed]:
    """Return, at each d/k, the log ratio of the excess risks in all dimensions and in the true subspace."""
    full, true = (excess_risks(results, "d over k", mode) for mode in ("full", "true"))
    return {value: (full[value] / true[value]).map(math.log) for value in full}


@claim(
    source="sections 1 and 4",
    unit="tau",
    criterion=at_least(0.8, "at least nine of ten pairs in order"),
)
def gain_grows_with_d_over_k(results: Results) -> PerSeed:
    """The gain of the subspace over all dimensions grows with d/k (Kendall's tau of the log ratio of excess risks)."""
    return trend(log_gains(results))


def largest_d_over_k(results: Results) -> Keys:
    """Return the largest d/k."""
    return [{"largest": max(results["sweeps"].where(sweep="d over k").distinct("value"))}]


@claim(
    id="gain_at_largest_d_over_k",
    over=largest_d_over_k,
    source="sections 1 and 4",
    unit="log10 of the ratio",
    criterion=ABOVE_ZERO,
)
def gain_at_largest_d_over_k(results: Results, largest: float) -> PerSeed:
    """The gain of the subspace over all dimensions at d/k = {largest:g}, in powers of ten."""
    return log_gains(results)[largest].map(lambda gain: math.log10(math.exp(gain)))


def rate(expected: float) -> Criterion:
    """Claim a slope."""
    return close_to(expected, 0.5, "the privacy term is squared; sampling error and clipping bend it at the ends")


@claim(source="section 4: k^2 / (n epsilon)^2", unit="slope", criterion=rate(-2))
def rate_in_epsilon(results: Results) -> PerSeed:
    """Excess risk against epsilon in the true subspace, where privacy dominates (slope of logs)."""
    return rates(results, "epsilon")


@claim(source="section 4: k^2 / (n epsilon)^2", unit="slope", criterion=rate(-2))
def rate_in_n(results: Results) -> PerSeed:
    """Excess risk against private samples in the true subspace, where privacy dominates (slope of logs)."""
    return rates(results, "n")


@claim(source="section 4: k^2 / (n epsilon)^2", unit="slope", criterion=rate(2))
def rate_in_k(results: Results) -> PerSeed:
    """Excess risk against the number of directions, where privacy dominates (slope of logs)."""
    return rates(results, "k")


@claim(
    source="section 4: the bias, gamma squared times the squared norm",
    unit="ratio",
    criterion=close_to(1, 0.1, "other terms are below a hundredth of gamma^2 but at the smallest angle"),
)
def bias_is_gamma_squared(results: Results) -> PerSeed:
    """With many samples the excess risk in a subspace turned by a known angle is gamma^2 (ratio, mean over angles)."""
    risks = excess_risks(results, "gamma", "public")
    seeds = next(iter(risks.values())).keys()
    return PerSeed({seed: fmean(of[seed] / gamma**2 for gamma, of in risks.items()) for seed in seeds})


def samples_a_user(results: Results) -> Keys:
    """Return the middle number of samples a user, and the public subspace's mean gamma."""
    table = results["personalisation"]
    counts = sorted(table.distinct("n_examples"))
    return [{"count": counts[len(counts) // 2], "gamma": fmean(row["gamma"] for row in table)}]


def of_way(results: Results, way: str, count: int) -> PerSeed:
    """Return the users' mean error under a way to learn."""
    return results["personalisation"].per_seed("error", way=way, n_examples=count)


@claim(
    id="personal_matches_oracle",
    over=samples_a_user,
    source="v1: with enough public data no coordination is needed",
    unit="ratio",
    criterion=at_most(1.2, "a fifth more"),
)
def personal_matches_oracle(results: Results, count: int) -> PerSeed:
    """Alone in the public subspace (gamma {gamma:.3f}, {count} samples each) users come near the true one (ratio)."""
    return of_way(results, "alone, public subspace", count) / of_way(results, "alone, true subspace", count)


@claim(
    id="personal_matches_coordination",
    over=samples_a_user,
    source="v1: purely local learning matches private coordination",
    unit="ratio",
    criterion=at_most(1.05, "a twentieth more, though the others' settings were chosen with the truth"),
)
def personal_matches_coordination(results: Results, count: int) -> PerSeed:
    """Alone in the public subspace users come near those who improve it together, with user-level privacy (ratio)."""
    together = of_way(results, "coordinated from the public subspace", count)
    return of_way(results, "alone, public subspace", count) / together


def other_ways(results: Results) -> Keys:
    """Return the ways to learn without the public subspace."""
    for way in ("coordinated from nothing", "DP-FedAvg, one model", "alone, all dimensions"):
        for key in samples_a_user(results):
            yield {"way": way, "name": _name(way), **key}


@claim(
    id="personal_below_{name}",
    over=other_ways,
    source="v1: public data replace coordination",
    unit="error",
    criterion=ABOVE_ZERO,
)
def personal_below(results: Results, way: str, count: int) -> PerSeed:
    """Alone in the public subspace users have smaller errors than: {way} (difference of errors)."""
    return of_way(results, way, count) - of_way(results, "alone, public subspace", count)


def budgets(results: Results) -> Keys:
    """Return the smallest epsilon, the one nearest to what is usual, and the largest number of directions."""
    table = results["features"]
    epsilons = _epsilons(results)
    one = 1.0 if 1.0 in epsilons else epsilons[-1]
    largest = max(table.where(kind="public features").distinct("directions"))
    return [{"lowest": epsilons[0], "one": one, "largest": largest}]


def _epsilons(results: Results) -> list[float]:
    return sorted(e for e in results["features"].distinct("epsilon") if math.isfinite(e))


def accuracy(results: Results, k: int, epsilon: float) -> PerSeed:
    """Return the probes' accuracy with k directions."""
    return results["features"].per_seed("accuracy", kind="public features", directions=k, epsilon=epsilon)


@claim(
    id="features_interior_optimum_upper",
    over=budgets,
    source="specification 7: an interior optimum in k",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def features_interior_optimum_upper(results: Results, lowest: float, largest: int) -> PerSeed:
    """At epsilon {lowest:g} twenty directions beat all {largest} (difference of accuracies)."""
    return accuracy(results, 20, lowest) - accuracy(results, largest, lowest)


@claim(
    id="features_interior_optimum_lower",
    over=budgets,
    source="specification 7: an interior optimum in k",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def features_interior_optimum_lower(results: Results, lowest: float) -> PerSeed:
    """At epsilon {lowest:g} twenty directions beat two (difference of accuracies)."""
    return accuracy(results, 20, lowest) - accuracy(results, 2, lowest)


@claim(source="specification 7", unit="tau", criterion=ABOVE_ZERO)
def features_optimum_moves_right(results: Results) -> Sequence[float]:
    """The best number of directions grows with epsilon (Kendall's tau)."""
    directions = sorted(results["features"].where(kind="public features").distinct("directions"))
    epsilons = _epsilons(results)
    found = {(k, e): accuracy(results, k, e) for k in directions for e in epsilons}
    # NaN where one number is the best at every epsilon
    taus = [
        rank_correlation(epsilons, [max(directions, key=lambda k: found[k, e][seed]) for e in epsilons])
        for seed in found[directions[0], epsilons[0]]
    ]
    return [tau for tau in taus if not math.isnan(tau)] or [0.0]


@claim(
    id="features_beat_pixels",
    over=budgets,
    source="abstract: up to 67 points over private training from scratch",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def features_beat_pixels(results: Results, one: float) -> PerSeed:
    """At epsilon {one:g} a private probe of public features beats a private linear model of pixels (difference)."""
    return accuracy(results, 20, one) - results["features"].per_seed("accuracy", kind="pixels", epsilon=one)


@claim(
    id="features_price_of_privacy",
    over=budgets,
    source="section 6: close to its non-private accuracy",
    unit="accuracy",
    criterion=at_most(0.05, "five points"),
)
def features_price_of_privacy(results: Results, one: float) -> PerSeed:
    """What privacy costs the probe at epsilon {one:g} (accuracy without noise minus with)."""
    return accuracy(results, 20, math.inf) - accuracy(results, 20, one)


def mechanisms(results: Results) -> Keys:
    """Return the audited mechanisms."""
    for name in results["audit"].distinct("mechanism"):
        (trials,) = results["audit"].where(mechanism=name).distinct("trials")
        yield {"mechanism": name, "name": _name(name), "trials": trials}


def audited(mechanism: str) -> Criterion:
    """Claim that a correct mechanism passes, and that a broken one is caught."""
    if mechanism.startswith("correct"):
        return at_most(1.0, "the epsilon that it claims")
    return interval_above(1.0, "more than the epsilon that it claims")


@claim(id="audit_{name}", over=mechanisms, source="ours", unit="epsilon", criterion=audited)
def audit(results: Results, mechanism: str) -> PerSeed:
    """An audit's lower bound on epsilon ({trials} runs each way, 95%), claimed 1: {mechanism}."""
    return results["audit"].per_seed("bound", mechanism=mechanism)
