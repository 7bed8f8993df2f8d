"""Completions with values of their steps to fine-tune a policy on, right and wrong ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.reasoning.completions import StoredRecordsDataModule
from surefoot.errors import DataError
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import check_labels, single_prover
from surefoot.training.loading import ResumableDataLoader

__all__ = ("LabelledTrajectoriesDataModule",)


class LabelledTrajectoriesDataModule(StoredRecordsDataModule):
    """All completions of a dataset that ``surefoot label`` wrote, as often as they were sampled.

    Batches: ``trajectory`` (list of `Trajectory`), their ``prompt`` and ``completion`` (lists of token ids, as in
    `CompletionsDataModule`) and ``index (batch,)``; of problems, as theirs.
    """

    def __init__(self, completions: Path, **loading: Any) -> None:
        """Initialize the data.

        Args:
            completions: Folder that surefoot label wrote, all of it labelled by one prover.
            loading: Arguments of `StoredRecordsDataModule`.
        """
        super().__init__(**loading)
        self.completions = Path(completions)
        self._trajectories: list[Trajectory] = []

    def trajectories(self) -> list[Trajectory]:
        """Return the completions.

        Raises:
            DataError: If there are none, one has no values, or values are no probabilities or those of several provers.
        """
        if not self._trajectories:
            found = list(read_trajectories(self.completions))
            for i, t in enumerate(found):
                check_labels(t, f"{self.completions}, row {i + 1}")
            single_prover((t.prover for t in found), self.completions)
            if not found:
                raise DataError(f"{self.completions} holds no completions.")
            self._trajectories = found
        return self._trajectories

    @property
    def n_train(self) -> int:
        """Number of training examples."""
        return len(self.trajectories())

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.trajectories())

    def held_out(self) -> Sequence[Trajectory]:
        """Return no completions: all are trained on."""
        return ()

    def collate(self, records: Sequence[Trajectory]) -> dict[str, list[Any]]:
        """Return the batch's completions, and their token ids."""
        sequences = [t.target_sequence for t in records]
        return {
            "trajectory": list(records),
            "prompt": [s.prompt for s in sequences],
            "completion": [s.completion for s in sequences],
        }
