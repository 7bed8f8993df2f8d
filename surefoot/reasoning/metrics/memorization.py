"""Pre-memorization train accuracy: how often a model solves training examples before it has memorized their traces.

Thresholds of the perplexity are given as the paper's code gives them, as log(log(perplexity)), here
``log_log_threshold``.

Reference: Kang et al. 2024, What Do Learning Dynamics Reveal About Generalization in LLM Reasoning?, arXiv 2411.07681;
the computation follows the authors' code.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.statistics import correlation, rank_correlation

__all__ = (
    "LearningCurves",
    "LeaveOneRunOut",
    "PredictionQuality",
    "ThresholdSweep",
    "advance_pre_memorization",
    "identity_r2",
    "is_memorized",
    "is_trivial",
    "log_log",
    "perplexity_at",
    "pre_memorization_accuracies",
    "prediction_quality",
    "quality_of_train_accuracy",
    "threshold_grid",
)


class LearningCurves(NamedTuple):
    """What one fine-tuning run showed at its checkpoints."""

    name: str
    train_accuracies: Tensor  # share of correct samples, (checkpoints, examples)
    train_perplexities: Tensor  # of the reference trace, (checkpoints, examples)
    test_accuracies: Tensor  # mean over test examples, (checkpoints,)


class PredictionQuality(NamedTuple):
    """How near predicted accuracies are to observed ones."""

    r2_identity: float  # 1 - squared errors of the line y = x / squared deviations from the mean
    r2_fit: float  # squared Pearson correlation
    mean_absolute_error: float
    kendall_tau: float
    n_points: int


class LeaveOneRunOut(NamedTuple):
    """Each run predicted with the threshold that the other runs choose."""

    thresholds: dict[str, float]  # log(log(perplexity)), by the run that was left out
    quality: PredictionQuality  # of all runs' points together


def perplexity_at(log_log_threshold: float) -> float:
    """Return the perplexity whose log(log()) is given."""
    return math.exp(math.exp(log_log_threshold))


def log_log(perplexities: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return log(log(perplexity)); minus infinity at 1 and, by rounding, below."""
    return perplexities.double().log().clamp(min=0).log()


def is_memorized(perplexities: Float[Tensor, "..."], log_log_threshold: float) -> Bool[Tensor, "..."]:
    """Return where a reference trace is memorized: where its perplexity is not at or above the threshold.

    A perplexity below 1 by rounding, or NaN, counts as memorized, as in the authors' code.
    """
    return ~(perplexities.double() >= perplexity_at(log_log_threshold))


def pre_memorization_accuracies(
    accuracies: Float[Tensor, "checkpoints examples"],
    perplexities: Float[Tensor, "checkpoints examples"],
    log_log_threshold: float,
) -> Float[Tensor, "checkpoints examples"]:
    """Return each example's best accuracy so far while not memorized, but no more than its present accuracy.

    The mask is taken at every checkpoint anew: an example that is forgotten counts again. The outer minimum with the
    present accuracy accounts for skills that are lost. An example that is memorized at every checkpoint has 0.

    Args:
        accuracies: Share of correct samples.
        perplexities: Perplexity of the reference trace.
        log_log_threshold: log(log()) of the perplexity below which an example is memorized.

    Raises:
        ValueError: If an accuracy is outside [0, 1].
    """
    if accuracies.numel() and not bool(((accuracies >= 0) & (accuracies <= 1)).all()):
        raise ValueError("accuracies must lie in [0, 1]; one is outside or NaN.")
    if not len(accuracies):
        return accuracies.clone()
    eligible = accuracies.masked_fill(is_memorized(perplexities, log_log_threshold), 0.0)
    return torch.minimum(eligible.cummax(0).values, accuracies)


def advance_pre_memorization(
    best: Float[Tensor, " examples"],
    accuracies: Float[Tensor, " examples"],
    perplexities: Float[Tensor, " examples"],
    log_log_threshold: float,
) -> tuple[Float[Tensor, " examples"], Float[Tensor, " examples"]]:
    """Take one more checkpoint into account: `pre_memorization_accuracies` for runs that are still going on.

    Args:
        best: Best accuracy so far while not memorized; 0 at first.
        accuracies: Share of correct samples at this checkpoint.
        perplexities: Perplexity of the reference trace at this checkpoint.
        log_log_threshold: log(log()) of the perplexity below which an example is memorized.

    Returns:
        The new ``best``, and the pre-memorization accuracy at this checkpoint.
    """
    eligible = accuracies.masked_fill(is_memorized(perplexities, log_log_threshold), 0.0)
    best = torch.maximum(best, eligible)
    return best, torch.minimum(best, accuracies)


def is_trivial(curves: LearningCurves, log_log_threshold: float) -> bool:
    """Return whether nothing was ever memorized, so that the metric is a running maximum of plain train accuracy.

    It then equals the train accuracy wherever that does not fall and says nothing for or against the method.
    """
    return not bool(is_memorized(curves.train_perplexities, log_log_threshold).any())


