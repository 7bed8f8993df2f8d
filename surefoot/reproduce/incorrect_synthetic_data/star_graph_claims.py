"""What is claimed of learning from incorrect solutions, on star graphs."""

from surefoot.reproduce.claims import ABOVE_ZERO, Keys, claim, close_to, interval_above, reported
from surefoot.reproduce.incorrect_synthetic_data.star_graphs import RFT
from surefoot.reproduce.incorrect_synthetic_data.studies import PER_STEP_DPO, SFT
from surefoot.reproduce.jobs import slug
from surefoot.reproduce.results import PerSeed, Results, combine

__all__ = ()

#: How often a guess of the first node is right.
CHANCE = 0.5


def _stops(results: Results) -> list[int]:
    """Return the numbers of epochs after which policies were looked at, ascending."""
    return sorted(results["star_graph_paths"].distinct("epochs"))


def _accuracy(results: Results, method: str, epochs: int, quantity: str = "first_node") -> PerSeed:
    return results["star_graph_paths"].per_seed(quantity, method=method, epochs=epochs)


def _gain(results: Results, method: str, epochs: int) -> PerSeed:
    return _accuracy(results, method, epochs) - _accuracy(results, SFT, epochs)


@claim(
    source="section 6; Bachmann & Nagarajan 2024",
    unit="accuracy",
    criterion=close_to(CHANCE, 0.1, "whoever knows the start's neighbours guesses one of two"),
)
def star_graph_sft_guesses_the_first_node(results: Results) -> PerSeed:
    """After all epochs of SFT the first node is right as often as a guess, on test graphs."""
    return _accuracy(results, SFT, _stops(results)[-1])


@claim(
    source="section 6",
    unit="accuracy",
    criterion=interval_above(CHANCE, "more than a guess has to stand out from the seeds"),
)
def star_graph_per_step_dpo_beats_a_guess(results: Results) -> PerSeed:
    """After per-step DPO the first node is right more often than a guess: the best stop of SFT, of the seeds' mean."""
    stops = [_accuracy(results, PER_STEP_DPO, epochs) for epochs in _stops(results)]
    return max(stops, key=lambda found: found.estimate.mean)


def gains(results: Results) -> Keys:
    """Yield the methods that learn from sampled paths, and the stops."""
    return (
        {"key": f"{slug(method)}_after_{epochs}", "method": method, "epochs": epochs}
        for method in (RFT, PER_STEP_DPO)
        for epochs in _stops(results)
    )


@claim(
    id="star_graph_gain_of_{key}",
    over=gains,
    source="section 6: none of RFT",
    unit="accuracy",
    criterion=reported("the stops are ours"),
)
def star_graph_gain(results: Results, method: str, epochs: int) -> PerSeed:
    """What {method} adds to the first node's accuracy after {epochs} epochs of SFT."""
    return _gain(results, method, epochs)


@claim(source="section 6", unit="accuracy", criterion=ABOVE_ZERO)
def star_graph_per_step_dpo_beats_rft(results: Results) -> PerSeed:
    """Per-step DPO adds more to the first node's accuracy than RFT, mean over the stops."""
    stops = _stops(results)
    return combine([_gain(results, PER_STEP_DPO, e) - _gain(results, RFT, e) for e in stops])


@claim(source="section 6: of a policy that has memorised nothing is learned", unit="accuracy", criterion=ABOVE_ZERO)
def star_graph_early_policies_gain_more(results: Results) -> PerSeed:
    """Per-step DPO adds more after the fewest epochs of SFT than after the most."""
    first, *_, last = _stops(results)
    return _gain(results, PER_STEP_DPO, first) - _gain(results, PER_STEP_DPO, last)


def provers(results: Results) -> Keys:
    """Yield the stops and the attempts of provers."""
    table = results["star_graph_values"]
    return (
        {"key": f"{k}_after_{epochs}", "k": k, "epochs": epochs}
        for epochs in sorted(table.distinct("epochs"))
        for k in sorted(table.distinct("k"))
        if {row["right"] for row in table if (row["k"], row["epochs"]) == (k, epochs)} == {True, False}
    )


@claim(
    id="star_graph_best_of_{key}_tells_nodes_apart",
    over=provers,
    source="section 6: K",
    unit="probability",
    criterion=reported("what pairs are made of"),
)
def star_graph_prover_tells_nodes_apart(results: Results, k: int, epochs: int) -> PerSeed:
    """What a right first node is worth to the best of {k} attempts, less a wrong one, after {epochs} epochs of SFT."""
    table = results["star_graph_values"]
    right, wrong = (table.per_seed("value", k=k, epochs=epochs, right=r) for r in (True, False))
    return PerSeed({seed: right[seed] - wrong[seed] for seed in right if seed in wrong})
