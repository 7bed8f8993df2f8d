"""What is run: the didactic task."""

from surefoot.reproduce.pav.sweep import SETTINGS, measure_learning, measure_provers, measure_sweep
from surefoot.reproduce.running import Run

__all__ = ("run",)

PROTOCOL = (
    (
        "Planted sub-sequence: a masked autoregressive network of three layers of 128 units imitates a policy of weight"
        " 5 for 50 batches of 64, then learns by policy gradients from 64 samples an iteration, alpha 1, no baseline."
        " P(next right token) of a prover of weight w is w / (w + 14). A step's value under the policy is the outcome"
        " of its sequence, where the paper uses more than 100 rollouts."
    ),
)


def run(run: Run) -> None:
    """Measure everything."""
    run.notes += PROTOCOL
    settings = SETTINGS[:2] if run.quick else SETTINGS
    run.add(measure_learning(100 if run.quick else 3500, run.n_seeds))
    run.add(measure_sweep(settings, 100 if run.quick else 1000, run.n_seeds))
    run.add(measure_provers(settings, run.n_seeds))
