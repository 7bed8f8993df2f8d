"""What observers of evaluations share: which set a batch belongs to, in fit, validate and test alike."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from surefoot.compatibility.lightning import is_fast_dev_run
from surefoot.contracts import EvaluatedSets, ExampleBatch, datamodule_as
from surefoot.errors import ConfigError, DataError
from surefoot.training.distributed import sum_over_ranks

__all__ = ("EvaluationObserver", "check_seen", "logits_of")


class EvaluationObserver(Callback, ABC):
    """Sees every evaluated batch with the name of its split; the sanity check before training is left out.

    A set that was evaluated in part (``limit_val_batches``, ``limit_test_batches``) is named in one warning.
    """

    #: What is said of the numbers of such a set.
    of_a_part = "its numbers are theirs alone"

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._n_seen: dict[str, int] = {}
        self._said_in_part: set[str] = set()

    @abstractmethod
    def observe(self, trainer: Trainer, split: str, outputs: object, batch: ExampleBatch) -> None:
        """Take note of a batch and of what the module returned for it."""

    @abstractmethod
    def conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the evaluation that ends here has shown, of all its splits."""

    def splits(self, trainer: Trainer) -> list[str]:
        """Return the names of the sets under evaluation (splits and shifted sets), the same on every rank."""
        assert trainer.state.fn is not None
        stage = trainer.state.fn.value  # fit, validate or test
        return self._sets(trainer).evaluated(stage)

    def _sets(self, trainer: Trainer) -> EvaluatedSets:
        return datamodule_as(trainer, EvaluatedSets, type(self).__name__)

    def _observe(self, trainer: Trainer, dataloader_idx: int, outputs: object, batch: ExampleBatch) -> None:
        split = self.splits(trainer)[dataloader_idx]
        self._n_seen[split] = self._n_seen.get(split, 0) + len(batch["index"])
        self.observe(trainer, split, outputs, batch)

    def _conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.state.fn is not None
        stage, splits = trainer.state.fn.value, self.splits(trainer)
        seen = sum_over_ranks(torch.tensor([self._n_seen.get(s, 0) for s in splits], device=pl_module.device))
        for split, n_seen in zip(splits, seen.tolist(), strict=True):
            size = len(self._sets(trainer).evaluation_set(stage, split).target)
            if n_seen < size and split not in self._said_in_part and not is_fast_dev_run(trainer):
                self._said_in_part.add(split)
                name = type(self).__name__
                rank_zero_warn(f"{name}: {n_seen} of {size} examples of {split} were evaluated; {self.of_a_part}.")
        self._n_seen = {}
        self.conclude(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: ExampleBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Pass on a batch of val or, during fit, of test."""
        if not trainer.sanity_checking:
            self._observe(trainer, dataloader_idx, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: ExampleBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Pass on a batch of test or of a shifted set."""
        self._observe(trainer, dataloader_idx, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an evaluation of val and, during fit, of test."""
        if not trainer.sanity_checking:
            self._conclude(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an evaluation of test."""
        self._conclude(trainer, pl_module)


def check_seen(n_seen: Tensor, split: str) -> Tensor:
    """Return which examples were evaluated, ``(examples,)``.

    Args:
        n_seen: How often each was, on all ranks, ``(examples,)``.
        split: Name of the set.

    Raises:
        DataError: If one was evaluated twice, as samplers that repeat examples to even out the ranks' shares would.
    """
    if bool((n_seen > 1).any()):
        raise DataError(
            f"{int((n_seen > 1).sum())} examples of {split} were evaluated more than once: the loader's sampler repeats"
            " examples; take the datamodule's own loaders (ShardSampler)."
        )
    return n_seen > 0


def logits_of(outputs: object, observer: str) -> Tensor:
    """Return the logits ``(batch, classes)`` that a module's evaluation of a batch returned.

    Raises:
        ConfigError: If there are none; it names the observer.
    """
    if not isinstance(outputs, Mapping) or "logits" not in outputs:
        raise ConfigError(f"{observer} needs a classifier: validation_step and test_step return a dict with logits.")
    logits: Tensor = outputs["logits"]
    return logits
