"""What is claimed of process advantage verifiers: on the didactic task."""

from surefoot.reproduce.claims import ABOVE_ZERO, RISES, Keys, at_least, at_most, claim, reported
from surefoot.reproduce.pav.sweep import EFFECTIVE, OUTCOME, RATES, WEIGHTS
from surefoot.reproduce.results import PerSeed, Results, by_seed, combine
from surefoot.statistics import rank_correlation

__all__ = ()

PAPER_RATE = 1e-3
#: Weights of provers that the paper's text calls useful, and those of figure 3b at which nothing is learned.
USEFUL, WEAK, STRONG = (8.0, 10.0, 12.0, 15.0), (1.0, 2.0), (20.0, 50.0, 100.0)


def at_last(results: Results, method: str, lr: float = PAPER_RATE) -> PerSeed:
    """Return the accuracy of the last iterations of learning."""
    table = results["didactic_learning"].where(method=method, lr=lr)
    return table.per_seed("value", iteration=max(table.distinct("iteration")))


@claim(
    source="figure 3a: 1.0 at 600 iterations",
    unit="accuracy",
    criterion=at_least(0.9, "nearly all samples, of a policy that goes on sampling"),
)
def didactic_effective_reward_solves(results: Results) -> PerSeed:
    """On the planted sub-sequence effective rewards with the prover of weight 10 find the answer."""
    return at_last(results, EFFECTIVE)


@claim(
    source="figure 3a: 0 through 3500 iterations",
    unit="accuracy",
    criterion=at_most(0.05, "no more than a rare sample"),
)
def didactic_outcome_fails(results: Results) -> PerSeed:
    """Outcomes alone do not find it, with the paper's learning rate."""
    return at_last(results, OUTCOME)


@claim(
    source="figure 3a; the learning rates are ours",
    unit="accuracy",
    criterion=at_most(0.05, "no more than a rare sample"),
)
def didactic_outcome_fails_at_its_best_rate(results: Results) -> PerSeed:
    """Outcomes alone do not find it with the best of four learning rates, chosen for each seed after the fact."""
    return combine([at_last(results, OUTCOME, rate) for rate in RATES], max)


def _solved_at(results: Results, method: str) -> PerSeed:
    """Return the iteration by which 84% of the samples have the answer."""
    table = results["didactic_learning"].where(method=method, lr=PAPER_RATE)
    reached = {s: [r["iteration"] for r in rows if r["value"] >= 0.84] for s, rows in by_seed(table).items()}
    return PerSeed({seed: float(min(found, default=float("nan"))) for seed, found in reached.items()})


@claim(source="figure 3a: about 400", unit="iterations", criterion=reported("depends on how exact the advantages are"))
def didactic_iterations_to_solve(results: Results) -> PerSeed:
    """Iterations of effective rewards until 84% of the samples have the answer."""
    return _solved_at(results, EFFECTIVE)


@claim(source="figure 3a: more than 8", unit="ratio", criterion=reported("the paper's ratio is open upwards"))
def didactic_iterations_ratio(results: Results) -> PerSeed:
    """Iterations of outcomes alone over those of effective rewards until then."""
    return _solved_at(results, OUTCOME) / _solved_at(results, EFFECTIVE)


@claim(source="figure 3c: .25 against .07", unit="Pass@256", criterion=ABOVE_ZERO)
def didactic_pass_grows_faster(results: Results) -> PerSeed:
    """After 100 iterations Pass@256 is higher with effective rewards than with outcomes alone."""
    table = results["didactic_pass"].where(lr=PAPER_RATE, iteration=100, n=256)
    return table.per_seed("value", method=EFFECTIVE) - table.per_seed("value", method=OUTCOME)


@claim(source="figure 3c: .10", unit="Pass@256", criterion=reported("the paper does not say what its start can do"))
def didactic_pass_of_the_start(results: Results) -> PerSeed:
    """Pass@256 of the policy that both start from."""
    return results["didactic_pass"].per_seed("value", lr=PAPER_RATE, iteration=0, n=256, method=EFFECTIVE)


def settings(results: Results) -> Keys:
    """Yield the settings of the sweep; ``key`` is for ids."""
    pairs = dict.fromkeys((row["optimizer"], row["prover"]) for row in results["didactic_sweep"])
    for optimizer, prover in pairs:
        key = f"{optimizer}_{prover}".replace(", ", "_").replace(" ", "_")
        yield {"optimizer": optimizer, "prover": prover, "key": key}


def accuracy_of(results: Results, optimizer: str, prover: str, weights: tuple[float, ...]) -> PerSeed:
    """Return the accuracy over the whole run, mean over provers of these weights."""
    table = results["didactic_sweep"].where(optimizer=optimizer, prover=prover)
    rows = [row for row in table if row["weight"] in weights]
    return by_seed(rows).reduce(lambda own: sum(r["mean_accuracy"] for r in own) / len(own))


@claim(
    id="didactic_weak_provers_worse_{key}",
    over=settings,
    source="figure 3b: 0 at weights 1 and 2, .5 to .94 from 7 to 13",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def didactic_weak_provers_worse(results: Results, optimizer: str, prover: str) -> PerSeed:
    """Provers of weights 8 to 15 teach more than those of 1 and 2, over the whole run ({optimizer}, {prover})."""
    useful = accuracy_of(results, optimizer, prover, USEFUL)
    return useful - accuracy_of(results, optimizer, prover, WEAK)


@claim(
    id="didactic_strong_provers_worse_{key}",
    over=settings,
    source="figure 3b: 0 at weight 20",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def didactic_strong_provers_worse(results: Results, optimizer: str, prover: str) -> PerSeed:
    """Provers of weights 8 to 15 teach more than those of 20 to 100, over the whole run ({optimizer}, {prover})."""
    useful = accuracy_of(results, optimizer, prover, USEFUL)
    return useful - accuracy_of(results, optimizer, prover, STRONG)


@claim(
    id="didactic_ranking_{key}",
    over=settings,
    source="theorem 3.1",
    unit="tau",
    criterion=RISES,
)
def didactic_ranking(results: Results, optimizer: str, prover: str) -> PerSeed:
    """Distinguishability plus alignment ranks the provers as learning does ({optimizer}, {prover}; Kendall's tau)."""
    exact = prover.replace("100 rollouts", "exact values")
    ranked = results["didactic_provers"].where(prover=exact)
    learned = results["didactic_sweep"].where(optimizer=optimizer, prover=prover)
    predicted = [ranked.estimate("improvement", weight=w).mean for w in WEIGHTS]
    curve = [learned.per_seed("mean_accuracy", weight=w) for w in WEIGHTS]
    return combine(curve, lambda accuracies: rank_correlation(predicted, accuracies))
