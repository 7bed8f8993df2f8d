"""What every classification dataset shares: splits, facts, sampling and loaders."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from surefoot.errors import ConfigError, DataError
from surefoot.groups import group_counts, membership
from surefoot.loading import EpochSampler, ResumableDataLoader, ShardSampler
from surefoot.runs import fingerprint

__all__ = ("Batch", "ClassificationDataModule", "Split", "TensorExamples")

Batch = dict[str, Any]
Sampling = Literal[
    "uniform", "class_balanced", "group_balanced", "class_subsampled", "group_subsampled"
]


@dataclass(frozen=True)
class Split:
    """One split: its examples, and what is known of all of them without loading one."""

    examples: Dataset[Any]
    target: Tensor  # (examples,)
    group: Tensor  # group of the training grouping, (examples,)
    eval_group: (
        Tensor  # group (examples,) or membership (examples, groups) of the evaluation grouping
    )
    annotations: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # True/False per example, (examples,)


class TensorExamples(Dataset[Batch]):
    """Examples in memory; a whole batch is gathered at once."""

    def __init__(self, **tensors: Tensor) -> None:
        """Initialize the dataset from tensors of equal length."""
        self.tensors = tensors
        self.tensors["index"] = torch.arange(len(tensors["target"]))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.tensors["target"])

    def __getitem__(self, index: int) -> Batch:
        """Return one example."""
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch."""
        rows = torch.tensor(indices)
        return {name: tensor[rows] for name, tensor in self.tensors.items()}


class _Subsampled(Subset[Batch]):
    """A subset that keeps its dataset's way of gathering a batch."""

    def __getitems__(self, indices: list[int]) -> Any:
        chosen = [self.indices[i] for i in indices]
        gather = getattr(self.dataset, "__getitems__", None)
        return gather(chosen) if gather else [self.dataset[i] for i in chosen]


