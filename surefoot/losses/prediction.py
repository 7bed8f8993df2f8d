"""Losses of prediction, each with the constant that minimises it and its own distance to that constant.

A network's outputs ``(batch, outputs)`` mean what the loss says: logits, a value, a normal distribution, or rewards of
actions.

Reference: Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873, section 3.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import ConfigError
from surefoot.metrics.constant_solution import (
    Moments,
    class_constant,
    gaussian_constant,
    gaussian_kl,
    gaussian_nll,
    kl_to_class_constant,
    mean_constant,
    median_constant,
    reward_constant,
)

__all__ = (
    "UNLABELLED",
    "AbsoluteError",
    "CrossEntropy",
    "GaussianNLL",
    "PredictionLoss",
    "RewardPrediction",
    "SquaredError",
)

#: Target of an example without a label (torch's ``ignore_index``): its loss is 0 and it counts in no accuracy.
UNLABELLED = -100


class PredictionLoss(ABC):
    """What a network is trained to predict; constants and outputs are tensors, on any device."""

    #: Epochs in which training minimises something else.
    warmup_epochs = 0

    @abstractmethod
    def n_outputs(self, n_classes: int | None) -> int:
        """Return how many numbers the network has to put out.

        Raises:
            ConfigError: If the loss needs classes and there are fewer than two.
        """

    @abstractmethod
    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss per example, ``(batch,)``; its mean is what training minimises."""

    @abstractmethod
    def constant(self, target: Tensor, n_classes: int | None, weights: Tensor | None = None) -> Tensor:
        """Return the optimal constant prediction for training targets, ``(numbers,)``, float64.

        Args:
            target: Training targets, ``(examples,)``.
            n_classes: Number of classes, where there are any.
            weights: How often each example is drawn, ``(examples,)``; all alike by default.
        """

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """Return outputs in the units of the constant, ``(batch, numbers)``."""

    @abstractmethod
    def distances(self, outputs: Tensor, constant: Tensor) -> Tensor:
        """Return the distance of each prediction to the constant, ``(batch,)``."""

    def training_losses(self, outputs: Tensor, target: Tensor, epoch: int) -> Tensor:
        """Return what training minimises in an epoch, ``(batch,)``: the losses, unless there is a warm-up."""
        return self.losses(outputs, target)

    def signal(self, outputs: Tensor) -> Tensor:
        """Return outputs without what does not change the prediction, ``(batch, outputs)``."""
        return outputs

    def class_scores(self, outputs: Tensor) -> Tensor | None:
        """Return a score per class ``(batch, classes)``, whose largest is the predicted class; none for regression."""
        return None

    def confidences(self, outputs: Tensor) -> Tensor | None:
        """Return the probability of the predicted class, ``(batch,)``; none where no probability is predicted."""
        return None


def _checked(n_classes: int | None) -> int:
    if n_classes is None or n_classes < 2:
        raise ConfigError(f"n_classes must be at least 2, got {n_classes}; the datamodule usually fills it in.")
    return n_classes


class CrossEntropy(PredictionLoss):
    """Cross-entropy of logits; the constant is the (smoothed, weighted) label marginal, the distance KL in nats."""

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        """Initialize the loss.

        Args:
            label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
            class_weights: Weight of each class's losses, at least 0; ones by default. The batch's mean is not divided
                by its weights.

        Raises:
            ConfigError: If a value is out of range.
        """
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        if class_weights is not None and (min(class_weights) < 0 or max(class_weights) == 0):
            raise ConfigError(f"class_weights must be at least 0, not all 0, got {list(class_weights)}.")
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else torch.tensor(class_weights).float()

    def n_outputs(self, n_classes: int | None) -> int:
        """Return the number of classes."""
        if self.class_weights is not None and len(self.class_weights) != n_classes:
            raise ConfigError(
                f"class_weights has {len(self.class_weights)} weights, but there are {n_classes} classes."
            )
        return _checked(n_classes)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropies in nats."""
        weight = None if self.class_weights is None else self.class_weights.to(outputs)
        return F.cross_entropy(outputs, target, weight=weight, reduction="none", label_smoothing=self.label_smoothing)

    def constant(self, target: Tensor, n_classes: int | None, weights: Tensor | None = None) -> Tensor:
        """Return probabilities, ``(classes,)``."""
        return class_constant(target, _checked(n_classes), self.label_smoothing, self.class_weights, weights)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return probabilities."""
        return outputs.softmax(1)

    def distances(self, outputs: Tensor, constant: Tensor) -> Tensor:
        """Return KL divergences from prediction to constant, nats."""
        return kl_to_class_constant(outputs, constant)

    def signal(self, outputs: Tensor) -> Tensor:
        """Return logits minus their mean: a shift of all of them changes no probability."""
        return outputs - outputs.mean(1, keepdim=True)

    def class_scores(self, outputs: Tensor) -> Tensor:
        """Return the logits."""
        return outputs

    def confidences(self, outputs: Tensor) -> Tensor:
        """Return the largest probability."""
        return outputs.softmax(1).amax(1)


class SquaredError(PredictionLoss):
    """Squared error of one value; the constant is the mean target, the distance the squared difference."""

    def n_outputs(self, n_classes: int | None) -> int:
        """Return 1."""
        return 1

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return squared errors; 0 where unlabelled."""
        return _where_labelled((outputs[:, 0] - target.float()) ** 2, target)

    def constant(self, target: Tensor, n_classes: int | None, weights: Tensor | None = None) -> Tensor:
        """Return the mean target, ``(1,)``."""
        return mean_constant(target, weights).view(1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the values."""
        return outputs

    def distances(self, outputs: Tensor, constant: Tensor) -> Tensor:
        """Return squared differences."""
        return (outputs[:, 0] - constant.to(outputs)) ** 2


