"""What is claimed of BR-DRO: on the linear toy (specification, section 10.1) and on images."""

from surefoot.reproduce.br_dro.studies import AVERAGE, BITS, FEATURES, PRACTICAL, WORST
from surefoot.reproduce.br_dro.toy import PENALTIES, REFERENCE, at_penalty
from surefoot.reproduce.claims import ABOVE_ZERO, FALLS, Criterion, Keys, at_least, at_most, claim, close_to, reported
from surefoot.reproduce.jobs import slug
from surefoot.reproduce.results import PerSeed, Results, trend

__all__ = ()

FINDS = at_least(0.9, "clearly above what other methods' weights reach, short of perfect")
#: Two independent means of 20 seeds with the table's spread of 0.22 differ by less in 95% of cases: 1.96 * 0.22 /
#: sqrt(10).
TOLERANCE = 0.14


def near_reference(reference: float) -> Criterion:
    """Claim a cell of the specification's table."""
    return close_to(reference, TOLERANCE, "95% of differences of two 20-seed means with the table's spread of 0.22")


def toy_cells(results: Results) -> Keys:
    """Return the cells of the specification's table: method and label noise."""
    for (method, noise), reference in REFERENCE.items():
        name = "".join(c if c.isalnum() else "_" for c in method.lower())
        yield {"method": method, "noise": noise, "reference": reference, "name": name}


def toy(
    results: Results, method: str, noise: float = 0.0, nuisance: int = 10, quantity: str = "worst_group"
) -> PerSeed:
    """Return a quantity of a method on the toy, on the seeds that all methods have."""
    table = results["toy"]
    where = {"method": method, "label_noise": noise, "nuisance_dimensions": nuisance}
    return table.per_seed(quantity, **where, n_seeds=min(table.distinct("n_seeds")))


@claim(
    id="toy_table_{name}_noise_{noise:g}",
    over=toy_cells,
    source="section 10.1",
    unit="accuracy",
    criterion=near_reference,
)
def toy_table(results: Results, method: str, noise: float) -> PerSeed:
    """Worst group of {method} on the linear toy, label noise {noise:g}: reference {reference:.3f}."""
    cell = results["toy"].where(method=method, label_noise=noise, nuisance_dimensions=10)
    return cell.per_seed("worst_group", n_seeds=max(cell.distinct("n_seeds")))


@claim(source="section 10.1: .917/.888/.830/.769/.735", unit="tau", criterion=FALLS)
def toy_capacity_accuracy_falls(results: Results) -> PerSeed:
    """Worst group falls from CVaR's side to ERM's as the l2 penalty grows (Kendall's tau over 5 penalties)."""
    return trend({p: toy(results, at_penalty(p)) for p in PENALTIES})


@claim(source="section 10.1: .63/.04 to .53/.45", unit="tau", criterion=FALLS)
def toy_capacity_weights_fall(results: Results) -> PerSeed:
    """The weights separate minority from majority ever less as the penalty grows (Kendall's tau)."""

    def gap(method: str) -> PerSeed:
        return toy(results, method, quantity="minority_weight") - toy(results, method, quantity="majority_weight")

    return trend({p: gap(at_penalty(p)) for p in PENALTIES})


@claim(source="section 13: .78 to .47", unit="accuracy", criterion=ABOVE_ZERO)
def toy_weight_decay_moves_erm(results: Results) -> PerSeed:
    """Weight decay alone moves ERM: worst group without minus with 0.01."""
    return toy(results, "ERM (no weight decay)") - toy(results, "ERM")


@claim(source="section 10.1: .759 against .615", unit="accuracy", criterion=ABOVE_ZERO)
def toy_br_dro_above_cvar_nuisance(results: Results) -> PerSeed:
    """Bounded by l2, BR-DRO beats CVaR-DRO with 5% noise and 50 nuisance dimensions."""
    return toy(results, "BR-DRO (l2)", 0.05, 50) - toy(results, "CVaR-DRO", 0.05, 50)


@claim(source="section 10.1: .759 against .245", unit="accuracy", criterion=ABOVE_ZERO)
def toy_unbounded_fails_nuisance(results: Results) -> PerSeed:
    """Bounded by l2, BR-DRO beats the unbounded adversary with 5% noise and 50 nuisance dimensions."""
    return toy(results, "BR-DRO (l2)", 0.05, 50) - toy(results, "BR-DRO (no penalty)", 0.05, 50)


@claim(
    source="section 10.1: .074",
    unit="accuracy",
    criterion=at_most(0.25, "below chance on its own worst group: at most half of chance"),
)
def toy_simple_noise_breaks_jtt(results: Results) -> PerSeed:
    """Noise that is a simple function of the input breaks JTT: worst group at 10% noise."""
    return toy(results, "JTT", 0.1)


