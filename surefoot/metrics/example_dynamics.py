"""How training examples are learned by a classifier: confidence, correctness, forgetting.

Reference: Swayamdipta et al. 2020, Dataset Cartography (confidence, variability, correctness); Toneva et al. 2019, An
Empirical Study of Example Forgetting (forgetting events).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ("ExampleHistory", "empty_history", "observe_examples")


class ExampleHistory(NamedTuple):
    """What has been seen of each training example, ``(examples,)`` each."""

    n_seen: Tensor  # presentations, int64
    n_correct: Tensor  # presentations that were classified correctly, int64
    n_forgotten: Tensor  # changes from correct to wrong between presentations, int64
    first_learned: Tensor  # epoch of the first correct presentation, -1 while there is none, int64
    was_correct: Tensor  # at the last presentation, bool
    confidence_sum: Tensor  # of the true class's probability, float64
    confidence_squares: Tensor  # of its squares, float64

    @property
    def confidence(self) -> Tensor:
        """Mean probability of the true class, in [0, 1]; NaN where an example was never seen."""
        return self.confidence_sum / self.n_seen

    @property
    def variability(self) -> Tensor:
        """Standard deviation of the true class's probability; NaN where an example was never seen."""
        variance = self.confidence_squares / self.n_seen - self.confidence**2
        return variance.clamp(min=0).sqrt()

    @property
    def correctness(self) -> Tensor:
        """Share of presentations that were classified correctly, in [0, 1]; NaN where there was none."""
        return self.n_correct.double() / self.n_seen


def empty_history(n_examples: int) -> ExampleHistory:
    """Return the history of examples that have not been seen."""
    counts = torch.zeros(3, n_examples, dtype=torch.long)
    sums = torch.zeros(2, n_examples, dtype=torch.float64)
    return ExampleHistory(
        n_seen=counts[0],
        n_correct=counts[1],
        n_forgotten=counts[2],
        first_learned=torch.full((n_examples,), -1, dtype=torch.long),
        was_correct=torch.zeros(n_examples, dtype=torch.bool),
        confidence_sum=sums[0],
        confidence_squares=sums[1],
    )


def observe_examples(
    history: ExampleHistory,
    index: Int[Tensor, " batch"],
    confidences: Float[Tensor, " batch"],
    correct: Bool[Tensor, " batch"],
    epoch: int,
) -> ExampleHistory:
    """Return the history after one more batch; the argument is not changed.

    Args:
        history: What was seen before.
        index: The examples' numbers. Of an example that is in the batch several times the last presentation decides
            whether it counts as correct from now on.
        confidences: Probability of the true class.
        correct: Whether the prediction was right.
        epoch: Number of the epoch.
    """
    index, correct = index.cpu(), correct.cpu()
    confidences = confidences.double().cpu()
    forgotten = history.was_correct[index] & ~correct
    learned = correct & (history.first_learned[index] < 0)
    first, was = history.first_learned.clone(), history.was_correct.clone()
    first[index[learned]] = epoch
    was[index] = correct
    return ExampleHistory(
        history.n_seen.index_add(0, index, torch.ones_like(index)),
        history.n_correct.index_add(0, index, correct.long()),
        history.n_forgotten.index_add(0, index, forgotten.long()),
        first,
        was,
        history.confidence_sum.index_add(0, index, confidences),
        history.confidence_squares.index_add(0, index, confidences**2),
    )
