"""What is claimed about reversion to the constant, its mechanisms, decisions, variants, failures and theory."""

from statistics import fmean

from surefoot.reproduce.claims import ABOVE_ZERO, FALLS, at_least, at_most, claim, interval_above, reported
from surefoot.reproduce.constant_solution.studies import CROSS_ENTROPY, GAUSSIAN_NLL, LOW_DIMENSION
from surefoot.reproduce.constant_solution.tables import (
    Decisions,
    Networks,
    attacked,
    bias_correlations,
    biased,
    classified,
    decided,
    detected,
    far_from_training,
    graded,
    last_kind,
    mechanisms,
    of_depth,
    scored,
    traced,
    usual,
    variants,
)
from surefoot.reproduce.results import PerSeed, Results, by_seed, combine, trend
from surefoot.statistics import rank_correlation

__all__ = ()

REVERSION = "section 4, figures 3 and 4"
NO_BASELINE = reported("the paper has no such baseline")
#: Corruptions that do not reduce the input's own norm; blur and loss of contrast do.
NORM_KEPT = ("rotation", "noise", "occlusion", "impulse")

# Reversion, of every study under each of its losses.


@claim(
    id="{key}_falls_with_level",
    source=REVERSION,
    unit="tau",
    criterion=FALLS,
    over=graded,
)
def falls_with_level(results: Results, study: str, training: str) -> PerSeed:
    """The distance to the optimal constant falls with the level of each shift, {training} on {study}.

    Kendall's tau, mean over kinds.
    """
    networks = Networks(results, study, training)
    return combine([trend(dict(enumerate(networks.levels(kind, "distance")))) for kind in networks.graded])


@claim(
    id="{key}_falls_with_ood_score",
    source=REVERSION,
    unit="tau",
    criterion=at_most(-0.4, "at least seven pairs of ten in order, over kinds of shifts too"),
    over=scored,
)
def falls_with_ood_score(results: Results, study: str, training: str) -> PerSeed:
    """Over all sets the distance falls as the OOD score grows, {training} on {study} (Kendall's tau)."""
    return by_seed(Networks(results, study, training).sets).reduce(
        lambda rows: rank_correlation([row["ood_score"] for row in rows], [row["distance"] for row in rows])
    )


@claim(
    id="{key}_strongest",
    source=REVERSION,
    unit="ratio",
    criterion=at_most(0.8, "a fifth less, about what the paper's figures show at the least"),
    over=usual,
)
def strongest(results: Results, study: str, training: str) -> PerSeed:
    """Distance at the strongest level relative to the unshifted set, {training} on {study} (mean over kinds)."""
    return Networks(results, study, training).strongest("normalised_distance")


@claim(
    id="{key}_constant_near_optimum",
    source="section 5 (model constants)",
    unit="ratio",
    criterion=at_most(0.5, "at most half as far"),
    over=traced,
)
def constant_near_optimum(results: Results, study: str, training: str) -> PerSeed:
    """Without the first layer's signal, accumulated biases are nearer the optimal constant than predictions are.

    {training} on {study} (ratio of the distances).
    """
    networks = Networks(results, study, training)
    inner = by_seed(networks.constants("inner")).reduce(lambda rows: rows[0]["distance"])
    return inner / networks.unshifted("distance")


@claim(
    id="{key}_head_bias_tracks_optimum",
    source="section 5 and proposition on the last layer's bias",
    unit="correlation",
    criterion=at_least(0.8, "an unmistakable order"),
    over=classified,
)
def head_bias_tracks_optimum(results: Results, study: str, training: str) -> PerSeed:
    """The last layer's bias orders the classes as the optimal constant does, {training} on {study}.

    Correlation over classes.
    """
    return Networks(results, study, training).class_order()


# Mechanisms, of images under cross-entropy.


