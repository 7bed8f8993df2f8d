"""Group DRO."""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_modules.classification import Examples, ReweightedClassifier
from surefoot.distributed import gather_batch, local_slice
from surefoot.errors import ConfigError
from surefoot.groups import group_means
from surefoot.losses import group_dro_example_weights, update_group_log_weights
from surefoot.networks import Encoder

__all__ = ("GroupDRO",)


class GroupDRO(ReweightedClassifier):
    """Minimise the worst group's risk by online ascent on group weights; needs a group per training example.

    The paper samples groups evenly: ``data.init_args.sampling: group_balanced``. Departure from the authors' code:
    the adjustment C/sqrt(n) moves the group weights only, it is not added in place to the loss.

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
            raise ConfigError(
                f"n_groups must be at least 1, got {n_groups}; the datamodule usually fills it in."
            )
        if step_size < 0 or adjustment < 0:
            raise ConfigError(
                f"step_size and adjustment must be at least 0, got {step_size} and {adjustment}."
            )
        self.step_size, self.adjustment = step_size, adjustment
        self.register_buffer("log_group_weights", torch.zeros(n_groups).log_softmax(0))
        self.register_buffer("adjustments", torch.zeros(n_groups))

    def setup(self, stage: str) -> None:
        """Compute the adjustments from the training groups' sizes."""
        if stage != "fit" or self.adjustment == 0:
            return
        counts: Tensor = self.trainer.datamodule.train_group_counts()  # type: ignore[attr-defined]
        if bool((counts == 0).any()):
            empty = (counts == 0).nonzero()[:, 0].tolist()
            raise ConfigError(
                f"adjustment divides by the group sizes, and groups {empty} have no training example."
            )
        self.adjustments = (self.adjustment / counts.float().sqrt()).to(self.adjustments)

    def example_weights(self, examples: Examples) -> Tensor:
        """Raise the weights of the groups with high losses, then spread each over its examples."""
        losses, group = gather_batch(examples.losses), gather_batch(examples.group())
        group_losses = group_means(losses, group, len(self.log_group_weights))
        self.log_group_weights = update_group_log_weights(
            self.log_group_weights, group_losses + self.adjustments, self.step_size
        )
        self.log("train/max_group_weight", self.log_group_weights.max().exp())
        return local_slice(group_dro_example_weights(self.log_group_weights, group))
