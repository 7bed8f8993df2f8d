"""How good values of steps are, over an evaluation of all ranks: whatever has given them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.aggregation import CatMetric

from surefoot.errors import DataError
from surefoot.reasoning.metrics.judgements import (
    brier_score,
    calibration_error,
    first_error,
    first_errors,
    outcome_error,
    ranking,
)

__all__ = ("JudgementMetrics",)

#: Steps whose metrics are logged apart; later ones are counted together.
_MOST_STEPS = 5
#: Shares of a completion's steps after which its outcome is predicted.
_PERCENTS = (0, 25, 50, 75, 100)


class JudgementMetrics(nn.Module):
    """Keeps every judged prefix of an evaluation, and the value that was given to it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.predicted, self.labels, self.steps, self.completions = (CatMetric() for _ in range(4))
        self.counted, self.outcomes = CatMetric(), CatMetric()

    def update(
        self,
        predicted: Tensor,
        labels: Tensor,
        steps: Tensor,
        completions: Tensor,
        counted: Tensor | None = None,
        outcomes: Tensor | None = None,
    ) -> None:
        """Keep prefixes, ``(prefixes,)`` each.

        Args:
            predicted: Values that were given, in [0, 1].
            labels: Values as they are, in [0, 1].
            steps: Finished steps of each.
            completions: Number of the completion that each belongs to, over all ranks.
            counted: False where another completion that begins alike counts the same label: such a prefix counts for
                first errors alone. By default all count.
            outcomes: 1 where the whole completion ends right, 0 where it does not, negative where nobody knows; by
                default nobody does.

        Raises:
            DataError: If a value that was given is no number.
        """
        if not bool(predicted.isfinite().all()):
            raise DataError(
                "a predicted value is no finite number: the model has diverged, or its precision is too low."
            )
        if len(predicted):
            self.predicted.update(predicted)
            self.labels.update(labels)
            self.steps.update(steps)
            self.completions.update(completions)
            self.counted.update((torch.ones_like(steps) if counted is None else counted).float())
            self.outcomes.update((torch.full_like(steps, -1) if outcomes is None else outcomes).float())

    def conclude(self) -> dict[str, float]:
        """Return what the prefixes of all ranks say, and forget them; a number that does not exist is left out."""
        metrics = (self.predicted, self.labels, self.steps, self.completions, self.counted, self.outcomes)
        computed = [metric.compute() for metric in metrics]
        for metric in metrics:
            metric.reset()
        if isinstance(computed[0], list):  # no rank has seen a judged prefix
            return {}
        predicted, labels, steps, completions, counted, outcomes = (c.double().cpu().flatten() for c in computed)
        counts = counted > 0
        found = {"loss": float(F.binary_cross_entropy(predicted[counts], labels[counts]))} if counts.any() else {}
        for name, own in {"": steps >= 0, **_by_step(steps)}.items():
            chosen, known = own & counts, own & (outcomes >= 0)
            if chosen.any():
                found[f"brier{name}"] = brier_score(predicted[chosen], labels[chosen])
                found[f"auroc{name}"] = ranking(predicted[chosen], labels[chosen])
                found[f"calibration_error{name}"] = calibration_error(predicted[chosen], labels[chosen])
            if known.any():
                found[f"outcome_error{name}"] = outcome_error(predicted[known], outcomes[known])
        found |= _first_errors(predicted, labels, steps, completions)
        known = outcomes >= 0
        found |= _outcome_errors(predicted[known], outcomes[known], steps[known], completions[known])
        return {name: value for name, value in found.items() if not math.isnan(value)}


def _first_errors(predicted: Tensor, labels: Tensor, steps: Tensor, completions: Tensor) -> dict[str, float]:
    """Return how often the first step that is worth less than 1/2 is the one that is predicted to be.

    Nothing where no completion has such a step, or all have, or every completion is judged once, or several times
    within one step.
    """
    owners, owner = completions.unique(return_inverse=True)
    if len(torch.stack([owner, steps.long()]).unique(dim=1).T) < len(steps):
        return {}
    order = steps.argsort()
    order = order[owner[order].argsort(stable=True)]  # completion by completion, step by step
    order = order[steps[order] > 0]
    sizes = owner[order].bincount(minlength=len(owners)).tolist()
    found = [first_error(own.tolist(), 0.5) for own in predicted[order].split(sizes)]
    truth = [first_error(own.tolist(), 0.5) for own in labels[order].split(sizes)]
    wrong = sum(t >= 0 for t in truth)
    if wrong in (0, len(truth)) or int(owner.bincount().max()) < 2:
        return {}
    scores = first_errors(torch.tensor(found), torch.tensor(truth))
    return {f"first_error_{name}": value for name, value in scores._asdict().items()}


def _outcome_errors(predicted: Tensor, outcomes: Tensor, steps: Tensor, completions: Tensor) -> dict[str, float]:
    """Return how often the outcome is predicted wrongly after so many percent of a completion's steps, rounded up.

    Every completion counts once for each share. Nothing unless all are judged at their prompt and after every step,
    once each.
    """
    owners, owner = completions.unique(return_inverse=True)
    sizes = owner.bincount(minlength=len(owners))
    order = steps.argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]  # completion by completion, step by step
    begins = sizes.cumsum(0) - sizes
    if not len(order) or bool((steps[order] != torch.arange(len(order)) - begins.repeat_interleave(sizes)).any()):
        return {}
    found = {}
    for percent in _PERCENTS:
        at = order[begins + ((sizes - 1) * percent + 99) // 100]
        found[f"outcome_error_at_{percent}_percent"] = outcome_error(predicted[at], outcomes[at])
    return found


def _by_step(steps: Tensor) -> dict[str, Tensor]:
    """Return which prefixes have so many finished steps."""
    names = {f"_after_{n}": steps == n for n in range(_MOST_STEPS)}
    return names | {f"_after_{_MOST_STEPS}_or_more": steps >= _MOST_STEPS}