@claim(
    id="{study}_output_norm_falls",
    source="section 5; appendix (normalised norms)",
    unit="fraction",
    criterion=ABOVE_ZERO,
    over=mechanisms,
)
def output_norm_falls(results: Results, study: str, training: str) -> PerSeed:
    """The last layer's output without bias loses norm at the strongest levels, though the input does not, on {study}.

    1 minus the relative norm.
    """
    norms = Networks(results, study, training).layer(-1, "relative_norm", NORM_KEPT)
    return norms.map(lambda norm: 1 - norm)


@claim(
    id="{study}_late_layers_lose_more",
    source="section 5: early layers keep or grow, late ones shrink",
    unit="ratio",
    criterion=ABOVE_ZERO,
    over=mechanisms,
)
def late_layers_lose_more(results: Results, study: str, training: str) -> PerSeed:
    """The last layer loses more norm than the first on {study} (difference of the relative norms)."""
    networks = Networks(results, study, training)
    return networks.layer(0, "relative_norm", NORM_KEPT) - networks.layer(-1, "relative_norm", NORM_KEPT)


@claim(
    id="{study}_row_space_share_falls",
    source="section 5: .43 to .344 in the paper's ResNet-20",
    unit="fraction",
    criterion=ABOVE_ZERO,
    over=mechanisms,
)
def row_space_share_falls(results: Results, study: str, training: str) -> PerSeed:
    """Features lie less in what the last layer reads at the strongest levels, on {study} (fall of the share)."""
    networks = Networks(results, study, training)
    return networks.layer(-1, "row_space_share") - networks.layer(-1, "row_space_share", NORM_KEPT)


@claim(
    id="{study}_in_distribution_share_falls",
    source="section 5",
    unit="fraction",
    criterion=ABOVE_ZERO,
    over=mechanisms,
)
def in_distribution_share_falls(results: Results, study: str, training: str) -> PerSeed:
    """Features lie less in the principal subspace of unshifted ones, on {study} (fall of the share)."""
    networks = Networks(results, study, training)
    return networks.layer(-1, "in_distribution_share") - networks.layer(-1, "in_distribution_share", NORM_KEPT)


@claim(id="{study}_bias_share_rises", source="section 5", unit="fraction", criterion=ABOVE_ZERO, over=mechanisms)
def bias_share_rises(results: Results, study: str, training: str) -> PerSeed:
    """Accumulated biases make up more of the output at the strongest levels, on {study} (rise of the share)."""
    networks = Networks(results, study, training)
    return networks.strongest("bias_share") - networks.unshifted("bias_share")


@claim(id="{study}_confidence_falls", source="section 4", unit="fraction", criterion=ABOVE_ZERO, over=mechanisms)
def confidence_falls(results: Results, study: str, training: str) -> PerSeed:
    """The probability of the predicted class falls at the strongest levels, on {study}."""
    networks = Networks(results, study, training)
    return networks.unshifted("confidence") - networks.strongest("confidence")


# Decisions: acting on predicted rewards, beside acting on probabilities.


@claim(
    id="{study}_reward_prediction_beats_acting", source="section 6", unit="reward", criterion=ABOVE_ZERO, over=decided
)
def reward_prediction_beats_acting(results: Results, study: str) -> PerSeed:
    """Out of distribution, acting on predicted rewards earns more than acting always, on {study}.

    Difference of mean rewards.
    """
    decisions = Decisions(results, study)
    return decisions.far("reward_prediction") - decisions.far("always_act")


@claim(
    id="{study}_reward_prediction_abstains_more",
    source="section 6: .13 to .61",
    unit="fraction",
    criterion=ABOVE_ZERO,
    over=decided,
)
def reward_prediction_abstains_more(results: Results, study: str) -> PerSeed:
    """The predictor of rewards abstains more often out of distribution, on {study} (rise of the share)."""
    decisions = Decisions(results, study)
    return decisions.far("reward_prediction", "abstention") - decisions.unshifted("reward_prediction", "abstention")


