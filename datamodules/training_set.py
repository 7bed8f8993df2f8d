"""What of a dataset is trained on, and how its examples are drawn."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from surefoot.errors import ConfigError

__all__ = ("SamplingRule", "TrainingSet", "subsample")

SamplingRule = Literal["uniform", "class_balanced", "group_balanced", "class_subsampled", "group_subsampled"]


@dataclass(frozen=True)
class TrainingSet:
    """Which examples are trained on, how they are drawn, and what is known of them.

    Args:
        split: Split to train on; ``val`` is for last-layer retraining (DFR).
        sampling: ``uniform`` shuffles; ``class_balanced`` (RWY) and ``group_balanced`` (RWG) draw with replacement;
            ``class_subsampled`` (SUBY) and ``group_subsampled`` (SUBG) keep as many examples of each class or group as
            the smallest has.
        group_labels: ``hidden`` keeps groups out of the training batches; evaluation always has them.
        drop_last: Whether an epoch's last training batch is left out where it is smaller than the others; evaluation
            leaves nothing out.

    Raises:
        ConfigError: If groups are hidden and balanced.
    """

    split: Literal["train", "val"] = "train"
    sampling: SamplingRule = "uniform"
    group_labels: Literal["given", "hidden"] = "given"
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Check that groups that are balanced are known."""
        if self.group_labels == "hidden" and self.sampling.startswith("group"):
            raise ConfigError(
                f"training.sampling {self.sampling} balances groups and training.group_labels hides them: set"
                " group_labels to given, or sampling to uniform, class_balanced or class_subsampled."
            )

    @property
    def by_class(self) -> bool:
        """Whether classes are balanced; otherwise groups, if anything is."""
        return self.sampling.startswith("class")

    @property
    def balanced(self) -> bool:
        """Whether examples are drawn with replacement, by weight."""
        return self.sampling.endswith("balanced")

    @property
    def subsampled(self) -> bool:
        """Whether some examples are left out, so that all classes or groups have as many."""
        return self.sampling.endswith("subsampled")


def subsample(key: Tensor, counts: Tensor, seed: int) -> list[int]:
    """Return as many indices of each value of ``key (examples,)`` as its rarest value has."""
    generator = torch.Generator().manual_seed(seed)
    size = int(counts[counts > 0].min())
    chosen = []
    for value in counts.nonzero()[:, 0]:
        members = (key == value).nonzero()[:, 0]
        chosen.append(members[torch.randperm(len(members), generator=generator)[:size]])
    return torch.cat(chosen).sort().values.tolist()
