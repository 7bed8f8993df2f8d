"""What is claimed of learning from incorrect solutions, on arithmetic."""

from itertools import pairwise
from statistics import fmean

from surefoot.reasoning.metrics.scaling import scaling_exponent
from surefoot.reproduce.claims import ABOVE_ONE, ABOVE_ZERO, Keys, at_least, at_most, claim, reported
from surefoot.reproduce.incorrect_synthetic_data.multipliers import errors, multipliers, positive
from surefoot.reproduce.incorrect_synthetic_data.studies import (
    EDIT_DPO,
    FEW_ATTEMPTS,
    PER_STEP_DPO,
    RANDOM_DPO,
    SFT,
    SHARED_PREFIX,
)
from surefoot.reproduce.jobs import slug
from surefoot.reproduce.results import PerSeed, Results, by_seed, combine

__all__ = ()

#: The number of right solutions of a problem that the paper recommends.
RFT = "RFT 4"


def less(results: Results, method: str, other: str, part: str = "scaling", quantity: str = "error") -> PerSeed:
    """Return how much less a method errs than another, mean over the numbers of problems that both have."""
    own, others = (errors(results["arithmetic_errors"], m, part, quantity) for m in (method, other))
    return combine([others[n] - own[n] for n in own if n in others])


def methods(results: Results) -> Keys:
    """Yield the methods of the scaling study, SFT first."""
    table = results["arithmetic_errors"].where(part="scaling")
    return ({"key": slug(m), "method": m} for m in table.distinct("method") if len(errors(table, m)) > 1)


def learners(results: Results) -> Keys:
    """Yield the methods that learn from a policy's own solutions."""
    measured = results["arithmetic_errors"].where(part="scaling").distinct("method")
    return ({"key": slug(m), "method": m} for m in measured if m != SFT)


@claim(
    id="arithmetic_exponent_of_{key}",
    over=methods,
    source="section 4: -.05 to -.15 of SFT",
    unit="exponent",
    criterion=reported("a task of its own has exponents of its own"),
)
def arithmetic_exponent(results: Results, method: str) -> PerSeed:
    """Exponent of the number of synthetic problems in the test error of {method}."""
    curve = errors(results["arithmetic_errors"], method)
    seeds = curve[min(curve)]
    return PerSeed({s: scaling_exponent([*curve], [positive(e[s]) for e in curve.values()]) for s in seeds})


@claim(
    source="specification, section 9",
    unit="share of doublings",
    criterion=at_least(0.8, "where errors are all or nothing, no method saves problems"),
)
def arithmetic_error_is_graded(results: Results) -> PerSeed:
    """The error of SFT falls with every doubling of synthetic problems, over a factor of 32."""
    curve = [*errors(results["arithmetic_errors"], SFT).values()]
    return combine(curve, lambda own: fmean(float(b < a) for a, b in pairwise(own)))


@claim(
    id="arithmetic_multiplier_of_{key}",
    over=learners,
    source="figure 1: RFT 2, per-step DPO 8",
    unit="times",
    criterion=ABOVE_ONE,
)
def arithmetic_multiplier(results: Results, method: str) -> PerSeed:
    """{method} is worth so many times more synthetic problems (geometric mean over numbers of problems)."""
    return multipliers(results["arithmetic_errors"], method)


@claim(source="figure 1: 8 against 2", unit="ratio", criterion=ABOVE_ONE)
def arithmetic_per_step_dpo_is_worth_more_than_rft(results: Results) -> PerSeed:
    """Per-step DPO is worth more problems than RFT with 4 solutions a problem: ratio of what both are worth."""
    table = results["arithmetic_errors"]
    return multipliers(table, PER_STEP_DPO) / multipliers(table, RFT)


@claim(source="figure 7c: no better than the start on MATH", unit="error", criterion=at_most(0.0, "it does not help"))
def arithmetic_random_pairs_do_not_help(results: Results) -> PerSeed:
    """DPO on random pairs errs no less than the policy that it starts from: error before less error after."""
    return less(results, RANDOM_DPO, SFT)


@claim(source="figure 7c", unit="error", criterion=ABOVE_ZERO)
def arithmetic_pits_beat_random_pairs(results: Results) -> PerSeed:
    """Per-step DPO errs less than DPO on random pairs."""
    return less(results, PER_STEP_DPO, RANDOM_DPO)


@claim(source="figure 7c", unit="error", criterion=ABOVE_ZERO)
def arithmetic_pits_beat_distant_pairs(results: Results) -> PerSeed:
    """Per-step DPO errs less than DPO on the pairs of the largest edit distance."""
    return less(results, PER_STEP_DPO, EDIT_DPO)


@claim(source="figure 7c", unit="error", criterion=reported("the paper has it in between"))
def arithmetic_distant_pairs_less_random_pairs(results: Results) -> PerSeed:
    """How much less DPO errs on the pairs of the largest edit distance than on random ones."""
    return less(results, EDIT_DPO, RANDOM_DPO)


@claim(source="figure 7c: not mended by beta", unit="error", criterion=ABOVE_ZERO)
def arithmetic_pits_beat_random_pairs_at_the_best_beta(results: Results) -> PerSeed:
    """Per-step DPO errs less than DPO on random pairs, each with the beta that is best on average."""
    table = results["arithmetic_errors"].where(part="betas")
    best = []
    for method in (RANDOM_DPO, PER_STEP_DPO):
        own = {beta: table.per_seed("error", method=method, beta=beta) for beta in table.distinct("beta")}
        best.append(min(own.values(), key=lambda found: found.estimate.mean))
    random_pairs, pits = best
    return random_pairs - pits