@claim(
    id="{study}_reward_prediction_in_distribution",
    source="section 6: .72 against .55",
    unit="reward",
    criterion=at_least(-0.2, "a fifth of a right answer's reward"),
    over=decided,
)
def reward_prediction_in_distribution(results: Results, study: str) -> PerSeed:
    """In distribution, acting on predicted rewards costs little against acting always, on {study} (difference)."""
    decisions = Decisions(results, study)
    return decisions.unshifted("reward_prediction") - decisions.unshifted("always_act")


@claim(
    id="{study}_reward_prediction_against_max_softmax",
    source="ours: a baseline that users have",
    unit="reward",
    criterion=NO_BASELINE,
    over=decided,
)
def reward_prediction_against_max_softmax(results: Results, study: str) -> PerSeed:
    """Out of distribution, reward prediction against answering where the classifier's probability exceeds 0.8.

    On {study}.
    """
    decisions = Decisions(results, study)
    return decisions.far("reward_prediction") - decisions.far("max_softmax")


@claim(
    id="{study}_reward_prediction_against_calibrated", source="ours", unit="reward", criterion=NO_BASELINE, over=decided
)
def reward_prediction_against_calibrated(results: Results, study: str) -> PerSeed:
    """The same against probabilities calibrated in distribution, on {study}."""
    decisions = Decisions(results, study)
    return decisions.far("reward_prediction") - decisions.far("calibrated_max_softmax")


@claim(
    id="{study}_oracle_above_reward_prediction",
    source="section 6",
    unit="reward",
    criterion=reported("it needs the labels: an upper bound of what abstaining could earn"),
    over=decided,
)
def oracle_above_reward_prediction(results: Results, study: str) -> PerSeed:
    """What the oracle, which sees the labels of the judged set, earns more, on {study}."""
    decisions = Decisions(results, study)
    return decisions.far("oracle") - decisions.far("reward_prediction")


@claim(
    id="{study}_auroc_{score}",
    source="ours: baselines that users expect",
    unit="AUROC",
    criterion=reported("the paper does not detect"),
    over=detected,
)
def auroc(results: Results, study: str, score: str) -> PerSeed:
    """AUROC of {score_name}, levels 3 to 5, on {study}."""
    rows = far_from_training(results["detection"].where(study=study, score=score))
    return by_seed(rows).reduce(lambda found: fmean(row["auroc"] for row in found))


# Variants of training, and where predictions do not revert.


@claim(
    id="variant_{key}_reverts",
    source="reviews: normalisation, regularisation, training length",
    unit="fraction",
    criterion=interval_above(0, "the distance falls at all"),
    over=variants,
)
def variant_reverts(results: Results, study: str, training: str) -> PerSeed:
    """Predictions revert with {training} too (1 minus the relative distance at the strongest levels)."""
    return Networks(results, study, training).strongest("normalised_distance").map(lambda distance: 1 - distance)


@claim(
    id="variant_{key}_effect",
    source="reviews",
    unit="ratio",
    criterion=reported("the paper makes no claim about it"),
    over=variants,
)
def variant_effect(results: Results, study: str, training: str) -> PerSeed:
    """Relative distance at the strongest levels with {training}, minus that of the usual training."""
    changed, base = (Networks(results, study, name) for name in (training, CROSS_ENTROPY))
    return changed.strongest("normalised_distance") - base.strongest("normalised_distance")


@claim(
    id="adversarial_{key}_does_not_revert",
    source="appendix: 2.291 to 2.298 on MNIST",
    unit="ratio",
    criterion=at_least(0.95, "no fall beyond a twentieth"),
    over=attacked,
)
def adversarial_does_not_revert(results: Results, training: str) -> PerSeed:
    """Adversarial inputs do not bring predictions nearer the constant, {training} (relative distance)."""
    rows = results["adversarial"].where(training=training)
    return rows.per_seed("distance", set="adversarial") / rows.per_seed("distance", set="test")


