"""What is claimed of process advantage verifiers on chains of arithmetic."""

import math
from collections.abc import Sequence
from statistics import fmean

from surefoot.reasoning.search import SearchPoint, accuracy_at, compute_ratio, up_to_best
from surefoot.reproduce.claims import ABOVE_ZERO, Keys, at_least, claim, reported
from surefoot.reproduce.jobs import slug
from surefoot.reproduce.results import NotMeasured, PerSeed, Results, Row, RowsBySeed, Table, by_seed, combine
from surefoot.statistics import Estimate

__all__ = ("GATE",)

#: Correlation with the advantages of many rollouts from which on a verifier is searched and learned with.
GATE = 0.5
FEW, ALL_STEPS = "first_pit", "few"
#: Gain in accuracy from which on something has been learned.
LEARNED = 0.1
#: The method of reinforcement that the paper recommends, and the one that knows outcomes only.
PAV, OUTCOME, BASE = "alpha 3, K 1", "outcome", "base"


@claim(
    source="specification, section 9",
    unit="probability",
    criterion=at_least(0.1, "values that hardly differ teach nothing"),
)
def arithmetic_right_beginnings_are_worth_more(results: Results) -> PerSeed:
    """The policy's values of right beginnings exceed those of wrong ones, mean over steps."""
    seeds = by_seed(row for row in results["arithmetic_values"] if row["n"] >= 10)
    found = {}
    for seed, rows in seeds.items():
        value = {(row["step"], row["right"]): row["value"] for row in rows}
        found[seed] = fmean(
            value[step, True] - value[step, False] for step, right in value if right and (step, False) in value
        )
    if not found:
        raise NotMeasured("no step was reached by ten right and ten wrong beginnings")
    return PerSeed(found)


def verifiers(results: Results) -> Keys:
    """Yield the verifiers that predict advantages."""
    return (
        {"verifier": name}
        for name in ("process", "control")
        if name in results["arithmetic_verifiers"].distinct("verifier")
    )


def _of_verifier(results: Results, verifier: str, quantity: str = "correlation_of_advantages") -> PerSeed:
    return results["arithmetic_verifiers"].per_seed(quantity, verifier=verifier)


@claim(
    id="arithmetic_{verifier}_verifier_predicts_advantages",
    over=verifiers,
    source="specification, section 9: the gate before search",
    unit="correlation",
    criterion=at_least(GATE, "less has made searches worse than none"),
)
def arithmetic_verifier_predicts_advantages(results: Results, verifier: str) -> PerSeed:
    """Advantages by the {verifier} verifier go with the policy's exact ones, on held-out completions."""
    return _of_verifier(results, verifier)


@claim(
    source="specification, section 9",
    unit="correlation",
    criterion=reported("what is computed, against what is sampled"),
)
def arithmetic_rollouts_go_with_exact_advantages(results: Results) -> PerSeed:
    """Advantages of 32 rollouts go with the policy's exact ones, on held-out completions."""
    return _of_verifier(results, "rollouts")


def scores_of_steps(results: Results) -> Keys:
    """Yield the steps that are early, and all."""
    steps = results["arithmetic_outcome_errors"].distinct("step")
    return (
        {"key": key, "last": last, "which": which}
        for key, last, which in (("early", 2, "the first two steps"), ("all", max(steps), "all steps"))
    )


@claim(
    id="arithmetic_effective_reward_predicts_outcomes_{key}",
    over=scores_of_steps,
    source="figure 10: most at early steps",
    unit="error",
    criterion=ABOVE_ZERO,
)
def arithmetic_effective_reward_predicts_outcomes(results: Results, last: int, which: str) -> PerSeed:
    """Q errs more often on outcomes than Q + alpha A (alpha .5, K 4), each with its best threshold, mean of {which}."""
    table = results["arithmetic_outcome_errors"]
    kept = Table([row for row in table if row["step"] <= last], table.name)
    return kept.per_seed("error", score="Q") - kept.per_seed("error", score="Q + alpha A")


@claim(source="figure 11", unit="correlation", criterion=ABOVE_ZERO)
def arithmetic_first_pits_teach_more(results: Results) -> PerSeed:
    """With few completions, rollouts spent on first pits teach advantages better than those of all steps."""
    return _of_verifier(results, FEW) - _of_verifier(results, ALL_STEPS)


def _points(results: Results, search: str, selection: str = "best") -> RowsBySeed:
    return by_seed(results["arithmetic_search"].where(search=search, selection=selection))


