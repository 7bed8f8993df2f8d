"""What is claimed about memorization: prediction of test accuracy, older predictors, started answers, curation."""

import math
from statistics import fmean

from surefoot.reproduce.claims import ABOVE_ZERO, Criterion, at_least, claim, interval_above, reported
from surefoot.reproduce.learning_dynamics.tables import (
    GAPS_TABLE,
    PREDICTORS,
    PREFIXES_TABLE,
    SEEDS_TABLE,
    advantage,
    curation,
    mean_after_additions,
    other_methods,
    other_predictors,
    predictors,
    prefixes,
    quality,
    records,
    records_left_out,
)
from surefoot.reproduce.results import PerSeed, Results, by_seed
from surefoot.statistics import Estimate, correlation, rank_correlation

__all__ = ()

ABSTRACT = "section 3; the paper's abstract: R² around or above 0.9"
GSM8K = "on GSM8K, section 3"
FOR_COMPARISON = reported("for comparison with the paper's number")
BASELINE = reported("the baseline")


def of_the_abstract(own: bool) -> Criterion:
    """Return what is claimed of R²: nothing of this study's own models."""
    return reported("no figure is claimed for models of this size") if own else at_least(0.9, "the paper's abstract")


def given(own: bool) -> bool:
    """Return whether the runs were given, which quick scale does not make smaller."""
    return not own


# The study's own sweep, thresholds chosen within each seed.


@claim(
    source="sections 3 and 7",
    unit="R²",
    criterion=reported("a tiny model is no evidence for the paper's 0.9; as it comes out"),
)
def own_runs_r2_identity(results: Results) -> PerSeed:
    """On our own sweep: R² of the line y = x, thresholds from other runs."""
    return results[SEEDS_TABLE].per_seed("r2_identity")


@claim(source="sections 3 and 7", unit="R²", criterion=reported("as it comes out"))
def own_runs_r2_fit(results: Results) -> PerSeed:
    """On our own sweep: squared correlation, thresholds from other runs."""
    return results[SEEDS_TABLE].per_seed("r2_fit")


@claim(source="sections 3 and 7", unit="R²", criterion=ABOVE_ZERO)
def own_runs_beats_train_accuracy(results: Results) -> PerSeed:
    """Identity R² above plain train accuracy's on our own sweep."""
    return results[SEEDS_TABLE].per_seed("r2_identity") - results[SEEDS_TABLE].per_seed("train_r2_identity")


@claim(
    source="section 3: a clear single peak",
    unit="R²",
    criterion=interval_above(0, "an interior peak is what makes the threshold mean something"),
)
def own_runs_single_peak(results: Results) -> PerSeed:
    """R² falls on both sides of the best threshold (drop to the better of the two ends of the range)."""
    return results[SEEDS_TABLE].per_seed("peak_drop")


@claim(source="section 3: -2.3 on GSM8K", unit="log log perplexity", criterion=reported("depends on the task"))
def own_runs_threshold(results: Results) -> PerSeed:
    """Threshold that all of a seed's runs choose."""
    return results[SEEDS_TABLE].per_seed("log_log_threshold")


# Predictors of the gap between train and test accuracy.


def gap_correlations(results: Results, predictor: str) -> PerSeed:
    """Return the correlation over checkpoints of a predictor with the gap."""
    rows = by_seed(results[GAPS_TABLE])
    return rows.reduce(lambda found: correlation([r[predictor] for r in found], [r["gap"] for r in found]))


@claim(
    id="gap_correlation_{key}",
    source="section 4: 0.986, -0.72, 0.59, -0.04 in this order",
    unit="Pearson",
    criterion=reported("the paper's figures are of one model and three runs"),
    over=predictors,
)
def gap_correlation(results: Results, predictor: str) -> PerSeed:
    """Correlation of the generalisation gap with {predictor}."""
    return gap_correlations(results, predictor)


@claim(id="beats_{key}", source="section 4", unit="Pearson", criterion=ABOVE_ZERO, over=other_predictors)
def beats(results: Results, predictor: str) -> PerSeed:
    """Pre-memorization accuracy predicts the gap better than {predictor}: difference of correlations."""
    return gap_correlations(results, PREDICTORS[0]) - gap_correlations(results, predictor)


# Answers that are started with other words, at the end of a run that has memorized.


@claim(
    id="robustness_prefix_{number}",
    source="section 5",
    unit="tau",
    criterion=interval_above(0, "Kendall's tau over examples, at the end of a run that has memorized"),
    over=prefixes,
)
def robustness_prefix(results: Results, prefix: str) -> PerSeed:
    """Accuracy of training examples whose answer is started with '{prefix}' rises with pre-memorization accuracy."""
    return by_seed(results[PREFIXES_TABLE]).reduce(
        lambda rows: rank_correlation(
            [row["pre_memorization_accuracy"] for row in rows], [row[f"accuracy/{prefix}"] for row in rows]
        )
    )


@claim(
    id="robustness_drop_{number}",
    source="section 5: about 0.2 on average",
    unit="accuracy",
    criterion=interval_above(0, "what was memorized fails under another start"),
    over=prefixes,
)
def robustness_drop(results: Results, prefix: str) -> PerSeed:
    """Accuracy lost on training examples by starting the answer with '{prefix}'."""
    return results[PREFIXES_TABLE].per_seed("accuracy/") - results[PREFIXES_TABLE].per_seed(f"accuracy/{prefix}")