class AbsoluteError(PredictionLoss):
    """Absolute error of one value; the constant is the median target, the distance the absolute difference."""

    def n_outputs(self, n_classes: int | None) -> int:
        """Return 1."""
        return 1

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return absolute errors; 0 where unlabelled."""
        return _where_labelled((outputs[:, 0] - target.float()).abs(), target)

    def constant(self, target: Tensor, n_classes: int | None, weights: Tensor | None = None) -> Tensor:
        """Return the median target, ``(1,)``."""
        return median_constant(target.double(), weights).view(1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the values."""
        return outputs

    def distances(self, outputs: Tensor, constant: Tensor) -> Tensor:
        """Return absolute differences."""
        return (outputs[:, 0] - constant.to(outputs)).abs()


class GaussianNLL(PredictionLoss):
    """Negative log-likelihood of a normal distribution; outputs are mean and log deviation, the distance KL in nats.

    From scratch it diverges: training starts with squared errors of the mean, as in the paper.
    """

    def __init__(self, warmup_epochs: int = 0, max_log_std: float = 7.0) -> None:
        """Initialize the loss.

        Args:
            warmup_epochs: Epochs of squared error before.
            max_log_std: Absolute log deviation up to which deviations are distinguished.

        Raises:
            ConfigError: If a number is negative.
        """
        if warmup_epochs < 0 or max_log_std <= 0:
            raise ConfigError(
                f"warmup_epochs must be at least 0 and max_log_std above 0, got {warmup_epochs} and {max_log_std}."
            )
        self.warmup_epochs, self.max_log_std = warmup_epochs, max_log_std

    def n_outputs(self, n_classes: int | None) -> int:
        """Return 2."""
        return 2

    def _log_std(self, outputs: Tensor) -> Tensor:
        return outputs[:, 1].clamp(-self.max_log_std, self.max_log_std)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return negative log-likelihoods in nats; 0 where unlabelled."""
        losses = gaussian_nll(outputs[:, 0], self._log_std(outputs), target.float())
        return _where_labelled(losses, target)

    def training_losses(self, outputs: Tensor, target: Tensor, epoch: int) -> Tensor:
        """Return squared errors during the warm-up, then the losses."""
        if epoch < self.warmup_epochs:
            return (outputs[:, 0] - target.float()) ** 2
        return self.losses(outputs, target)

    def constant(self, target: Tensor, n_classes: int | None, weights: Tensor | None = None) -> Tensor:
        """Return mean and deviation of the targets, ``(2,)``."""
        return torch.stack(gaussian_constant(target.double(), weights))

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return means and deviations."""
        return torch.stack([outputs[:, 0], self._log_std(outputs).exp()], 1)

    def distances(self, outputs: Tensor, constant: Tensor) -> Tensor:
        """Return KL divergences from prediction to constant, nats."""
        return gaussian_kl(outputs[:, 0], self._log_std(outputs), Moments(*constant.unbind()))


class RewardPrediction(PredictionLoss):
    """Squared error on the rewards of K answers and of abstaining, mean over all K + 1.

    Acting on the largest prediction is cautious out of distribution: the constant prefers to abstain as soon as a wrong
    answer costs enough (``right p + wrong (1 - p) < abstain`` for every class's share p).
    """

    def __init__(self, right: float = 1.0, wrong: float = -4.0, abstain: float = 0.0) -> None:
        """Initialize the loss.

        Args:
            right: Reward of the right answer.
            wrong: Reward of a wrong answer.
            abstain: Reward of no answer.

        Raises:
            ConfigError: Unless wrong < abstain < right.
        """
        if not wrong < abstain < right:
            raise ConfigError(f"rewards must be ordered wrong < abstain < right, got {wrong}, {abstain}, {right}.")
        self.right, self.wrong, self.abstain = right, wrong, abstain

    def n_outputs(self, n_classes: int | None) -> int:
        """Return the number of classes and one more, for abstaining."""
        return _checked(n_classes) + 1

    def rewards(self, target: Tensor, n_classes: int) -> Tensor:
        """Return the reward of every action, ``(batch, classes + 1)``."""
        rewards = torch.full((len(target), n_classes + 1), self.wrong, device=target.device)
        rewards[:, -1] = self.abstain
        labelled = target != UNLABELLED
        rewards[labelled, target[labelled]] = self.right
        return rewards

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return mean squared errors over the actions; 0 where unlabelled."""
        errors = (outputs - self.rewards(target, outputs.shape[1] - 1).to(outputs)) ** 2
        return _where_labelled(errors.mean(1), target)

    def constant(self, target: Tensor, n_classes: int | None, weights: Tensor | None = None) -> Tensor:
        """Return expected rewards, ``(classes + 1,)``."""
        return reward_constant(target, _checked(n_classes), self.right, self.wrong, self.abstain, weights)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the rewards."""
        return outputs

    def distances(self, outputs: Tensor, constant: Tensor) -> Tensor:
        """Return mean squared differences over the actions."""
        return ((outputs - constant.to(outputs)) ** 2).mean(1)

    def class_scores(self, outputs: Tensor) -> Tensor:
        """Return the rewards of the answers."""
        return outputs[:, :-1]


def _where_labelled(losses: Tensor, target: Tensor) -> Tensor:
    return torch.where(target == UNLABELLED, torch.zeros_like(losses), losses)