@claim(
    id="adversarial_{key}_norms_grow",
    source="appendix: 1.24 to 1.46",
    unit="ratio",
    criterion=at_least(1.0, "they grow"),
    over=attacked,
)
def adversarial_norms_grow(results: Results, training: str) -> PerSeed:
    """Adversarial inputs have larger norms in the layers, {training} (relative norm, mean over layers)."""
    rows = results["adversarial"].where(training=training)
    layers = [name for name, value in rows[0].items() if name.startswith("norm/") and value is not None]
    return combine([rows.per_seed(layer, set="adversarial") / rows.per_seed(layer, set="test") for layer in layers])


@claim(source="specification 9.2", unit="ratio", criterion=at_least(1.0, "no fall"))
def low_dimension_unclipped_noise_does_not_revert(results: Results) -> PerSeed:
    """In 64 dimensions unclipped noise drives predictions away from the constant, Gaussian NLL (relative distance)."""
    networks = Networks(results, LOW_DIMENSION.name, GAUSSIAN_NLL)
    return networks.strongest("normalised_distance", ["unclipped_noise"])


@claim(
    source="appendix: .95 to 2.58 on UTKFace",
    unit="ratio",
    criterion=reported("UTKFace is not available; MNIST need not fail as faces do"),
    over=last_kind,
)
def impulse_noise_gaussian_nll(results: Results, kind: str) -> PerSeed:
    """Strongest {kind} shift under Gaussian NLL (relative distance): the paper's failure on UTKFace."""
    return Networks(results, "mnist", GAUSSIAN_NLL).strongest("normalised_distance", [kind])


# Theory: homogeneous networks.


@claim(
    source="theorem 4.1 (informal) [M]",
    unit="ratio",
    criterion=at_most(0.05, "a twentieth of what inputs in the span give"),
)
def theory_output_off_span_vanishes(results: Results) -> PerSeed:
    """Off the data's span, the output of a homogeneous network of 6 layers is almost zero (relative size)."""
    return of_depth(results, 6, "relative_output")


@claim(
    source="theorem 4.1: the norm contracts through the remaining layers [M]",
    unit="ratio",
    criterion=at_most(0.5, "more than half is lost between the layers"),
)
def theory_contraction(results: Results) -> PerSeed:
    """Off the span, activations shrink from the first layer to the output.

    Relative norm at the output over the first layer's, 6 layers.
    """
    return of_depth(results, 6, "relative_output") / of_depth(results, 6, "first_relative_norm")


@claim(
    source="theorem 4.1: later weights near low rank [M]; 0.12 at random",
    unit="fraction",
    criterion=at_least(0.75, "three quarters in two of 64 directions"),
)
def theory_low_rank(results: Results) -> PerSeed:
    """Weights between hidden layers have little beside two directions, one per label.

    Share of two of 64 squared singular values; smallest layer of 4.
    """
    return of_depth(results, 4, "top_share")


@claim(
    id="theory_bias_follows_support_depth_{depth}",
    source="propositions 4.2 and 4.3 [M]",
    unit="correlation",
    criterion=at_least(0.9, "close to proportional"),
    over=biased,
)
def theory_bias_follows_support(results: Results, depth: int) -> PerSeed:
    """The last bias follows the mean label of the margin points (correlation over {n} data sets, depth {depth})."""
    return bias_correlations(results, depth, "support_mean")


@claim(
    id="theory_bias_not_marginal_depth_{depth}",
    source="proposition 4.3: the marginal only if margin points represent the classes [M]",
    unit="correlation",
    criterion=ABOVE_ZERO,
    over=biased,
)
def theory_bias_not_marginal(results: Results, depth: int) -> PerSeed:
    """The last bias follows the mean label of the margin points more than that of all points.

    Difference of the correlations, depth {depth}.
    """
    return bias_correlations(results, depth, "support_mean") - bias_correlations(results, depth, "label_mean")
