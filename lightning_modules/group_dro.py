"""Group DRO."""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_modules.classification import AllExamples, ReweightedClassifier
from surefoot.classification.groups import group_counts, group_means
from surefoot.classification.networks import Encoder
from surefoot.contracts import TrainGroups, datamodule_as, datamodule_of, offers
from surefoot.errors import ConfigError
from surefoot.losses import (
    group_dro_example_weights,
    initial_group_weights,
    update_group_log_weights,
)

__all__ = ("GroupDRO",)


class GroupDRO(ReweightedClassifier):
    """Minimise the worst group's risk by online ascent on group weights; needs a group per training example.

    The paper samples groups evenly: ``data.init_args.training.sampling: group_balanced``. Groups without a training
    example have weight 0, so that the others' weights sum to one. Departures from the authors' code: there such groups
    keep their share; the adjustment C/sqrt(n) moves the group weights only, it is not added in place to the loss; and a
    group that a batch lacks is not raised by its adjustment (Algorithm 1 moves the group that was drawn). A batch
    without some group weighs less in sum, as there.

    Reference: Sagawa et al., ICLR 2020, arXiv 1911.08731, Algorithm 1 and equation 5.
    """

    log_group_weights: Tensor
    adjustments: Tensor

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable,
        n_groups: int | None = None,
        step_size: float = 0.01,
        adjustment: float = 0.0,
        **classifier: Any,
    ) -> None:
        """Initialize Group DRO.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the network's parameters.
            n_groups: Number of groups; filled in from the datamodule.
            step_size: Ascent rate of the group weights per batch.
            adjustment: C of the generalisation adjustment C/sqrt(training examples of the group).
            classifier: Arguments of `ClassifierModule`.

        Raises:
            ConfigError: If the number of groups is unknown or a rate is negative.
        """
        super().__init__(encoder, optimizer, **classifier)
        if n_groups is None or n_groups < 1:
            raise ConfigError(f"n_groups must be at least 1, got {n_groups}; the datamodule usually fills it in.")
        if step_size < 0 or adjustment < 0:
            raise ConfigError(f"step_size and adjustment must be at least 0, got {step_size} and {adjustment}.")
        self.step_size, self.adjustment = step_size, adjustment
        self.register_buffer("log_group_weights", torch.zeros(n_groups).log_softmax(0))
        self.register_buffer("adjustments", torch.zeros(n_groups))

    def setup(self, stage: str) -> None:
        """Start from even weights of the groups that have training examples, and compute their adjustments.

        Raises:
            ConfigError: If the datamodule has another number of groups, or none with a training example.
        """
        if stage != "fit":
            return
        if self.adjustment == 0 and not offers(datamodule_of(self.trainer), TrainGroups):
            return
        data = datamodule_as(self.trainer, TrainGroups, "GroupDRO")
        counts = data.train_group_counts().to(self.log_group_weights)
        if len(counts) != len(self.log_group_weights):
            raise ConfigError(
                f"n_groups is {len(self.log_group_weights)} and {type(data).__name__} has {len(counts)} groups:"
                " leave n_groups out, the datamodule fills it in."
            )
        self.log_group_weights, self.adjustments = initial_group_weights(counts, self.adjustment)

    def example_weights(self, examples: AllExamples) -> Tensor:
        """Raise the weights of the groups with high losses, then spread each over its examples."""
        losses, group = examples.losses, examples.group()
        n_groups = len(self.log_group_weights)
        in_batch = group_counts(group, n_groups) > 0
        gains = torch.where(in_batch, group_means(losses, group, n_groups) + self.adjustments, 0.0)
        self.log_group_weights = update_group_log_weights(self.log_group_weights, gains, self.step_size)
        self.log("train/max_group_weight", self.log_group_weights.max().exp())
        return group_dro_example_weights(self.log_group_weights, group)