def quantities(results: Results) -> Keys:
    """Yield other errors than that of the likeliest solution."""
    return (
        {"key": key, "quantity": f"error_{key}", "what": what}
        for key, what in (("of_5", "all of five samples are wrong"), ("at_temperature_1", "a sample is wrong"))
    )


@claim(
    id="arithmetic_per_step_dpo_lowers_error_{key}",
    over=quantities,
    source="section 5: pass@5 improves too",
    unit="error",
    criterion=ABOVE_ZERO,
)
def arithmetic_per_step_dpo_lowers_error(results: Results, quantity: str, what: str) -> PerSeed:
    """After per-step DPO it is less often than after SFT that {what}."""
    return less(results, PER_STEP_DPO, SFT, quantity=quantity)


@claim(
    source="abstract: inverse scaling", unit="error", criterion=reported("the paper's grow with much larger numbers")
)
def arithmetic_more_solutions_help_rft(results: Results) -> PerSeed:
    """How much less RFT errs with 16 right solutions of a problem than with 4."""
    return less(results, "RFT 16", RFT)


def variants(results: Results) -> Keys:
    """Yield other ways of per-step DPO."""
    names = {
        SHARED_PREFIX: "pairs that share what comes before the pit (the theory's form)",
        FEW_ATTEMPTS: "values of one attempt instead of eight",
    }
    measured = results["arithmetic_errors"].where(part="variants").distinct("method")
    return ({"key": slug(m), "method": m, "what": what} for m, what in names.items() if m in measured)


@claim(
    id="arithmetic_error_less_with_{key}",
    over=variants,
    source="algorithm 1, theorem 6.1",
    unit="error",
    criterion=reported("the paper compares accuracies of neither"),
)
def arithmetic_error_less_with(results: Results, method: str) -> PerSeed:
    """How much less per-step DPO errs with {what}."""
    table = results["arithmetic_errors"]
    own, other = errors(table, method, "variants"), errors(table, PER_STEP_DPO)
    return combine([other[n] - own[n] for n in own])


@claim(source="section 6: figures 8 and 9", unit="share of steps", criterion=ABOVE_ZERO)
def arithmetic_per_step_dpo_unlearns_spurious_steps(results: Results) -> PerSeed:
    """Where the teacher digresses, per-step DPO writes fewer spurious steps than SFT: difference of their shares."""
    return less(results, PER_STEP_DPO, SFT, "spurious", "share_spurious")


@claim(source="section 6", unit="share of steps", criterion=ABOVE_ZERO)
def arithmetic_rft_keeps_spurious_steps(results: Results) -> PerSeed:
    """Where the teacher digresses, RFT writes more spurious steps than per-step DPO."""
    return less(results, PER_STEP_DPO, RFT, "spurious", "share_spurious")


@claim(source="section 6: RFT amplifies them", unit="share of steps", criterion=ABOVE_ZERO)
def arithmetic_rft_amplifies_spurious_steps(results: Results) -> PerSeed:
    """Where the teacher digresses, RFT writes more spurious steps than SFT."""
    return less(results, SFT, RFT, "spurious", "share_spurious")


@claim(
    source="section 6: steps that make no progress", unit="share of steps", criterion=reported("what is unlearned here")
)
def arithmetic_fewer_long_steps_after_per_step_dpo(results: Results) -> PerSeed:
    """How many fewer steps do two operations at once after per-step DPO than after SFT."""
    return less(results, PER_STEP_DPO, SFT, quantity="share_long")


@claim(
    source="specification, section 9: .71 to .97",
    unit="share of pits",
    criterion=at_least(0.7, "values of few attempts err"),
)
def arithmetic_pits_are_first_errors(results: Results) -> PerSeed:
    """The pit of a wrong solution is its first wrong step."""
    rows = by_seed(results["arithmetic_pits"])
    return rows.reduce(lambda own: sum(r["first_wrong"] for r in own) / sum(r["pits"] for r in own))


def sampled_for(results: Results) -> Keys:
    """Yield what tokens are sampled for."""
    return ({"key": slug(what), "what": what} for what in results["arithmetic_costs"].distinct("what"))


@claim(
    id="arithmetic_tokens_of_{key}",
    over=sampled_for,
    source="asked for by the paper's reviewers",
    unit="tokens",
    criterion=reported("the cost"),
)
def arithmetic_tokens(results: Results, what: str) -> PerSeed:
    """Tokens sampled for a synthetic problem: {what}."""
    rows = by_seed(results["arithmetic_costs"].where(what=what))
    return rows.reduce(lambda own: sum(r["tokens"] for r in own) / sum(r["n"] for r in own))


def stages(results: Results) -> Keys:
    """Yield the stages of the study."""
    return ({"key": row["stage"], "stage": row["stage"]} for row in results["arithmetic_stages"])


@claim(
    id="arithmetic_share_of_time_{key}",
    over=stages,
    source="the cost",
    unit="share",
    criterion=reported("of a tiny model on a CPU"),
)
def arithmetic_share_of_time(results: Results, stage: str) -> PerSeed:
    """Share of the study's seconds: {stage}."""
    seconds = {row["stage"]: row["seconds"] for row in results["arithmetic_stages"]}
    return PerSeed({0: seconds[stage] / sum(seconds.values())})