@claim(source="section 10.1: .888 to .608", unit="accuracy", criterion=ABOVE_ZERO)
def toy_simple_noise_breaks_br_dro(results: Results) -> PerSeed:
    """Such noise lowers BR-DRO (l2) too: worst group without noise minus that at 10%."""
    return toy(results, "BR-DRO (l2)") - toy(results, "BR-DRO (l2)", 0.1)


@claim(
    source="section 10.1: .867",
    unit="accuracy",
    criterion=at_least(0.7, "at most .2 below its clean reference of .926"),
)
def toy_group_dro_withstands_simple_noise(results: Results) -> PerSeed:
    """Group DRO, which weights groups and not examples by their losses, withstands such noise."""
    return toy(results, "Group DRO", 0.1)


def studies(results: Results) -> Keys:
    """Return the studies on which all methods were compared."""
    return [{"study": study} for study in results["methods"].distinct("study")]


def worst(results: Results, study: str, method: str) -> PerSeed:
    """Return the test accuracy of the worst group at the epoch with the best worst group on val."""
    return results["methods"].per_seed(WORST, study=study, method=method)


def average(results: Results, study: str, method: str) -> PerSeed:
    """Return the test accuracy, groups weighted by their training shares."""
    return results["methods"].per_seed(AVERAGE, study=study, method=method)


def minority_auc(results: Results, study: str, method: str) -> PerSeed:
    """Return how well the weights find the minority, mean over the second half of training."""
    return results["methods"].per_seed("minority_auc", study=study, method=method)


@claim(id="{study}_cvar_above_erm", over=studies, source="section 7 [M]", unit="accuracy", criterion=ABOVE_ZERO)
def cvar_above_erm(results: Results, study: str) -> PerSeed:
    """CVaR-DRO beats ERM on the worst group on {study}."""
    return worst(results, study, "CVaR-DRO") - worst(results, study, "ERM")


@claim(id="{study}_br_dro_above_erm", over=studies, source="section 7 [M]", unit="accuracy", criterion=ABOVE_ZERO)
def br_dro_above_erm(results: Results, study: str) -> PerSeed:
    """BR-DRO without group labels beats ERM on the worst group on {study}."""
    return worst(results, study, PRACTICAL) - worst(results, study, "ERM")


@claim(id="{study}_br_dro_above_cvar", over=studies, source="section 7 [M]", unit="accuracy", criterion=ABOVE_ZERO)
def br_dro_above_cvar(results: Results, study: str) -> PerSeed:
    """BR-DRO beats CVaR-DRO on the worst group on {study}."""
    return worst(results, study, PRACTICAL) - worst(results, study, "CVaR-DRO")


@claim(
    id="{study}_group_dro_not_below_br_dro",
    over=studies,
    source="section 7 [M]",
    unit="accuracy",
    criterion=at_least(0, "the order of the means is claimed; the gap may be small"),
)
def group_dro_not_below_br_dro(results: Results, study: str) -> PerSeed:
    """Group DRO, which sees the groups, is not below BR-DRO on {study}."""
    return worst(results, study, "Group DRO") - worst(results, study, PRACTICAL)


@claim(
    id="{study}_br_dro_near_jtt",
    over=studies,
    source="section 7 [M]: within 1 point on Waterbirds and CelebA",
    unit="accuracy",
    criterion=close_to(0, 0.05, "about equal, at the resolution of these test sets (about 90 to 375 examples a group)"),
)
def br_dro_near_jtt(results: Results, study: str) -> PerSeed:
    """BR-DRO and JTT are about equal on the worst group (BR-DRO minus JTT) on {study}."""
    return worst(results, study, PRACTICAL) - worst(results, study, "JTT")


@claim(
    id="{study}_br_dro_average_cost",
    over=studies,
    source="section 7: at most 3 to 4 points",
    unit="accuracy",
    criterion=at_most(0.04, "the specification's bound"),
)
def br_dro_average_cost(results: Results, study: str) -> PerSeed:
    """BR-DRO's loss of average accuracy against ERM (groups weighted by training shares) on {study}."""
    return average(results, study, "ERM") - average(results, study, PRACTICAL)


@claim(id="{study}_br_dro_finds_minority", over=studies, source="section 11: AUC about 1", unit="AUC", criterion=FINDS)
def br_dro_finds_minority(results: Results, study: str) -> PerSeed:
    """BR-DRO's weights, importance included, find the minority on {study}."""
    return minority_auc(results, study, PRACTICAL)


