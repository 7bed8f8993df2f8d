"""What every classification dataset shares: splits, facts, sampling and loaders."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from datamodules.shifts.base import Shift
from datamodules.splits import Batch, Gathered, Split, check_split, gather
from datamodules.training_set import TrainingSet, subsample
from surefoot.classification.augmentations import Augmentation, Views
from surefoot.classification.groups import group_counts, membership
from surefoot.errors import ConfigError, DataError
from surefoot.storage.json_files import fingerprint
from surefoot.training.loading import EpochSampler, ResumableDataLoader, ShardSampler

__all__ = ("ClassificationDataModule",)


class _Subsampled(Subset[Batch]):
    """A subset that keeps its dataset's way of gathering a batch."""

    def __getitems__(self, indices: list[int]) -> Gathered:  # type: ignore[override]  # torch's is a list
        return gather(self.dataset, [self.indices[i] for i in indices])


class ClassificationDataModule(LightningDataModule, ABC):
    """A dataset with targets and groups, split into train, val and test.

    Batches are dicts: ``input (batch, ...)``, ``target (batch,)``, ``index (batch,)`` and ``group``: in training
    the training grouping's index ``(batch,)``, absent if ``training.group_labels`` is ``hidden``; in evaluation the
    evaluation grouping's index ``(batch,)`` or, where groups overlap, membership ``(batch, groups)``.

    During ``fit`` the test split is evaluated after val, under ``test/``, so that every selection rule's choice,
    the test oracle's too, can be read from one run; nothing selects on it by default. ``validate`` and ``test``
    evaluate val or test and then each of ``shifts``, made from that split or held out by the dataset itself
    (`held_out`).
    """

    n_classes: int
    group_names: list[str]
    eval_group_names: list[str]

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int | None = None,
        training: TrainingSet = TrainingSet(),
        augmentation: Augmentation | Views | None = None,
        evaluate_test_during_fit: bool = True,
        shifts: Sequence[Shift] = (),
    ) -> None:
        """Initialize the datamodule.

        Args:
            batch_size: Training examples per batch and rank.
            eval_batch_size: Evaluation examples per batch and rank.
            num_workers: Loading processes; 0 loads in the main process.
            seed: Seed of splits and order; the run's ``seed_everything`` by default, 0 outside the command line.
            training: Which examples are trained on, how they are drawn, and what is known of them.
            augmentation: What is done to training images, on the device: Flip, ShiftFlip, ResizedCropFlip, PerImage,
                Composed or Views.
            evaluate_test_during_fit: Whether the test split is evaluated along with val.
            shifts: Shifted sets that validate and test evaluate after the split: Corruption, TextPerturbation,
                OtherDataset, HeldOut.

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
        self.num_workers, self.seed, self.training = num_workers, seed or 0, training
        self.augmentation, self.augmenting = augmentation, True
        self.evaluate_test_during_fit, self.shifts = evaluate_test_during_fit, tuple(shifts)
        self.splits: dict[str, Split] = {}
        self._shifted: dict[str, dict[str, Split]] = {}  # val or test -> name -> shifted set

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
        return self.splits[self.training.split]

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
            raise DataError(f"the training split holds only class {present}; at least two are needed.")
        if missing:
            rank_zero_warn(f"classes {missing} have no training example and cannot be learnt.")

    def held_out(self, split: str) -> dict[str, Split]:
        """Return sets of another distribution that the dataset itself holds out, for val or test; none by default."""
        return {}

    def shifted(self, split: str) -> dict[str, Split]:
        """Return the shifted sets by name, which are evaluated after a split (val or test).

        Raises:
            ConfigError: If two sets have one name.
        """
        if split not in self._shifted:
            sets: dict[str, Split] = {}
            for shift in self.shifts:
                for name, made in shift.sets(self, split).items():
                    if name in sets or name in self.splits:
                        raise ConfigError(f"two evaluated sets are called {name!r}.")
                    sets[name] = made
            self._shifted[split] = sets
        return self._shifted[split]

    def draw_weights(self) -> Tensor | None:
        """Return how often each training example is drawn, relative to others, ``(examples,)``; none if all alike."""
        if self.training.sampling == "uniform":
            return None
        key, counts = self._sampling_key()
        if self.training.balanced:
            return (1 / counts.double())[key]
        weights = torch.zeros(len(key), dtype=torch.float64)
        weights[subsample(key, counts, self.seed)] = 1
        return weights

    def _sampling_key(self) -> tuple[Tensor, Tensor]:
        """Return what sampling balances, class or group per example, and how many examples each has."""
        if self.training.by_class:
            return self.train_set.target, group_counts(self.train_set.target, self.n_classes)
        return self.train_set.group, group_counts(self.train_set.group, self.n_groups)

    def train_group_counts(self) -> Tensor:
        """Return the number of training examples per group of the training grouping, ``(groups,)``."""
        return group_counts(self.train_set.group, self.n_groups)

    def train_eval_group_shares(self) -> Tensor:
        """Return the share of the train split in each group of the evaluation grouping, ``(groups,)``."""
        group = self.splits["train"].eval_group
        assert group is not None
        return membership(group, self.n_eval_groups).double().mean(0)

    def train_annotations(self) -> dict[str, Tensor]:
        """Return what is known of the training examples beyond the batches, for monitors; never for training.

        Returns:
            ``group (examples,)``; ``minority (examples,)``, True outside the largest group of the example's class
            unless the dataset marks its own minority; further flags of the dataset, such as ``noisy``.
        """
        split, counts = self.train_set, self.train_group_counts()
        minority = torch.zeros(len(split.target), dtype=torch.bool)
        for label in split.target.unique():
            members = split.target == label
            minority |= members & (counts[split.group] < counts[split.group[members]].max())
        return {"group": split.group, "minority": minority, **split.annotations}

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader.

        Raises:
            ConfigError: If ``training.drop_last`` leaves no batch.
        """
        split = self.train_set
        examples: Dataset[Batch] = split.examples
        weights = None
        if self.training.balanced:
            weights = self.draw_weights()
        elif self.training.subsampled:
            examples = _Subsampled(split.examples, subsample(*self._sampling_key(), self.seed))
        return self.loader_of(examples, self.collate_training, weights)

    def loader_of(
        self, examples: Dataset[Batch], collate: Callable[[Gathered], Batch], weights: Tensor | None = None
    ) -> ResumableDataLoader:
        """Return a training loader of a pass over examples, in this datamodule's batch size and order.

        Args:
            examples: What is trained on.
            collate: Makes a batch of several.
            weights: Sampling weight per example, or none to shuffle.

        Raises:
            ConfigError: If ``training.drop_last`` leaves no batch.
        """
        sampler = EpochSampler(examples, self.seed, weights)  # type: ignore[arg-type]
        if self.training.drop_last and len(sampler) < self.batch_size:
            raise ConfigError(
                f"training.drop_last leaves no batch: a rank has {len(sampler)} training examples and batch_size is"
                f" {self.batch_size}."
            )
        return ResumableDataLoader(
            examples,
            sampler,
            batch_size=self.batch_size,
            drop_last=self.training.drop_last,
            collate_fn=collate,
            **self._loading(),
        )

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    def collate(self, examples: Gathered) -> Batch:
        """Make a batch of examples; datasets in memory return whole batches already."""
        batch: Batch = examples if isinstance(examples, dict) else default_collate(examples)
        return batch

    def collate_training(self, examples: Gathered) -> Batch:
        """Make a training batch: the training grouping in place of the evaluation grouping, or no groups."""
        batch = self.collate(examples)
        if self.training.group_labels == "hidden":
            batch.pop("group")
        else:
            batch["group"] = self.train_set.group[batch["index"]]
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment images that are trained on, then bring all to the scale of the network; on the device.

        Raises:
            ConfigError: If there are several draws of each image where one is needed.
        """
        inputs = {"input": batch["input"]}
        if self.augmentation is not None and self.augmenting and self.is_training():
            made = self.augmentation(batch["input"])
            inputs = made if isinstance(made, dict) else {"input": made}
            if "input" in inputs and inputs["input"].ndim != batch["input"].ndim:
                raise ConfigError(
                    "input is one image per example, got several draws of each: put Repeated in Views, under a name of"
                    " its own."
                )
        rest = {name: value for name, value in batch.items() if name != "input"}
        return {name: self.scale(value) for name, value in inputs.items()} | rest

    def is_training(self) -> bool:
        """Return whether batches that arrive now are trained on."""
        return self.trainer is not None and self.trainer.training

    def scale(self, images: Any) -> object:
        """Return inputs as the network takes them, images ``(..., channels, height, width)``; unchanged by default."""
        return images

    def evaluation_set(self, stage: str, name: str) -> Split:
        """Return a set that ``fit``, ``validate`` or ``test`` evaluates, by the name that `evaluated` gives it."""
        if name in self.splits:
            return self.splits[name]
        return self.shifted("test" if stage == "test" else "val")[name]

    def evaluation_loader(self, split: Split) -> DataLoader[Batch]:
        """Return a loader of this rank's share of a split, in order and without augmentation."""
        examples = split.examples
        return DataLoader(
            examples,
            batch_size=self.eval_batch_size,
            sampler=ShardSampler(examples),  # type: ignore[arg-type]
            generator=torch.Generator(),
            collate_fn=self.collate,
            **self._loading(),
        )

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each split's targets and groups, for the record of a run."""
        return {
            name: fingerprint({"target": s.target.tolist(), "group": s.group.tolist()})
            for name, s in self.splits.items()
        }

    def evaluated(self, stage: str) -> list[str]:
        """Return the names of the sets that ``validate``, ``fit`` and ``test`` evaluate, in order."""
        if stage == "fit":
            return ["val", "test"] if self.evaluate_test_during_fit else ["val"]
        split = "test" if stage == "test" else "val"
        return [split, *self.shifted(split)]

    def _evaluation_loaders(self, stage: str) -> list[DataLoader[Batch]]:
        return [self.evaluation_loader(self.evaluation_set(stage, n)) for n in self.evaluated(stage)]

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Return the loaders of val and, during fit, test; during validate, of val and its shifted sets."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return self._evaluation_loaders("fit" if fitting else "validate")

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Return the loaders of test and its shifted sets."""
        return self._evaluation_loaders("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test loader."""
        return self.evaluation_loader(self.splits["test"])

    def train_examples(self) -> Iterator[Batch]:
        """Yield this rank's share of the training examples once, in order, on its device, without augmentation."""
        assert self.trainer is not None
        self.augmenting = False
        try:
            for batch in self.evaluation_loader(self.train_set):
                yield self.trainer.strategy.batch_to_device(batch)
        finally:
            self.augmenting = True
