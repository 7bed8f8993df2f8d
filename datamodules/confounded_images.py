"""Images in memory on which confounders may be painted: what digits, MNIST and Fashion-MNIST share."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from datamodules.classification import ClassificationDataModule
from datamodules.splits import Split, TensorExamples
from surefoot.classification.confounders import (
    Confounder,
    Confounding,
    LabelNoise,
    assign_attribute,
    flip_labels,
    paint,
)
from surefoot.classification.groups import combine_attributes, group_names
from surefoot.errors import ConfigError, DataError
from surefoot.training.seeds import numbered_seed

__all__ = ("ConfoundedImagesDataModule", "split_at_random")


class ConfoundedImagesDataModule(ClassificationDataModule):
    """Images in memory, RGB in [0, 1], with confounders that predict the label in training only.

    With two classes a group is (label, value of each confounder); with more it is (label, whether each confounder
    agrees with the label). Groups go by the true label; label noise changes the training targets alone.
    """

    def __init__(
        self,
        target: str,
        n_classes: int,
        confounding: Confounding | None = Confounding(),
        label_noise: LabelNoise | None = None,
        imbalance: float = 1.0,
        standardise: bool = False,
        **loading: Any,
    ) -> None:
        """Initialize the datamodule.

        Args:
            target: Name of what is predicted; filled in.
            n_classes: Number of classes; filled in.
            confounding: What is painted and how often it disagrees with the label; with ``null`` nothing is, and groups
                are the classes.
            label_noise: Training labels that are flipped; none by default.
            imbalance: How many times more examples class 0 has than the last one, in every split; those between follow
                a geometric series.
            standardise: Whether batches are brought to mean 0 and deviation 1 (of the training pixels, per channel).
            loading: Arguments of `ClassificationDataModule`.

        Raises:
            ConfigError: If the imbalance is below 1, or noise is among a majority or minority and nothing is painted.
        """
        super().__init__(**loading)
        if imbalance < 1:
            raise ConfigError(f"imbalance must be at least 1, got {imbalance}.")
        if label_noise is not None and label_noise.among != "all" and confounding is None:
            raise ConfigError(
                f"label_noise.among {label_noise.among} needs confounders, which make the minority: set confounding, or"
                " label_noise.among to all."
            )
        self.target, self.n_classes = target, n_classes
        self.confounding, self.label_noise = confounding, label_noise
        self.imbalance, self.standardise = imbalance, standardise
        suffix = "" if n_classes == 2 else "_agrees"
        attributes = [("y", n_classes), *((f"{name}{suffix}", 2) for name in self._confounders)]
        self.group_names = self.eval_group_names = group_names(attributes)

    @property
    def _confounders(self) -> tuple[Confounder, ...]:
        return () if self.confounding is None else self.confounding.confounders

    @abstractmethod
    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return images ``(examples, height, width)`` in [0, 1] and targets ``(examples,)`` per split."""

    def build(self) -> dict[str, Split]:
        """Paint the confounders on every split."""
        loaded = {n: self._unbalance(*pair) for n, pair in self.load().items()}
        splits = {name: self._confound(name, *pair) for name, pair in loaded.items()}
        pixels = splits["train"].examples.tensors["input"]  # type: ignore[attr-defined]
        self._mean = pixels.mean((0, 2, 3))[:, None, None]
        self._std = pixels.std((0, 2, 3)).clamp_min(1e-6)[:, None, None]
        return splits

    def scale(self, images: Tensor) -> Tensor:
        """Return standardised images, if that is asked for."""
        return (images - self._mean.to(images)) / self._std.to(images) if self.standardise else images

    def _unbalance(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.imbalance == 1:
            return images, target
        generator = torch.Generator().manual_seed(self.seed)
        kept = []
        for c in range(self.n_classes):
            members = (target == c).nonzero()[:, 0]
            share = self.imbalance ** (-c / (self.n_classes - 1))
            order = torch.randperm(len(members), generator=generator)
            kept.append(members[order[: max(1, round(share * len(members)))]])
        chosen = torch.cat(kept).sort().values
        return images[chosen], target[chosen]

    def _confound(self, name: str, images: Tensor, target: Tensor) -> Split:
        if not bool(images.isfinite().all()):
            raise DataError(f"the images of split {name!r} hold NaN or infinite values.")
        generator = torch.Generator().manual_seed(numbered_seed(self.seed, ("train", "val", "test").index(name)))
        training = name == "train"
        painted = images[:, None].expand(-1, 3, -1, -1).float()
        agrees, values = [torch.ones(len(target), dtype=torch.bool)], []
        for kind in self._confounders:
            assert self.confounding is not None
            fraction = self.confounding.minority_fraction if training else self.confounding.eval_minority_fraction
            attribute = assign_attribute(target, self.n_classes, fraction, generator)
            painted = paint(painted, attribute, self.n_classes, kind, self.confounding.strength)
            agrees.append(attribute == target)
            values.append(attribute if self.n_classes == 2 else (attribute == target).long())
        minority = ~torch.stack(agrees).all(0)
        group = combine_attributes([target, *values], [self.n_classes, *(2 for _ in values)])
        observed = target
        noise = self.label_noise
        if training and noise is not None:
            pools = {"all": torch.ones_like(minority), "majority": ~minority, "minority": minority}
            observed = flip_labels(target, noise.share, pools[noise.among], self.n_classes, generator)
        examples = TensorExamples(input=painted, target=observed, group=group)
        annotations = {"minority": minority, "noisy": observed != target}
        return Split(examples, observed, group, group, annotations)


def split_at_random(images: Tensor, target: Tensor, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Split examples into 60% train, 20% val and 20% test by a seed."""
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    n_eval = len(target) // 5
    parts: tuple[Tensor, ...] = order.split([len(target) - 2 * n_eval, n_eval, n_eval])
    return {n: (images[p], target[p]) for n, p in zip(("train", "val", "test"), parts, strict=True)}
