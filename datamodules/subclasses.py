"""Superclasses whose held-out subclasses make the shift, over the classes of any small dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from datamodules.classification import ClassificationDataModule
from datamodules.splits import Batch, ChosenExamples, Gathered, Split
from surefoot.errors import ConfigError

__all__ = ("SubclassShiftDataModule",)

#: Dataset -> superclass -> its subclasses seen in training ("source") and held out ("target").
HIERARCHIES: Mapping[str, Mapping[str, Mapping[str, Sequence[int]]]] = {
    "CIFAR10DataModule": {
        "vehicle": {"source": [0, 1], "target": [8, 9]},  # airplane, automobile; ship, truck
        "mammal": {"source": [3, 5], "target": [4, 7]},  # cat, dog; deer, horse
        "small animal": {"source": [2], "target": [6]},  # bird; frog
    },
    "FashionMNISTDataModule": {
        "top": {"source": [0, 2], "target": [4, 6]},  # T-shirt, pullover; coat, shirt
        "shoe": {"source": [5, 7], "target": [9]},  # sandal, sneaker; ankle boot
        "long": {"source": [1], "target": [3]},  # trouser; dress
    },
}


class SubclassShiftDataModule(ClassificationDataModule):
    """Superclasses as labels: source subclasses in train, val and test, target subclasses held out as a shift.

    Groups are the source subclasses. With the shift ``HeldOut``, ``validate`` and ``test`` evaluate the set
    ``target_subclasses`` too, under the same superclass labels. The scheme is that of BREEDS (Santurkar et al., ICLR
    2021, arXiv 2008.04859).
    """

    def __init__(
        self,
        data: LightningDataModule,
        hierarchy: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
        **loading: Any,
    ) -> None:
        """Initialize the hierarchy.

        Args:
            data: Datamodule of the subclasses, such as CIFAR10DataModule or FashionMNISTDataModule without confounders.
            hierarchy: Superclass -> ``source`` and ``target`` -> classes of the dataset; the dataset's usual one by
                default.
            loading: Arguments of `ClassificationDataModule`.

        Raises:
            ConfigError: If the hierarchy is unknown, has fewer than two superclasses or repeats a class.
        """
        super().__init__(**loading)
        chosen = HIERARCHIES.get(type(data).__name__) if hierarchy is None else hierarchy
        if chosen is None or not isinstance(data, ClassificationDataModule):
            raise ConfigError(
                f"no hierarchy over {type(data).__name__} is known: set hierarchy; there are some for"
                f" {', '.join(HIERARCHIES)}."
            )
        used = [c for sides in chosen.values() for side in ("source", "target") for c in sides.get(side, ())]
        if (
            len(chosen) < 2
            or len(set(used)) < len(used)
            or not set(used) <= set(range(data.n_classes))
            or not all(sides.get("source") for sides in chosen.values())
        ):
            raise ConfigError(
                "a hierarchy needs two superclasses, each with source classes, and no class twice or outside"
                f" [0, {data.n_classes}); got {dict(chosen)}."
            )
        self.data, self.hierarchy = data, chosen
        self.augmentation = self.augmentation or data.augmentation
        self.n_classes = len(chosen)
        self.group_names = self.eval_group_names = [
            f"{name}/{c}" for name, sides in chosen.items() for c in sides["source"]
        ]

    def prepare_data(self) -> None:
        """Let the dataset prepare itself."""
        self.data.prepare_data()

    def build(self) -> dict[str, Split]:
        """Keep the source subclasses of each split."""
        self.data.setup("fit")
        return {name: self._side(split, "source") for name, split in self.data.splits.items()}

    def held_out(self, split: str) -> dict[str, Split]:
        """Return the target subclasses of val or test."""
        return {"target_subclasses": self._side(self.data.splits[split], "target")}

    def _side(self, split: Split, side: str) -> Split:
        superclass = torch.full((self.data.n_classes,), -1)
        subclass = torch.zeros(self.data.n_classes, dtype=torch.long)
        n_groups = 0
        for i, sides in enumerate(self.hierarchy.values()):
            for c in sides.get(side, ()):
                superclass[c], subclass[c] = i, n_groups
                n_groups += 1
        positions = (superclass[split.target] >= 0).nonzero()[:, 0]
        original = split.target[positions]
        target, group = superclass[original], subclass[original]
        evaluated: Tensor | None = group if side == "source" else None
        examples = ChosenExamples(split.examples, positions, target, evaluated)
        return Split(examples, target, group if side == "source" else torch.zeros_like(group), evaluated)

    def collate(self, examples: Gathered) -> Batch:
        """Make a batch as the dataset does."""
        return self.data.collate(examples)

    def scale(self, images: object) -> object:
        """Return inputs as the dataset scales them."""
        return self.data.scale(images)
