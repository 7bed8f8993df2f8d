"""What is run: chains of arithmetic whose teacher takes hard steps, and star graphs."""

from collections.abc import Iterator

from surefoot.errors import SurefootError
from surefoot.reproduce.incorrect_synthetic_data.arithmetic import measure_arithmetic
from surefoot.reproduce.incorrect_synthetic_data.star_graphs import graph_sizes, measure_star_graphs
from surefoot.reproduce.incorrect_synthetic_data.studies import FIRST_SEED, sizes
from surefoot.reproduce.running import Measured, Run

__all__ = ("STUDIES", "run")

#: Study -> its tables.
STUDIES = {
    "arithmetic": (
        "arithmetic_errors",
        "arithmetic_multipliers",
        "arithmetic_steps",
        "arithmetic_pits",
        "arithmetic_costs",
        "arithmetic_stages",
    ),
    "star_graphs": ("star_graph_paths", "star_graph_values"),
}

PROTOCOL = (
    (
        "Arithmetic: chains of two to four operations modulo 10. The teacher is always right, and does two operations"
        " at once wherever a fair coin says so; in the last part it also writes a true line that does not belong with"
        " probability .3 before each step. Policies are Llamas of three layers and 0.1 M parameters. Each samples 16"
        " solutions of its own training problems at temperature 1; the steps of eight get values from eight attempts"
        " each. RFT begins anew, with twice the steps of SFT; DPO and weighted SFT begin with the policy and see their"
        " pairs or solutions once. Errors are those of the likeliest solutions of 512 test problems."
    ),
    (
        "Star graphs: two paths of three nodes each leave the start, nodes are named by numbers up to 20. A Llama of"
        " three layers learns 4,000 graphs; after 16, 32 and 48 epochs it samples eight paths of each of 1,000 of them,"
        " whose nodes get values from eight attempts. RFT and per-step DPO go on from there for two epochs."
    ),
    "Settings were chosen on seed 100; the seeds here, from 200 on, were used for nothing else.",
)


def run(run: Run) -> None:
    """Measure everything, or one of the studies.

    Raises:
        SurefootError: At the paper's scale.
    """
    if run.scale == "paper":
        raise SurefootError(
            "the paper's scale trains DeepSeek-Math-7B and Llama2-7B on GPUs: adapt"
            " configs/pipelines/per_step_dpo_gsm8k_smollm2.yaml to them."
        )
    run.notes += PROTOCOL
    for study, tables in STUDIES.items():
        if run.options["only"] in (None, study):
            for measured in _measure(study, run):
                run.add(measured)
        else:
            run.keep(tables, [])


def _measure(study: str, run: Run) -> Iterator[Measured]:
    seeds = range(FIRST_SEED, FIRST_SEED + run.n_seeds)
    if study == "arithmetic":
        return measure_arithmetic(sizes(run.scale), run.out, seeds)
    return measure_star_graphs(graph_sizes(run.scale), run.out, seeds)
