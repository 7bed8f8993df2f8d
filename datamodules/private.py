"""What datasets of private linear models share: Poisson-sampled steps, and public data beside the private ones."""

from abc import ABC, abstractmethod

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.splits import Batch, TensorExamples
from surefoot.errors import ConfigError
from surefoot.privacy.estimators import PublicData
from surefoot.privacy.linear_models import check_finite_examples
from surefoot.privacy.noise import NoiseSource
from surefoot.privacy.sampling import PoissonBatches
from surefoot.training.loading import ResumableDataLoader, ShardSampler, StepSampler

__all__ = ("PrivateDataModule",)


class PrivateDataModule(LightningDataModule, ABC):
    """Private examples in memory, ``input (batch, features)``, ``target`` and ``index (batch,)``, and public data.

    A training step sees each private example with probability ``sampling_rate``, by itself: batches differ in size and
    may be empty.
    """

    n_classes: int | None = None

    def __init__(
        self,
        source: NoiseSource,
        sampling_rate: float = 1.0,
        steps_per_epoch: int = 100,
        eval_batch_size: int = 4096,
        seed: int | None = None,
    ) -> None:
        """Initialize the data.

        Args:
            source: Where the samples come from: SeededNoise to repeat an experiment, SecureNoise to publish a model.
            sampling_rate: Chance of each private example to be in a step; 1 takes all of them.
            steps_per_epoch: Steps of an epoch.
            eval_batch_size: Evaluation examples per batch and rank.
            seed: Seed of data that are drawn or split; the run's ``seed_everything`` by default, 0 outside the command
                line.

        Raises:
            ConfigError: If a number is out of range.
        """
        super().__init__()
        if not 0 < sampling_rate <= 1 or steps_per_epoch < 1 or eval_batch_size < 1:
            raise ConfigError(
                "sampling_rate must be in (0, 1], steps_per_epoch and eval_batch_size at least 1,"
                f" got {sampling_rate}, {steps_per_epoch} and {eval_batch_size}."
            )
        self.source, self.sampling_rate = source, sampling_rate
        self.steps_per_epoch, self.eval_batch_size = steps_per_epoch, eval_batch_size
        self.seed = seed or 0
        self.splits: dict[str, TensorExamples] = {}

    @abstractmethod
    def build(self) -> dict[str, TensorExamples]:
        """Return the private splits ``train``, ``val`` and ``test``."""

    @abstractmethod
    def public(self) -> PublicData:
        """Return the public data; valid after `setup`."""

    def setup(self, stage: str) -> None:
        """Build the splits once.

        Raises:
            DataError: If an input or target is NaN or infinite. The message is for the holder of the data: its count is
                not private.
        """
        if not self.splits:
            self.splits = self.build()
            check_finite_examples(self.public()._asdict(), "the public data")
            for name, examples in self.splits.items():
                check_finite_examples(examples.tensors, f"split {name!r}")

    @property
    def n_train(self) -> int:
        """Number of private training examples, which is taken to be public."""
        return len(self.splits["train"])

    @property
    def n_features(self) -> int:
        """Length of an input."""
        return int(self.splits["train"].tensors["input"].shape[1])

    def fingerprints(self) -> dict[str, str]:
        """Return nothing that depends on private examples, for the record of a run: a hash of them is not private."""
        return {"private": "not recorded: a hash of private examples would not be private"}

    def evaluated(self, stage: str) -> list[str]:
        """Return the names of the splits that a stage evaluates."""
        return ["test"] if stage == "test" else ["val"]

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of Poisson-sampled steps."""
        batches = PoissonBatches(self.splits["train"], self.sampling_rate, self.source)
        return ResumableDataLoader(batches, StepSampler(self.steps_per_epoch), batch_size=None)

    def _loader(self, split: str) -> DataLoader[Batch]:
        examples = self.splits[split]
        return DataLoader(
            examples,
            batch_size=self.eval_batch_size,
            sampler=ShardSampler(examples),
            collate_fn=lambda batch: batch,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of val."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of test."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of test."""
        return self._loader("test")
