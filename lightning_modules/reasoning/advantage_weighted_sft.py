"""Advantage-weighted SFT: a policy's own completions, each step as much as it makes a right end more likely."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_modules.reasoning.sft import SFT
from surefoot.contracts import RecordBatch, datamodule_as
from surefoot.errors import ConfigError
from surefoot.losses.advantage_weighted_sft import advantage_weights, check_weighting
from surefoot.reasoning.credit import progress
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.distributed import sum_over_ranks

__all__ = ("AdvantageWeightedSFT",)


class LabelledSource(Protocol):
    """A datamodule of completions with values of their steps."""

    def trajectories(self) -> Sequence[Trajectory]:
        """Return those to train on."""
        ...


class AdvantageWeightedSFT(SFT):
    """Fine-tunes a policy on completions that it sampled, right and wrong, with a weight for each step.

    The weight is ``exp(A / beta)`` at most ``max_weight``, where the advantage A is the value after the step less that
    before it, of the best of ``k`` attempts. The loss is the mean over tokens of the weighted log-probabilities: with
    weights of 1 it is SFT's on all completions. Values are those of the policy that sampled, which training starts
    from. Per-step DPO has the same optimum, from pairs of steps.

    Reference: Setlur et al. 2024, arXiv 2406.14532, eq. 4 and theorem 6.1.
    """

    def __init__(self, beta: float = 0.5, max_weight: float = 20.0, k: int = 5, **kwargs: Any) -> None:
        """Initialize the method.

        Args:
            beta: Temperature of the weights: the lower, the more the best steps count. Advantages are in [-1, 1].
            max_weight: Largest weight, at least 1; with the default it is reached where beta is below 1/3.
            k: Attempts of which the best counts, in a step's advantage.
            kwargs: Arguments of `SFT`.

        Raises:
            ConfigError: If a number is out of range.
        """
        check_weighting(beta, max_weight)
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        super().__init__(**kwargs)
        self.beta, self.max_weight, self.k = beta, max_weight, k

    def setup(self, stage: str) -> None:
        """Refuse completions without values before anything is trained."""
        if stage == "fit":
            datamodule_as(self.trainer, LabelledSource, "AdvantageWeightedSFT").trajectories()

    def training_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Weigh the steps of a batch's completions, and take one step on these."""
        given = batch["trajectory"]
        trajectories = [t for t in given if self.is_kept(t.target_sequence)]
        watched, token_weights = torch.zeros(4, dtype=torch.float64, device=self.device), []
        for t in trajectories:
            steps = advantage_weights(torch.tensor(progress(t, self.k)), self.beta, self.max_weight)
            token_weights.append(_by_token(t, steps.weights))
            learned = torch.tensor([t.is_learned(span) for span in t.token_spans()])
            watched += _watch(steps.weights[learned], steps.clipped[learned]).to(watched)
        self.fine_tune([t.target_sequence for t in trajectories], len(given), token_weights)
        n_steps, total, squares, n_clipped = sum_over_ranks(watched).tolist()
        if squares:  # none without a step, or where all weights are rounded to 0
            self.log("train/step_weight", total / n_steps, batch_size=1)
            self.log("train/share_clipped", n_clipped / n_steps, batch_size=1)
            self.log("train/effective_share", total**2 / (squares * n_steps), batch_size=1)


def _by_token(trajectory: Trajectory, weights: Tensor) -> Tensor:
    """Return the weight of each of the target's tokens that were not given: its step's, ``(completion,)``.

    A target may end otherwise than the completion, with the end of the turn; that belongs to the last step.
    """
    starts = [span.start for span in trajectory.token_spans()]
    lengths = torch.tensor([*starts, len(trajectory.target)]).diff()
    return weights.repeat_interleave(lengths)[trajectory.n_given :]


def _watch(weights: Tensor, clipped: Tensor) -> Tensor:
    """Return sums over steps: their number, weights, squared weights, and how many are clipped, ``(4,)``."""
    weights = weights.double()
    return torch.stack([torch.ones_like(weights), weights, weights.square(), clipped.double()]).sum(1)