class ClassificationDataModule(LightningDataModule, ABC):
    """A dataset with targets and groups, split into train, val and test.

    Batches are dicts: ``input (batch, ...)``, ``target (batch,)``, ``index (batch,)`` and ``group``: in training
    the training grouping's index ``(batch,)``, absent if ``group_labels`` is ``hidden``; in evaluation the evaluation
    grouping's index ``(batch,)`` or, where groups overlap, membership ``(batch, groups)``.

    During ``fit`` the test split is evaluated after val, under ``test/``, so that every selection rule's choice,
    the test oracle's too, can be told from one run; nothing selects on it unless told to.
    """

    n_classes: int
    group_names: list[str]
    eval_group_names: list[str]

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        sampling: Sampling = "uniform",
        group_labels: Literal["given", "hidden"] = "given",
        train_split: Literal["train", "val"] = "train",
        evaluate_test_during_fit: bool = True,
        seed: int = 0,
    ) -> None:
        """Initialize the datamodule.

        Args:
            batch_size: Training examples per batch and rank.
            eval_batch_size: Evaluation examples per batch and rank.
            num_workers: Loading processes; 0 loads in the main process.
            sampling: ``uniform`` shuffles; ``class_balanced`` (RWY) and ``group_balanced`` (RWG) draw with
                replacement; ``class_subsampled`` (SUBY) and ``group_subsampled`` (SUBG) keep as many examples of each
                class or group as the smallest has.
            group_labels: ``hidden`` keeps groups out of the training batches; evaluation always has them.
            train_split: Split to train on; ``val`` is for last-layer retraining (DFR).
            evaluate_test_during_fit: Whether the test split is evaluated along with val.
            seed: Seed of splits and order.

        Raises:
            ConfigError: If a size is below one.
        """
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1 or num_workers < 0:
            raise ConfigError(
                "batch_size and eval_batch_size must be at least 1 and num_workers at least 0,"
                f" got {batch_size}, {eval_batch_size} and {num_workers}."
            )
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.sampling, self.seed = num_workers, sampling, seed
        self.group_labels, self.train_split = group_labels, train_split
        self.evaluate_test_during_fit = evaluate_test_during_fit
        self.augmenting = True
        self.splits: dict[str, Split] = {}

    @abstractmethod
    def build(self) -> dict[str, Split]:
        """Read and return the splits ``train``, ``val`` and ``test``."""

    @property
    def n_groups(self) -> int:
        """Number of groups of the training grouping."""
        return len(self.group_names)

    @property
    def n_eval_groups(self) -> int:
        """Number of groups of the evaluation grouping."""
        return len(self.eval_group_names)

    @property
    def train_set(self) -> Split:
        """The split trained on."""
        return self.splits[self.train_split]

    @property
    def n_train(self) -> int:
        """Number of examples of the split trained on; example ids are below it."""
        return len(self.train_set.target)

    def setup(self, stage: str) -> None:
        """Build the splits once and check their targets and groups."""
        if self.splits:
            return
        self.splits = self.build()
        for name, split in self.splits.items():
            check_split(name, split, self.n_classes, self.n_groups)
        present = set(self.train_set.target.tolist())
        missing = sorted(set(range(self.n_classes)) - present)
        if len(present) < 2:
            raise DataError(
                f"the training split holds only class {present}; at least two are needed."
            )
        if missing:
            rank_zero_warn(f"classes {missing} have no training example and cannot be learnt.")

    def train_group_counts(self) -> Tensor:
        """Return the number of training examples per group of the training grouping, ``(groups,)``."""
        return group_counts(self.train_set.group, self.n_groups)

    def train_eval_group_shares(self) -> Tensor:
        """Return the share of the train split in each group of the evaluation grouping, ``(groups,)``."""
        return membership(self.splits["train"].eval_group, self.n_eval_groups).double().mean(0)

    def train_annotations(self) -> dict[str, Tensor]:
        """Return what is known of the training examples beyond the batches, for monitors; never for training.

        Returns:
            ``group (examples,)``; ``minority (examples,)``, True outside the largest group of the example's class
            unless the dataset knows better; further flags of the dataset, such as ``noisy``.
        """
        split, counts = self.train_set, self.train_group_counts()
        minority = torch.zeros(len(split.target), dtype=torch.bool)
        for label in split.target.unique():
            members = split.target == label
            minority |= members & (counts[split.group] < counts[split.group[members]].max())
        return {"group": split.group, "minority": minority, **split.annotations}

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        split = self.train_set
        examples: Dataset[Any] = split.examples
        weights = None
        if self.sampling != "uniform":
            by_class = self.sampling.startswith("class")
            key = split.target if by_class else split.group
            counts = group_counts(key, self.n_classes if by_class else self.n_groups)
            if self.sampling.endswith("balanced"):
                weights = (1 / counts.double())[key]
            else:
                examples = _Subsampled(split.examples, subsample(key, counts, self.seed))
        sampler = EpochSampler(examples, self.seed, weights)  # type: ignore[arg-type]
        return ResumableDataLoader(
            examples, sampler, batch_size=self.batch_size, **self._loading(training=True)
        )

    def _loading(self, training: bool) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": self.collate_training if training else self.collate,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    def collate(self, examples: Any) -> Batch:
        """Make a batch of examples; datasets in memory hand over whole batches."""
        batch: Batch = examples if isinstance(examples, dict) else default_collate(examples)
        return batch

    def collate_training(self, examples: Any) -> Batch:
        """Make a training batch: the training grouping in place of the evaluation grouping, or no groups."""
        batch = self.collate(examples)
        if self.group_labels == "hidden":
            batch.pop("group")
        else:
            batch["group"] = self.train_set.group[batch["index"]]
        return batch

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        examples = self.splits[split].examples
        return DataLoader(
            examples,
            batch_size=self.eval_batch_size,
            sampler=ShardSampler(examples),  # type: ignore[arg-type]
            generator=torch.Generator(),
            **self._loading(training=False),
        )

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each split's targets and groups, for the record of a run."""
        return {
            name: fingerprint({"target": s.target.tolist(), "group": s.group.tolist()})
            for name, s in self.splits.items()
        }

    def evaluated(self, stage: str) -> list[str]:
        """Return the names of the splits that ``validate`` (val), ``fit`` and ``test`` evaluate, in order."""
        if stage == "test":
            return ["test"]
        return ["val", "test"] if stage == "fit" and self.evaluate_test_during_fit else ["val"]

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return the loaders of val and, during fit, test."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return [
            self._evaluation_loader(s) for s in self.evaluated("fit" if fitting else "validate")
        ]

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return self._evaluation_loader("test")

    def train_examples(self) -> Iterator[Batch]:
        """Yield this rank's share of the training examples once, in order, on its device, without augmentation."""
        assert self.trainer is not None
        self.augmenting = False
        try:
            for batch in self._evaluation_loader(self.train_split):
                yield self.trainer.strategy.batch_to_device(batch)
        finally:
            self.augmenting = True


def subsample(key: Tensor, counts: Tensor, seed: int) -> list[int]:
    """Return as many indices of each value of ``key (examples,)`` as its rarest value has."""
    generator = torch.Generator().manual_seed(seed)
    size = int(counts[counts > 0].min())
    chosen = []
    for value in counts.nonzero()[:, 0]:
        members = (key == value).nonzero()[:, 0]
        chosen.append(members[torch.randperm(len(members), generator=generator)[:size]])
    return torch.cat(chosen).sort().values.tolist()


def check_split(name: str, split: Split, n_classes: int, n_groups: int) -> None:
    """Raise a `DataError` if the split is empty, or a target or group lies outside its range."""
    if len(split.target) == 0:
        raise DataError(f"the split {name!r} is empty.")
    for kind, values, n in (("target", split.target, n_classes), ("group", split.group, n_groups)):
        outside = ((values < 0) | (values >= n)).nonzero()[:, 0]
        if len(outside):
            first = int(outside[0])
            raise DataError(
                f"{kind} {int(values[first])} of example {first} in split {name!r} is outside [0, {n})."
            )
