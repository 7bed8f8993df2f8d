"""What is run: the didactic task, and chains of arithmetic."""

from collections.abc import Sequence

from surefoot.errors import SurefootError
from surefoot.reproduce.pav.arithmetic import measure_policies
from surefoot.reproduce.pav.arithmetic_claims import GATE
from surefoot.reproduce.pav.arithmetic_reinforcement import measure_reinforcement
from surefoot.reproduce.pav.arithmetic_search import measure_search
from surefoot.reproduce.pav.studies import FIRST_SEED, sizes
from surefoot.reproduce.pav.sweep import SETTINGS, measure_learning, measure_provers, measure_sweep
from surefoot.reproduce.results import Table
from surefoot.reproduce.running import Run

__all__ = ("run",)

#: Study -> its tables.
STUDIES = {
    "didactic": ("didactic_learning", "didactic_pass", "didactic_sweep", "didactic_provers"),
    "arithmetic": ("arithmetic_values", "arithmetic_verifiers", "arithmetic_outcome_errors", "arithmetic_search"),
    "reinforcement": ("arithmetic_reinforcement", "arithmetic_pass"),
}

LEFT_OUT = {  # notes begin so
    "arithmetic": "Searches are left out",
    "reinforcement": "Reinforcement is left out",
}

PROTOCOL = (
    (
        "Planted sub-sequence: a masked autoregressive network of three layers of 128 units imitates a policy of weight"
        " 5 for 50 batches of 64, then learns by policy gradients from 64 samples an iteration, alpha 1, no baseline."
        " P(next right token) of a prover of weight w is w / (w + 14). A step's value under the policy is the outcome"
        " of its sequence, where the paper uses more than 100 rollouts."
    ),
    (
        "Arithmetic: five additions and subtractions modulo 5, sampled at temperature 1. A Llama of four layers and"
        " 0.2 M parameters learns 64,000 solutions of one to five operations in which a fifth of the steps are wrong,"
        " and each of these is noticed and done again; then 9,600 in which a step is wrong with probability .15 and"
        " stays so: this is the policy, which errs though it knows what is right. Verifiers begin with the weights"
        " before that, since a model that cannot check a step learns nothing from 100,000 rollouts: 8,192 completions"
        " with four rollouts from each prefix, in 1,030 steps; the outcomes of 102,400, which are as many tokens, each"
        " at all steps of its completion, in 1,280 steps; 1,024 completions with rollouts of all steps or of first"
        " pits, in 520 steps. The oracle is the policy itself: all that it may write with a probability of 1e-5 or more"
        " is enumerated. Its advantages are what a verifier's are compared with; where they correlate by less than .5,"
        " nothing is searched or reinforced. Beams sample three steps from each beginning; the weight of the advantage"
        " is chosen on held-out problems, K is 4 (alpha .5 where K is compared). Reinforced is a weak policy, made"
        " like the other by solutions of which every second step is wrong, so that right answers are luck; the prover"
        " is the other policy. All methods of reinforcement have one learning rate, the better of two for both;"
        " outcomes alone and the paper's reward are given two runs for each policy. Sizes and rates were chosen on"
        " seed 100 and on seeds 0 to 4, of an earlier study: five kinds of base, some twenty-five settings of"
        " verifiers, two starts, two rates and five rewards of"
        " reinforcement. The seeds here, from 200 on, were never used before."
    ),
)


def run(run: Run) -> None:
    """Measure everything.

    Raises:
        SurefootError: At the paper's scale.
    """
    if run.scale == "paper":
        raise SurefootError(
            "the paper's scale trains Gemma models of 2 to 27 billion parameters on GPUs: adapt"
            " configs/pipelines/pav_arithmetic.yaml to them, and compare searches with surefoot search --baseline."
        )
    run.notes += PROTOCOL
    measures = {
        "didactic": _measure_didactic,
        "arithmetic": _measure_arithmetic,
        "reinforcement": _measure_reinforcement,
    }
    for study, measure in measures.items():
        if run.options["only"] in (None, study):
            measure(run)
        else:
            run.keep(STUDIES[study], [LEFT_OUT[study]] if study in LEFT_OUT else [])


def _measure_didactic(run: Run) -> None:
    """Measure learning, the sweep over provers and their ranking."""
    settings = SETTINGS[:2] if run.quick else SETTINGS
    run.add(measure_learning(100 if run.quick else 3500, run.n_seeds))
    run.add(measure_sweep(settings, 50 if run.quick else 1000, run.n_seeds))
    run.add(measure_provers(settings, run.n_seeds, 200 if run.quick else 2000))


def _measure_arithmetic(run: Run) -> None:
    """Measure the policies' values, verifiers, and searches where verifiers predict advantages."""
    size, seeds = sizes(run.scale), _seeds(run)
    for measured in measure_policies(size, run.out, seeds):
        run.add(measured)
    if passed := _through_the_gate(run, "arithmetic", seeds):
        run.add(measure_search(size, run.out, passed))


def _measure_reinforcement(run: Run) -> None:
    """Measure reinforcement, where verifiers are not known to predict no advantages."""
    seeds: Sequence[int] = _seeds(run)
    if "arithmetic_verifiers" in run.tables:
        seeds = _through_the_gate(run, "reinforcement", seeds)
    if seeds:
        run.add(measure_reinforcement(sizes(run.scale), run.out, seeds))


def _seeds(run: Run) -> Sequence[int]:
    return range(FIRST_SEED, FIRST_SEED + run.n_seeds)


def _through_the_gate(run: Run, study: str, seeds: Sequence[int]) -> list[int]:
    """Return the seeds whose process verifier predicts exact advantages; note what is left out on the others."""
    if run.quick:  # a verifier that always says the same has no correlation
        return [*seeds]
    predicted = Table(run.tables["arithmetic_verifiers"]).per_seed("correlation_of_advantages", verifier="process")
    passed = [s for s in seeds if predicted[s] >= GATE]
    if left_out := [f"{s} ({predicted[s]:.2f})" for s in seeds if s not in passed]:
        run.notes.append(
            f"{LEFT_OUT[study]} on seeds {', '.join(left_out)}: the correlation, in brackets, of the verifier's"
            f" advantages with exact ones is below {GATE:g}, where searches were worse than none."
        )
    return passed
