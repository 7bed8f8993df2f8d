"""How BR-DRO's adversary learns: what each of its steps minimises, how often it steps, and its state.

Reference: Setlur et al., ICLR 2023, arXiv 2302.02931, section 3 (soft) and the authors' code (no regret).
"""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor

from surefoot.classification.adversaries import Adversary
from surefoot.errors import ConfigError
from surefoot.losses.br_dro import adversary_objective, tail_classification_loss

__all__ = ("AdversaryUpdate", "NoRegretUpdate", "SoftUpdate")


class AdversaryUpdate(ABC):
    """Steps of the adversary on a batch.

    Attributes:
        hedge_step: Growth of the logarithm of an example's importance per visit; 0 keeps none.
        importance: Whether the importance enters by the ``loss`` or by ``sampling``.
    """

    hedge_step: float = 0.0
    importance: Literal["loss", "sampling"] = "loss"

    def __init__(self, n_steps: int = 1, warmup_epochs: int = 0) -> None:
        """Initialize the update.

        Args:
            n_steps: Adversary steps per batch.
            warmup_epochs: Epochs of ERM before the adversary starts.

        Raises:
            ConfigError: If there is no step, or a negative number of epochs.
        """
        if n_steps < 1 or warmup_epochs < 0:
            raise ConfigError(
                f"n_steps must be at least 1 and warmup_epochs at least 0, got {n_steps} and {warmup_epochs}."
            )
        self.n_steps, self.warmup_epochs = n_steps, warmup_epochs

    @abstractmethod
    def loss(self, adversary: Adversary, observed: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> Tensor:
        """Return what the adversary minimises beside the cost of its complexity.

        Args:
            adversary: The adversary.
            observed: What it sees, ``(batch, features)``.
            target: Labels, ``(batch,)``.
            losses: The learner's loss per example, ``(batch,)``.
            threshold: eta, in units of the loss.
        """


class SoftUpdate(AdversaryUpdate):
    """Ascend the objective ``mean[w (loss - eta)] - penalty * complexity``: section 3 of the paper."""

    def loss(self, adversary: Adversary, observed: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> Tensor:
        """Return the negative mean of ``w (loss - eta)``."""
        weights = adversary.respond(observed, target, losses, threshold)
        return -adversary_objective(weights, losses, threshold, threshold.new_zeros(()), 0.0)


class NoRegretUpdate(AdversaryUpdate):
    """Learn to classify the tail, and raise the importance of each visited example: the form of the authors' code."""

    def __init__(
        self,
        hedge_step: float = 0.0,
        importance: Literal["loss", "sampling"] = "loss",
        n_steps: int = 1,
        warmup_epochs: int = 0,
    ) -> None:
        """Initialize the update.

        Args:
            hedge_step: Growth of the logarithm of an example's importance per visit. Scale it to the number of epochs:
                the authors' 0.05 in 300 epochs on Waterbirds makes 15 / epochs.
            importance: Whether the importance enters by the ``loss`` or by ``sampling``.
            n_steps: Adversary steps per batch.
            warmup_epochs: Epochs of ERM before the adversary starts.

        Raises:
            ConfigError: If a number is outside its range, or examples are drawn by an importance that never grows.
        """
        super().__init__(n_steps, warmup_epochs)
        if hedge_step < 0:
            raise ConfigError(f"hedge_step must be at least 0, got {hedge_step}.")
        if importance == "sampling" and hedge_step == 0:
            raise ConfigError("importance: sampling draws by an importance that needs a hedge_step above 0.")
        self.hedge_step, self.importance = hedge_step, importance

    def loss(self, adversary: Adversary, observed: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> Tensor:
        """Return the balanced cross-entropy of telling losses above the threshold from the rest."""
        return tail_classification_loss(adversary(observed, target), losses, threshold)
