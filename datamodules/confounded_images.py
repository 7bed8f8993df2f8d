"""Images on which confounders are painted: what digits and Fashion-MNIST share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.classification import ClassificationDataModule, Split, TensorExamples
from surefoot.confounders import CONFOUNDERS, Confounder, assign_attribute, flip_labels, paint
from surefoot.errors import ConfigError, DataError
from surefoot.groups import combine_attributes, group_names

__all__ = ("ConfoundedImagesDataModule",)


class ConfoundedImagesDataModule(ClassificationDataModule):
    """Images in memory, RGB in [0, 1], with confounders that predict the label in training only.

    With two classes a group is (label, value of each confounder); with more it is (label, whether each confounder
    agrees with the label). Groups go by the true label; label noise changes the training targets alone.
    """

    def __init__(
        self,
        target: str,
        n_classes: int,
        confounders: Sequence[Confounder] = ("colour",),
        minority_fraction: float = 0.05,
        eval_minority_fraction: float = 0.5,
        confounder_strength: float = 0.5,
        label_noise: float = 0.0,
        noise_on: Literal["all", "majority", "minority"] = "all",
        **loading: Any,
    ) -> None:
        """Initialize the datamodule.

        Args:
            target: Name of what is predicted; filled in.
            n_classes: Number of classes; filled in.
            confounders: What is painted: ``colour`` (background), ``patch`` (corner), ``texture`` (stripes).
            minority_fraction: Share of the training examples whose confounder disagrees, ``1 - rho``.
            eval_minority_fraction: The same share in val and test.
            confounder_strength: Brightness of the paint in [0, 1].
            label_noise: Share of training labels flipped at random.
            noise_on: Whose labels are flipped.
            loading: Arguments of `ClassificationDataModule`.

        Raises:
            ConfigError: If a confounder is unknown, listed twice or missing, or a share is outside [0, 1].
        """
        super().__init__(**loading)
        unknown = set(confounders) - set(CONFOUNDERS)
        if unknown or len(set(confounders)) != len(confounders) or not confounders:
            raise ConfigError(
                f"confounders must be distinct, from {CONFOUNDERS}, got {list(confounders)}."
            )
        for name, share in (
            ("minority_fraction", minority_fraction),
            ("eval_minority_fraction", eval_minority_fraction),
            ("confounder_strength", confounder_strength),
            ("label_noise", label_noise),
        ):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {share}.")
        self.target, self.n_classes, self.confounders = target, n_classes, tuple(confounders)
        self.minority_fraction, self.eval_minority_fraction = (
            minority_fraction,
            eval_minority_fraction,
        )
        self.confounder_strength = confounder_strength
        self.label_noise, self.noise_on = label_noise, noise_on
        suffix = "" if n_classes == 2 else "_agrees"
        attributes = [("y", n_classes), *((f"{name}{suffix}", 2) for name in confounders)]
        self.group_names = self.eval_group_names = group_names(attributes)

    @abstractmethod
    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return images ``(examples, height, width)`` in [0, 1] and targets ``(examples,)`` per split."""

    def build(self) -> dict[str, Split]:
        """Paint the confounders on every split."""
        return {name: self._confound(name, *pair) for name, pair in self.load().items()}

    def _confound(self, name: str, images: Tensor, target: Tensor) -> Split:
        if not bool(images.isfinite().all()):
            raise DataError(f"the images of split {name!r} hold NaN or infinite values.")
        generator = torch.Generator().manual_seed(
            1_000_003 * self.seed + ("train", "val", "test").index(name)
        )
        training = name == "train"
        fraction = self.minority_fraction if training else self.eval_minority_fraction
        painted = images[:, None].expand(-1, 3, -1, -1).float()
        agrees, values = [], []
        for kind in self.confounders:
            attribute = assign_attribute(target, self.n_classes, fraction, generator)
            painted = paint(painted, attribute, self.n_classes, kind, self.confounder_strength)
            agrees.append(attribute == target)
            values.append(attribute if self.n_classes == 2 else (attribute == target).long())
        minority = ~torch.stack(agrees).all(0)
        group = combine_attributes([target, *values], [self.n_classes, *(2 for _ in values)])
        observed = target
        if training and self.label_noise > 0:
            pools = {"all": torch.ones_like(minority), "majority": ~minority, "minority": minority}
            observed = flip_labels(
                target, self.label_noise, pools[self.noise_on], self.n_classes, generator
            )
        examples = TensorExamples(input=painted, target=observed, group=group)
        annotations = {"minority": minority, "noisy": observed != target}
        return Split(examples, observed, group, group, annotations)