def identity_r2(predicted: Float[Tensor, " points"], observed: Float[Tensor, " points"]) -> float:
    """Return 1 - squared errors of the line y = x / squared deviations from the mean; NaN where nothing varies."""
    x, y = predicted.double(), observed.double()
    spread = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    return 1 - float(((y - x) ** 2).sum()) / spread if spread > 0 else math.nan


def prediction_quality(predicted: Float[Tensor, " points"], observed: Float[Tensor, " points"]) -> PredictionQuality:
    """Compare predicted with observed accuracies.

    R² and correlations are NaN where they are not defined: fewer than two points, or no variation.

    Args:
        predicted: One prediction per checkpoint.
        observed: What came out.
    """
    x, y = predicted.double(), observed.double()
    r = correlation(x.tolist(), y.tolist())
    fit = r * r
    tau = math.nan if math.isnan(fit) else rank_correlation(x.tolist(), y.tolist())
    mean_error = float((y - x).abs().mean()) if len(y) else math.nan
    return PredictionQuality(identity_r2(x, y), fit, mean_error, tau, len(y))


def threshold_grid(low: float = -6.0, high: float = 1.0, step: float = 0.1) -> list[float]:
    """Return thresholds, log(log(perplexity)), from ``low`` to ``high``."""
    return [round(low + step * i, 6) for i in range(round((high - low) / step) + 1)]


class ThresholdSweep:
    """Pre-memorization train accuracy of runs at every checkpoint and candidate threshold, computed once.

    Attributes:
        runs: The runs.
        thresholds: Candidates, log(log(perplexity)).
        predicted: For each run ``(thresholds, checkpoints)``.
    """

    def __init__(self, runs: Sequence[LearningCurves], thresholds: Sequence[float] | None = None) -> None:
        """Compute the predictions.

        Args:
            runs: At least one run.
            thresholds: At least one candidate; `threshold_grid` by default.

        Raises:
            ValueError: If there is no run or no candidate, or two runs have one name.
        """
        self.runs = list(runs)
        self.thresholds = list(threshold_grid() if thresholds is None else thresholds)
        if not self.runs or not self.thresholds:
            raise ValueError("a sweep over thresholds takes at least one run and one candidate.")
        if len({r.name for r in self.runs}) < len(self.runs):
            raise ValueError("runs need names of their own.")
        self.predicted = [
            torch.stack(
                [
                    pre_memorization_accuracies(r.train_accuracies, r.train_perplexities, t).mean(1)
                    for t in self.thresholds
                ]
            )
            for r in self.runs
        ]
        self._errors = torch.stack(
            [((p - r.test_accuracies.double()) ** 2).sum(1) for p, r in zip(self.predicted, self.runs, strict=True)]
        )  # of the line y = x, (runs, thresholds)

    def at(self, run: str, threshold: float) -> Float[Tensor, " checkpoints"]:
        """Return a run's pre-memorization train accuracy at each checkpoint, for one of the candidates."""
        place = [r.name for r in self.runs].index(run)
        return self.predicted[place][self.thresholds.index(threshold)]

    def qualities(self) -> list[PredictionQuality]:
        """Return, for each threshold, how well test accuracy is predicted over all runs' checkpoints."""
        observed = torch.cat([r.test_accuracies for r in self.runs])
        return [prediction_quality(row, observed) for row in torch.cat(self.predicted, 1)]

    def quality(self, threshold: float, runs: Sequence[str]) -> PredictionQuality:
        """Return the same for one of the candidates on some of the runs."""
        chosen = [r for r in self.runs if r.name in runs]
        predicted = torch.cat([self.at(r.name, threshold) for r in chosen])
        return prediction_quality(predicted, torch.cat([r.test_accuracies for r in chosen]))

    def best(self, runs: Sequence[str] | None = None) -> float:
        """Return the threshold with the smallest squared error of the line y = x on some runs, all by default.

        Where several do equally well, the middle one is taken. Calibrate on runs that do memorize, and on two or more
        of different learning rates: one that never memorizes does equally well with every low threshold.
        """
        positions = [i for i, r in enumerate(self.runs) if runs is None or r.name in runs]
        errors = self._errors[positions].sum(0)
        tied: list[int] = (errors <= errors.min() + 1e-12).nonzero()[:, 0].tolist()
        return self.thresholds[tied[(len(tied) - 1) // 2]]

    def leave_one_run_out(self) -> LeaveOneRunOut:
        """Predict every run with the threshold that the others choose: its own test accuracy has no part in that.

        Raises:
            ValueError: If there are fewer than two runs.
        """
        if len(self.runs) < 2:
            raise ValueError("leaving one run out takes at least two runs.")
        names = [r.name for r in self.runs]
        chosen = {name: self.best([n for n in names if n != name]) for name in names}
        predicted = torch.cat([self.at(name, chosen[name]) for name in names])
        observed = torch.cat([r.test_accuracies for r in self.runs])
        return LeaveOneRunOut(chosen, prediction_quality(predicted, observed))


def quality_of_train_accuracy(runs: Sequence[LearningCurves]) -> PredictionQuality:
    """Return how well plain train accuracy predicts test accuracy over all runs' checkpoints."""
    predicted = torch.cat([r.train_accuracies.mean(1) for r in runs])
    return prediction_quality(predicted, torch.cat([r.test_accuracies for r in runs]))
