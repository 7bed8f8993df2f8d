"""The training examples of two datasets side by side: labelled and unlabelled ones, or those of two tasks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.classification import ClassificationDataModule
from datamodules.splits import Batch, Gathered, Split
from surefoot.contracts import Fingerprints, OfficialScores, contract_of, offers
from surefoot.errors import ConfigError
from surefoot.training.loading import EpochSampler, ResumableDataLoader
from surefoot.training.streams import StreamsLoader

__all__ = ("TwoStreamDataModule",)

#: What an unlabelled example is known by.
_UNLABELLED = ("input", "index")


class TwoStreamDataModule(LightningDataModule):
    """A training batch holds one batch of each of two datasets, under their names.

    Each stream has the sampling, the batch size, the augmentation and the order of its datamodule. An epoch is one pass
    over one of them, the one with more batches by default; the other starts its next pass when it has ended one, and
    continues across epochs: each of its examples is seen once a pass, in batches that are all whole. ``validate``,
    ``test``, ``predict`` and the evaluation during ``fit`` are those of one of them, with batches as it has them.
    """

    def __init__(
        self,
        streams: Mapping[str, LightningDataModule],
        without_targets: Sequence[str] = (),
        evaluate: str | None = None,
        epoch_of: str | None = None,
    ) -> None:
        """Initialize the streams.

        Args:
            streams: The two datamodules by the names of their batches, such as ``labelled`` and ``unlabelled``:
                classification datamodules, or `UnlabeledWILDSDataModule`. What models ask for (numbers of classes and
                groups) is the first one's.
            without_targets: Streams whose training batches hold inputs and indices alone: neither targets nor groups.
            evaluate: Stream whose val and test are evaluated; the first by default.
            epoch_of: Stream of which an epoch is one pass; by default the one with more batches, the first of two that
                have as many.

        Raises:
            ConfigError: If there are not two streams, or a name is unknown or one of a batch's entries.
        """
        super().__init__()
        names = list(streams)
        if len(names) != 2 or {"input", "target", "group", "index"} & set(names):
            raise ConfigError(
                "streams must be two datamodules under names of their own, such as labelled and unlabelled, got"
                f" {', '.join(names) or 'none'}."
            )
        for key, given in (
            ("without_targets", without_targets),
            ("evaluate", [evaluate or names[0]]),
            ("epoch_of", [epoch_of or names[0]]),
        ):
            if not set(given) <= set(names):
                raise ConfigError(f"{key} must be of {' and '.join(names)}, got {', '.join(given)}.")
        self.streams, self.without_targets, self.epoch_of = dict(streams), tuple(without_targets), epoch_of
        self.first, self.evaluated_data = (self._classification(name) for name in (names[0], evaluate or names[0]))
        self._loader: StreamsLoader | None = None

    def _classification(self, name: str) -> ClassificationDataModule:
        data = self.streams[name]
        if not isinstance(data, ClassificationDataModule):
            raise ConfigError(
                f"{name} is a {type(data).__name__}, and the first stream and the one that is evaluated must be"
                " classification datamodules."
            )
        return data

    @property
    def n_classes(self) -> int:
        """Number of classes, of the first stream."""
        return self.first.n_classes

    @property
    def n_groups(self) -> int:
        """Number of groups of the training grouping, of the first stream."""
        return self.first.n_groups

    @property
    def n_eval_groups(self) -> int:
        """Number of groups of the evaluation grouping."""
        return self.evaluated_data.n_eval_groups

    @property
    def eval_group_names(self) -> list[str]:
        """Names of the groups of the evaluation grouping."""
        return self.evaluated_data.eval_group_names

    @property
    def splits(self) -> dict[str, Split]:
        """The splits of the evaluated stream."""
        return self.evaluated_data.splits

    def prepare_data(self) -> None:
        """Let both datasets prepare themselves."""
        for data in self.streams.values():
            data.prepare_data()

    def setup(self, stage: str) -> None:
        """Set up both datasets.

        Raises:
            ConfigError: If the evaluated one has other classes than the first.
        """
        for data in self.streams.values():
            data.trainer = self.trainer
            data.setup(stage)
        if self.evaluated_data.n_classes != self.n_classes:
            raise ConfigError(
                f"the first stream has {self.n_classes} classes and the evaluated one"
                f" {self.evaluated_data.n_classes}: evaluate a stream of the same classes."
            )
        self._loader = None

    def train_dataloader(self) -> StreamsLoader:
        """Return the loader of both streams; one that replaces another continues from its position."""
        loaders = {name: self._training_loader(name) for name in self.streams}
        longest = max(loaders, key=lambda name: len(loaders[name]))
        positions = None if self._loader is None else self._loader.positions
        self._loader = StreamsLoader(loaders, self.epoch_of or longest, positions)
        return self._loader

    def _training_loader(self, name: str) -> ResumableDataLoader:
        loader = self.streams[name].train_dataloader()
        if not isinstance(loader, ResumableDataLoader) or not isinstance(loader.sampler, EpochSampler):
            raise ConfigError(
                f"{type(self.streams[name]).__name__} cannot be a stream: its training loader is not of passes over"
                " examples that are kept in checkpoints (ResumableDataLoader, EpochSampler)."
            )
        if name in self.without_targets:
            loader.collate_fn = partial(_without_targets, loader.collate_fn)
        return loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Let each dataset augment and scale its batch; on the device."""
        if batch.keys() != self.streams.keys():  # evaluation
            evaluated: Batch = self.evaluated_data.on_after_batch_transfer(batch, dataloader_idx)
            return evaluated
        return {n: data.on_after_batch_transfer(batch[n], dataloader_idx) for n, data in self.streams.items()}

    def evaluated(self, stage: str) -> list[str]:
        """Return the names of the sets that ``validate``, ``fit`` and ``test`` evaluate, in order."""
        return self.evaluated_data.evaluated(stage)

    def evaluation_set(self, stage: str, name: str) -> Split:
        """Return a set that ``fit``, ``validate`` or ``test`` evaluates, by its name."""
        return self.evaluated_data.evaluation_set(stage, name)

    def train_eval_group_shares(self) -> Tensor:
        """Return the share of the evaluated stream's train split in each group of its evaluation, ``(groups,)``."""
        return self.evaluated_data.train_eval_group_shares()

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Return the loaders of the evaluated stream's val and, during fit, test."""
        return self.evaluated_data.val_dataloader()

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Return the loaders of the evaluated stream's test and its shifted sets."""
        return self.evaluated_data.test_dataloader()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the evaluated stream's test."""
        return self.evaluated_data.predict_dataloader()

    def official_evaluation(self, split: str, predictions: Tensor, seen: Tensor | None = None) -> Mapping[str, float]:
        """Score predictions with the evaluated dataset's own evaluator; see `WILDSDataModule`."""
        return self._scored().official_evaluation(split, predictions, seen)

    def submission_name(self, split: str) -> str:
        """Return how the evaluated dataset's benchmark calls a file of predictions."""
        return self._scored().submission_name(split)

    def _scored(self) -> OfficialScores:
        return contract_of(self.evaluated_data, OfficialScores, "OfficialEvaluation")

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each stream's splits, for the record of a run."""
        known = {name: data for name, data in self.streams.items() if offers(data, Fingerprints)}
        return {
            f"{name}/{split}": found for name, data in known.items() for split, found in data.fingerprints().items()
        }


def _without_targets(collate: Callable[..., Batch], examples: Gathered) -> Batch:
    batch = collate(examples)
    return {name: batch[name] for name in _UNLABELLED}