# Recorded runs, the study's own and others; intervals are over redrawn runs.


@claim(
    id="{record}_r2_identity", source=ABSTRACT, unit="R²", criterion=of_the_abstract, over=records, at_any_scale=given
)
def r2_identity(results: Results, record: str) -> Estimate:
    """Pre-memorization train accuracy predicts test accuracy: R² of the line y = x ({record})."""
    return quality(results, record, "pre_memorization_accuracy", "r2_identity")


@claim(id="{record}_r2_fit", source=ABSTRACT, unit="R²", criterion=of_the_abstract, over=records, at_any_scale=given)
def r2_fit(results: Results, record: str) -> Estimate:
    """The same: squared correlation ({record})."""
    return quality(results, record, "pre_memorization_accuracy", "r2_fit")


@claim(
    id="{record}_mean_absolute_error",
    source=f"0.029 {GSM8K}",
    unit="accuracy",
    criterion=FOR_COMPARISON,
    over=records,
    at_any_scale=given,
)
def mean_absolute_error(results: Results, record: str) -> Estimate:
    """Mean absolute error of pre-memorization train accuracy as a prediction ({record})."""
    return quality(results, record, "pre_memorization_accuracy", "mean_absolute_error")


@claim(
    id="{record}_kendall_tau",
    source=f"0.81 {GSM8K}",
    unit="tau",
    criterion=FOR_COMPARISON,
    over=records,
    at_any_scale=given,
)
def kendall_tau(results: Results, record: str) -> Estimate:
    """Rank correlation of pre-memorization train accuracy with test accuracy ({record})."""
    return quality(results, record, "pre_memorization_accuracy", "kendall_tau")


@claim(
    id="{record}_train_accuracy_identity",
    source=f"-6.0 {GSM8K}",
    unit="R²",
    criterion=BASELINE,
    over=records,
    at_any_scale=given,
)
def train_accuracy_identity(results: Results, record: str) -> Estimate:
    """Plain train accuracy: R² of the line y = x ({record})."""
    return quality(results, record, "train_accuracy", "r2_identity")


@claim(
    id="{record}_train_accuracy_fit",
    source=f"0.40 {GSM8K}",
    unit="R²",
    criterion=BASELINE,
    over=records,
    at_any_scale=given,
)
def train_accuracy_fit(results: Results, record: str) -> Estimate:
    """Plain train accuracy: squared correlation ({record})."""
    return quality(results, record, "train_accuracy", "r2_fit")


@claim(
    id="{record}_beats_train_accuracy",
    source="section 3",
    unit="R²",
    criterion=interval_above(0, "over redrawn runs"),
    over=records,
    at_any_scale=given,
)
def beats_train_accuracy(results: Results, record: str) -> Estimate:
    """Identity R² above plain train accuracy's ({record})."""
    return advantage(results, record)


@claim(
    id="{record}_leave_one_run_out_identity",
    source="section 3: 0.92 on GSM8K",
    unit="R²",
    criterion=at_least(0.9, "the paper's bound, without any leak of test accuracy"),
    over=records_left_out,
    at_any_scale=given,
)
def leave_one_run_out_identity(results: Results, record: str) -> Estimate:
    """Identity R² when each run's threshold is chosen on the other runs ({record})."""
    return quality(results, record, "left_out_accuracy", "r2_identity")


# Curation: new problems near those of low pre-memorization accuracy, beside other methods.


@claim(
    id="curation_above_{method}",
    source="section 6: 0.5 to 2 points above IID",
    unit="accuracy",
    criterion=ABOVE_ZERO,
    over=other_methods,
)
def curation_above(results: Results, method: str) -> PerSeed:
    """Test accuracy with new problems near those of low pre-memorization accuracy above {name}.

    At equal numbers of examples.
    """
    return mean_after_additions(results, "pre_memorization") - mean_after_additions(results, method)


@claim(
    source="section 6: 1.5 to 2",
    unit="ratio",
    criterion=interval_above(1, "more than IID's own number, by the seeds' interval"),
)
def curation_data_efficiency(results: Results) -> PerSeed:
    """Examples that IID needs for the accuracy that low pre-memorization accuracy reaches with all, over that number.

    IID's accuracies are fitted against the logarithm of the number of examples; where they do not rise, the ratio is 1.
    """
    ours, theirs = curation(results, "pre_memorization"), curation(results, "iid")
    found = {}
    for seed, rows in theirs.items():
        x, y = [math.log(row["n_examples"]) for row in rows], [row["test_accuracy"] for row in rows]
        x_mean, y_mean = fmean(x), fmean(y)
        slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)
        found[seed] = 1.0
        if slope > 0:
            reached = x_mean + (ours[seed][-1]["test_accuracy"] - y_mean) / slope
            found[seed] = math.exp(min(reached - x[-1], math.log(10)))
    return PerSeed(found)


@claim(
    source="section 6",
    unit="accuracy",
    criterion=reported("where more data does not help, no rule for choosing it can"),
)
def curation_more_data_helps(results: Results) -> PerSeed:
    """Test accuracy gained by IID's additions over the originals."""
    return curation(results, "iid").reduce(lambda rows: rows[-1]["test_accuracy"] - rows[0]["test_accuracy"])