def _over_widths(results: Results, search: str, selection: str = "best", least: int = 4, most: int = 16) -> PerSeed:
    """Return the accuracy of a search, mean over the numbers of candidates in a range.

    Raises:
        NotMeasured: If there were fewer candidates.
    """
    if max(results["arithmetic_search"].distinct("n")) < least:
        raise NotMeasured(f"no search had {least} candidates")
    points = _points(results, search, selection)
    return points.reduce(lambda rows: fmean(r["accuracy"] for r in rows if least <= r["n"] <= most))


@claim(source="section 5: .545 against .50 at 256", unit="accuracy", criterion=ABOVE_ZERO)
def arithmetic_pav_beam_above_q_beam(results: Results) -> PerSeed:
    """Beam search with Q + alpha A beats that with Q, at equal N (mean over 4 to 16)."""
    return _over_widths(results, "beam, PAV") - _over_widths(results, "beam, Q")


@claim(source="section 5: .50 against .45 at 256", unit="accuracy", criterion=ABOVE_ZERO)
def arithmetic_q_beam_above_best_of_n(results: Results) -> PerSeed:
    """Beam search with Q beats the best of N by an outcome reward model, at equal N (mean over 4 to 16)."""
    return _over_widths(results, "beam, Q") - _over_widths(results, "best of N, outcome")


@claim(source="section 5: what search adds to the scores", unit="accuracy", criterion=ABOVE_ZERO)
def arithmetic_q_beam_above_best_of_n_by_the_same_values(results: Results) -> PerSeed:
    """Beam search with Q beats the best of N by the same verifier's last value, at equal N (mean over 4 to 16)."""
    return _over_widths(results, "beam, Q") - _over_widths(results, "best of N, process")


@claim(source="section 4.1", unit="accuracy", criterion=reported("added after an earlier run"))
def arithmetic_best_of_n_by_progress_less_by_last_value(results: Results) -> PerSeed:
    """Best of N by what all steps are worth together, less that by the last value of the same verifier (4 to 16)."""
    by_progress = _over_widths(results, "best of N, process", "best_progress")
    return by_progress - _over_widths(results, "best of N, process")


def _curves(results: Results, search: str, selection: str = "best") -> dict[int, list[SearchPoint]]:
    """Return, for each seed, the accuracies of a search by candidates and tokens."""
    return {
        s: [
            SearchPoint(
                r["selection"],
                r["n"],
                Estimate(r["accuracy"], r["low"], r["high"], r["problems"]),
                r["generated_tokens"],
                r["scored_tokens"],
            )
            for r in rows
        ]
        for s, rows in _points(results, search, selection).items()
    }


def beams(results: Results) -> Keys:
    """Yield the beam searches; ``key`` is for ids."""
    return ({"beam": name, "key": name.split(", ")[1].lower()} for name in ("beam, PAV", "beam, Q"))