@claim(
    id="{study}_practical_minus_soft",
    over=studies,
    source="section 5: the authors' code",
    unit="accuracy",
    criterion=reported("the specification compares no updates"),
)
def practical_minus_soft(results: Results, study: str) -> PerSeed:
    """BR-DRO's worst group with the no-regret update and growing importance, minus the soft update's on {study}."""
    return worst(results, study, PRACTICAL) - worst(results, study, BITS)


@claim(
    id="{study}_soft_minus_erm",
    over=studies,
    source="section 7 [M]",
    unit="accuracy",
    criterion=reported("BR-DRO is judged in the form its authors recommend"),
)
def soft_minus_erm(results: Results, study: str) -> PerSeed:
    """BR-DRO's worst group with the soft update, minus ERM's on {study}."""
    return worst(results, study, BITS) - worst(results, study, "ERM")


@claim(
    id="{study}_simple_observation_finds_minority",
    over=studies,
    source="section 11: AUC about 1",
    unit="AUC",
    criterion=FINDS,
)
def simple_observation_finds_minority(results: Results, study: str) -> PerSeed:
    """The weights of a soft adversary that sees colour statistics only find the minority on {study}."""
    return minority_auc(results, study, BITS)


@claim(id="{study}_simple_beats_features", over=studies, source="section 11", unit="accuracy", criterion=ABOVE_ZERO)
def simple_beats_features(results: Results, study: str) -> PerSeed:
    """A soft adversary on colour statistics beats one on the learner's features on {study}."""
    return worst(results, study, BITS) - worst(results, study, FEATURES)


@claim(
    id="{study}_features_auc",
    over=studies,
    source="section 11: intermediate",
    unit="AUC",
    criterion=reported("the specification gives no number"),
)
def features_auc(results: Results, study: str) -> PerSeed:
    """How well the soft adversary on the learner's features finds the minority on {study}."""
    return minority_auc(results, study, FEATURES)


def capacity_studies(results: Results) -> Keys:
    """Return the studies on which the penalty was varied."""
    return [{"study": study} for study in results["capacity"].distinct("study")]


@claim(
    id="{study}_capacity_weights_fall",
    over=capacity_studies,
    source="section 8 (capacity sweep) and 10.1",
    unit="tau",
    criterion=FALLS,
)
def capacity_weights_fall(results: Results, study: str) -> PerSeed:
    """The minority's weight falls as the penalty per nat grows, on {study} (Kendall's tau over 5 penalties)."""
    table = results["capacity"].where(study=study, method=BITS)
    return trend({p: table.per_seed("minority_weight", penalty=p) for p in sorted(table.distinct("penalty"))})


@claim(
    id="{study}_capacity_ends_at_erm",
    over=capacity_studies,
    source="section 8: too tight = ERM",
    unit="accuracy",
    criterion=close_to(0, 0.05, "the seeds' own spread"),
)
def capacity_ends_at_erm(results: Results, study: str) -> PerSeed:
    """At a penalty of 1 per nat BR-DRO is ERM at the same learning rate, on {study} (difference of worst groups)."""
    table = results["capacity"].where(study=study)
    largest = max(table.distinct("penalty"))
    return table.per_seed("worst_group", penalty=largest) - table.per_seed("worst_group", method="ERM")


def noise_rivals(results: Results) -> Keys:
    """Return study and rival, at the largest share of flipped labels."""
    table = results["label_noise"]
    top = max(table.distinct("label_noise"))
    for study in table.distinct("study"):
        for rival in ("CVaR-DRO", "JTT"):
            yield {"study": study, "rival": rival, "name": slug(rival), "top": top}


@claim(
    id="{study}_noise_drop_less_than_{name}",
    over=noise_rivals,
    source="section 8: BR-DRO drops far less",
    unit="accuracy",
    criterion=ABOVE_ZERO,
)
def noise_drop_less(results: Results, study: str, rival: str, top: float) -> PerSeed:
    """With {top:.0%} of the labels flipped BR-DRO loses less than {rival}, on {study}."""
    table = results["label_noise"].where(study=study)

    def drop(method: str) -> PerSeed:
        clean, noisy = (table.per_seed("worst_group", method=method, label_noise=v) for v in (0.0, top))
        return clean - noisy

    return drop(rival) - drop(PRACTICAL)


@claim(
    id="{study}_noise_weight_less_than_{name}",
    over=noise_rivals,
    source="sections 1 and 10.1: noise that is complex costs bits",
    unit="AUC",
    criterion=ABOVE_ZERO,
)
def noise_weight_less(results: Results, study: str, rival: str, top: float) -> PerSeed:
    """BR-DRO's weights pick fewer mislabelled points than {rival}'s, on {study} (difference of the AUC)."""
    table = results["label_noise"].where(study=study, label_noise=top)
    return table.per_seed("noisy_auc", method=rival) - table.per_seed("noisy_auc", method=PRACTICAL)
