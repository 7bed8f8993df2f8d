"""Problems of another datamodule with what was added to its training split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules.reasoning.loaders import RecordsDataModule
from surefoot.contracts import ProblemSource, offers
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.curation import read_curated
from surefoot.reasoning.problems import Problem
from surefoot.training.loading import ResumableDataLoader

__all__ = ("CuratedDataModule",)


class CuratedDataModule(RecordsDataModule):
    """The splits of a datamodule of problems, training problems from ``surefoot curate`` added.

    Batches: ``problem`` (list of `Problem`) and ``index (batch,)``; originals come first.
    """

    def __init__(self, data: LightningDataModule, additions: Sequence[Path] = (), **loading: Any) -> None:
        """Initialize the data.

        Args:
            data: The originals, such as ArithmeticDataModule.
            additions: Folders that surefoot curate wrote.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If the datamodule has no problems.
        """
        super().__init__(**loading)
        self.data = data
        if not offers(data, ProblemSource):
            raise ConfigError(f"{type(data).__name__} has no problems to add to.")
        self.originals: ProblemSource = data
        self.additions = [Path(a) for a in additions]
        self._train: list[Problem] = []

    def problems(self, split: str) -> Sequence[Problem]:
        """Return a split's problems.

        Raises:
            DataError: If an addition is missing, damaged, or repeats an id.
        """
        if split != "train":
            return self.originals.problems(split)
        if not self._train:
            added = [p for folder in self.additions for p in read_curated(folder)]
            self._train = [*self.originals.problems("train"), *added]
            if len({p.id for p in self._train}) < len(self._train):
                raise DataError("two training problems have one id: is an addition named twice?")
        return self._train

    @property
    def n_train(self) -> int:
        """Number of training problems."""
        return len(self.problems("train"))

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.problems("train"))

    def val_dataloader(self) -> object:
        """Return the originals' validation loader."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> object:
        """Return the originals' test loader."""
        return self.data.test_dataloader()

    def collate(self, records: Sequence[Problem]) -> dict[str, list[Problem]]:
        """Return the batch's problems."""
        return {"problem": list(records)}