@claim(
    id="arithmetic_{key}_beam_above_best_of_n_at_equal_tokens",
    over=beams,
    source="figure 4",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def arithmetic_beam_above_best_of_n_at_equal_tokens(results: Results, beam: str) -> PerSeed:
    """{beam}: more accurate than best of N by outcomes at the tokens of N = 2, 4 and 8, dropped steps included."""
    return _at_equal_tokens(results, beam, "best of N, outcome")


def _at_equal_tokens(
    results: Results, search: str, baseline: str, selection: str = "best", widths: Sequence[int] = (2, 4, 8)
) -> PerSeed:
    """Return by how much a search is more accurate than a baseline with as many tokens, mean over numbers of beams."""
    curves = _curves(results, baseline, selection)
    return PerSeed(
        {
            s: fmean(p.accuracy.mean - accuracy_at(curves[s], p.generated_tokens) for p in own if p.n in widths)
            for s, own in _curves(results, search).items()
        }
    )


def other_baselines(results: Results) -> Keys:
    """Yield how samples are chosen by the verifier that guides the beam, and how many beams are compared with that."""
    ways = {
        "last_value": ("best", "the last value"),
        "progress": ("best_progress", "the progress of all steps"),
        "weighted_vote": ("weighted_majority", "a vote weighted with last values"),
    }
    measured = results["arithmetic_search"].where(search="best of N, process").distinct("selection")
    return (
        {"key": f"{key}_{of}", "selection": selection, "how": how, "widths": widths, "beams": beams}
        for key, (selection, how) in ways.items()
        for of, widths, beams in (("one", (1,), "one"), ("more", (2, 4, 8), "2, 4 and 8"))
        if selection in measured
    )


@claim(
    id="arithmetic_q_beam_less_samples_by_{key}",
    over=other_baselines,
    source="section 5: what search adds to the scores",
    unit="accuracy",
    criterion=reported("added after an earlier run"),
)
def arithmetic_q_beam_less_samples(
    results: Results, selection: str, how: str, widths: Sequence[int], beams: str
) -> PerSeed:
    """Beam search with Q, of {beams}, less as many tokens of samples, chosen by {how} of the same verifier."""
    return _at_equal_tokens(results, "beam, Q", "best of N, process", selection, widths)


@claim(source="figure 4", unit="accuracy", criterion=ABOVE_ZERO)
def arithmetic_pav_beam_above_q_beam_at_equal_tokens(results: Results) -> PerSeed:
    """Beam search with Q + alpha A is more accurate than that with Q at the tokens of N = 2, 4 and 8."""
    return _at_equal_tokens(results, "beam, PAV", "beam, Q")


def first_pits(results: Results) -> Keys:
    """Yield the two ways to spend rollouts on few completions."""
    names = {FEW: "first pits", ALL_STEPS: "all steps"}
    measured = results["arithmetic_verifiers"].distinct("verifier")
    return ({"verifier": name, "what": what} for name, what in names.items() if name in measured)


@claim(
    id="arithmetic_rollouts_of_{verifier}",
    over=first_pits,
    source="figure 11",
    unit="rollouts",
    criterion=reported("both labels begin with the same completions; second rounds are not of equal size"),
)
def arithmetic_rollouts(results: Results, verifier: str, what: str) -> PerSeed:
    """Rollouts spent on {what}."""
    return _of_verifier(results, verifier, "rollouts")


@claim(source="section 4.1: 1.5 to 5", unit="ratio", criterion=reported("a bound where the smallest beam is above"))
def arithmetic_compute_ratio(results: Results) -> PerSeed:
    """Tokens of the best of N by outcomes, N its best up to 64, over the PAV beam's for that; 0 where it fails to."""
    baseline, beam = _curves(results, "best of N, outcome"), _curves(results, "beam, PAV")
    return PerSeed({s: compute_ratio(beam[s], up_to_best(own)) or 0.0 for s, own in baseline.items()})


def _at_k(results: Results, *ks: int) -> PerSeed:
    return combine([_points(results, f"beam, PAV, K {k}").reduce(lambda rows: rows[0]["accuracy"]) for k in ks])


def ends_of_k(results: Results) -> Keys:
    """Yield the weakest and the strongest prover that is the best of K attempts."""
    return ({"k": k} for k in (1, 32))


@claim(
    id="arithmetic_best_k_is_within_{k}",
    over=ends_of_k,
    source="figure 5a: 4 beats 2, 8, 16, 32",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def arithmetic_best_k_is_within(results: Results, k: int) -> PerSeed:
    """Provers that are the best of 2, 4 or 8 attempts guide the beam better than the best of {k} (alpha .5 for all)."""
    return _at_k(results, 2, 4, 8) - _at_k(results, k)


def controls(results: Results) -> Keys:
    """Yield the beam searches whose guide knows what a verifier has to learn."""
    guides = {"control": "A verifier that learned which steps are right", "oracle": "The policy's exact values"}
    searches = results["arithmetic_search"].distinct("search")
    return ({"key": key, "guide": guide} for key, guide in guides.items() if f"beam, {key}" in searches)


@claim(
    id="arithmetic_{key}_beam_above_q_beam",
    over=controls,
    source="specification, section 9: the oracle's beams",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def arithmetic_control_beam_above_q_beam(results: Results, key: str) -> PerSeed:
    """{guide}: the beam gets better still (mean over 4 to 16)."""
    return _over_widths(results, f"beam, {key}") - _over_widths(results, "beam, Q")


def _learning(results: Results, method: str) -> RowsBySeed:
    """Return each seed's accuracy by iterations of reinforcement, mean over its runs."""
    table = results["arithmetic_reinforcement"].where(method=method)
    curves = {i: table.per_seed("accuracy", iteration=i) for i in sorted(table.distinct("iteration"))}
    return by_seed(
        {"seed": s, "iteration": i, "accuracy": accuracy}
        for i, curve in curves.items()
        for s, accuracy in curve.items()
    )


def _final(results: Results, method: str) -> PerSeed:
    """Return the accuracy at the end of reinforcement, mean of the last three evaluations."""
    return _learning(results, method).reduce(lambda own: fmean(r["accuracy"] for r in own[-3:]))


@claim(source="section 5: .26 against .19", unit="accuracy", criterion=ABOVE_ZERO)
def arithmetic_pav_rl_ends_higher(results: Results) -> PerSeed:
    """Reinforcement with effective rewards (alpha 3, the prover's own values) ends higher than with outcomes alone."""
    return _final(results, PAV) - _final(results, OUTCOME)


def _reached(rows: Sequence[Row], accuracy: float) -> float:
    """Return the first iteration with an accuracy; infinite where there is none."""
    return min((float(r["iteration"]) for r in rows if r["accuracy"] >= accuracy), default=math.inf)


def _where_outcomes_teach(results: Results) -> tuple[RowsBySeed, RowsBySeed]:
    """Return the curves of learning from outcomes and from effective rewards, on seeds where the former happens.

    Raises:
        NotMeasured: If outcomes alone teach fewer than two policies, so that there is no interval.
    """
    finals = _final(results, OUTCOME)
    baseline, curves = (_learning(results, method) for method in (OUTCOME, PAV))
    taught = [s for s, final in finals.items() if final - baseline[s][0]["accuracy"] >= LEARNED]
    if len(taught) < 2:
        raise NotMeasured(f"outcomes alone bring {LEARNED:g} or more within the run on seeds {taught} only")
    return RowsBySeed({s: baseline[s] for s in taught}), RowsBySeed({s: curves[s] for s in taught})


SEEDS_LEFT_OUT = reported("seeds on which outcomes alone teach nothing within the run are left out")


@claim(source="section 5: 5 to 6", unit="ratio", criterion=SEEDS_LEFT_OUT)
def arithmetic_pav_rl_is_faster(results: Results) -> PerSeed:
    """Iterations of learning from outcomes over those of effective rewards until the former's final accuracy."""
    baseline, curves = _where_outcomes_teach(results)
    finals = _final(results, OUTCOME)
    return PerSeed({s: _reached(own, finals[s]) / _reached(curves[s], finals[s]) for s, own in baseline.items()})


@claim(source="section 5: 5 to 6", unit="ratio", criterion=SEEDS_LEFT_OUT)
def arithmetic_pav_rl_is_halfway_sooner(results: Results) -> PerSeed:
    """The same until half of what outcomes bring in the end, where all methods still learn."""
    baseline, curves = _where_outcomes_teach(results)
    halves = {s: (own[0]["accuracy"] + _final(results, OUTCOME)[s]) / 2 for s, own in baseline.items()}
    return PerSeed({s: _reached(baseline[s], h) / _reached(curves[s], h) for s, h in halves.items()})


def _while_learning(results: Results, method: str) -> PerSeed:
    """Return the accuracy of samples, mean over all evaluations of reinforcement."""
    return _learning(results, method).reduce(lambda own: fmean(r["accuracy"] for r in own))


def other_rewards(results: Results) -> Keys:
    """Yield the other weights of the prover's advantage, and provers that are the best of several attempts."""
    measured = results["arithmetic_reinforcement"].distinct("method")
    return ({"key": slug(method), "method": method} for method in measured if method not in (PAV, OUTCOME))


@claim(
    id="arithmetic_pav_rl_{key}_less_the_papers",
    over=other_rewards,
    source="appendix E: alpha 3 or 5, of .5 to 6 good",
    unit="accuracy",
    criterion=reported("a sweep; compared is the paper's alpha 3, with the prover's own values"),
)
def arithmetic_pav_rl_less_the_papers(results: Results, method: str) -> PerSeed:
    """Accuracy, mean over reinforcement with {method}, less that with alpha 3, K 1."""
    return _while_learning(results, method) - _while_learning(results, PAV)


@claim(source="section 5: .26 against .19", unit="accuracy", criterion=ABOVE_ZERO)
def arithmetic_pav_rl_learns_more_on_the_way(results: Results) -> PerSeed:
    """Accuracy, mean over reinforcement with effective rewards, exceeds that of learning from outcomes alone."""
    return _while_learning(results, PAV) - _while_learning(results, OUTCOME)


def _pass(results: Results, method: str) -> PerSeed:
    table = results["arithmetic_pass"]
    return table.per_seed("value", method=method, n=max(table.distinct("n")))


@claim(source="figure 8a: more than 7 points", unit="Pass@64", criterion=ABOVE_ZERO)
def arithmetic_pav_rl_explores(results: Results) -> PerSeed:
    """After reinforcement with effective rewards Pass@64 is higher than after that with outcomes."""
    return _pass(results, PAV) - _pass(results, OUTCOME)


@claim(source="figure 8a: below from 64 on", unit="Pass@64", criterion=reported("depends on how long is trained"))
def arithmetic_pass_after_outcomes_less_base(results: Results) -> PerSeed:
    """Pass@64 after reinforcement by outcomes, less that of the policy before."""
    return _pass(results, OUTCOME) - _pass(results, BASE)
