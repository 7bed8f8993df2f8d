"""Loaders over records of text: what problems, completions and preferences share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from surefoot.errors import ConfigError
from surefoot.storage.json_files import fingerprint
from surefoot.training.loading import EpochSampler, ResumableDataLoader, ShardSampler

__all__ = ("RecordLoader", "RecordLoaders", "RecordsDataModule")

#: Gives a batch after the other of records with their positions.
RecordLoader = DataLoader[tuple[int, object]]
#: Loaders of an evaluation: one, or several one after the other, or none.
RecordLoaders = RecordLoader | list[RecordLoader]


class _Records(Sized, Protocol):
    def __getitem__(self, index: int) -> object: ...


class _Numbered(Dataset[tuple[int, object]]):
    """Records with their positions."""

    def __init__(self, records: _Records) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[int, object]:
        return index, self.records[index]


class RecordsDataModule(LightningDataModule, ABC):
    """Deterministic, resumable batches of records; nothing is tokenised here."""

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        """Initialize the loading.

        Args:
            batch_size: Records of a training batch on each rank.
            eval_batch_size: Records of an evaluation batch on each rank.
            num_workers: Loading processes.
            seed: Seed of the splits and of the training order; the run's ``seed_everything`` by default, 0 outside the
                command line.

        Raises:
            ConfigError: If a batch size is not positive.
        """
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise ConfigError(f"batch sizes must be positive, got {batch_size} and {eval_batch_size}.")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed or 0

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each split's records, for the record of a run."""
        return {name: fingerprint({"records": list(s)}) for name, s in self.recorded_splits().items()}

    def recorded_splits(self) -> Mapping[str, Sequence[object]]:
        """Return the splits whose hashes stand in the record of a run; none where other files are recorded for them."""
        return {}

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> object:
        """Leave the batch where it is: it holds text and token ids, not tensors of numbers."""
        return batch

    def training_loader(self, records: _Records) -> ResumableDataLoader:
        """Return the shuffled loader; its position is in every checkpoint."""
        dataset = _Numbered(records)
        return ResumableDataLoader(
            dataset,
            EpochSampler(dataset, self.seed),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=self._collate,
        )

    def evaluation_loader(self, records: _Records) -> RecordLoader:
        """Return a loader that gives every record once, in order."""
        dataset = _Numbered(records)
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=ShardSampler(dataset),
            num_workers=self.num_workers,
            collate_fn=self._collate,
            generator=torch.Generator(),
        )

    def predict_dataloader(self) -> RecordLoaders:
        """Return the test loader."""
        loaders: RecordLoaders = self.test_dataloader()
        return loaders

    def _collate(self, numbered: Sequence[tuple[int, object]]) -> dict[str, object]:
        index = torch.tensor([i for i, _ in numbered])
        return {**self.collate([r for _, r in numbered]), "index": index}

    @abstractmethod
    def collate(self, records: Sequence[Any]) -> Mapping[str, object]:
        """Return a batch's fields but for ``index``."""
