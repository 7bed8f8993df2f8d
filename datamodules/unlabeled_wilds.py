"""WILDS' unlabeled examples, as a stream beside labelled ones."""

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from datamodules.splits import Batch
from datamodules.wilds import WILDSDataModule
from surefoot.training.loading import ResumableDataLoader

__all__ = ("UnlabeledWILDSDataModule",)


class UnlabeledWILDSDataModule(LightningDataModule):
    """An unlabeled split of a WILDS dataset: training batches of ``input (batch, ...)`` and ``index (batch,)``.

    For a stream of `TwoStreamDataModule`; there is nothing to evaluate.

    Reference: Sagawa et al., ICLR 2022, arXiv 2112.05090.
    """

    def __init__(self, data: WILDSDataModule, split: str) -> None:
        """Initialize the stream.

        Args:
            data: The dataset; batch size, seed, augmentation, images' size and tokenizer are those given to it.
            split: For example ``train_unlabeled``, ``val_unlabeled``, ``test_unlabeled`` or ``extra_unlabeled``.
        """
        super().__init__()
        self.data, self.split = data, split
        self.examples: Dataset[Batch] | None = None

    def prepare_data(self) -> None:
        """Download the unlabeled part if that was asked for."""
        self.data.prepare_data(unlabeled=True)

    def setup(self, stage: str) -> None:
        """Open the split, for training."""
        self.data.trainer = self.trainer
        if stage == "fit" and self.examples is None:
            self.examples = self.data.unlabeled_examples(self.split)

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of a pass."""
        assert self.examples is not None
        return self.data.loader_of(self.examples, self.data.collate)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment and scale as the dataset does; on the device."""
        changed: Batch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        return changed

    def fingerprints(self) -> dict[str, str]:
        """Return what of the dataset is read, for the record of a run."""
        n_examples = 0 if self.examples is None else len(self.examples)  # type: ignore[arg-type]
        return {self.split: f"{n_examples} examples"}
