"""A table of samples: what the model writes, how it was graded, and what it was rewarded."""

import json
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from surefoot.contracts import SampledModule, module_as
from surefoot.errors import ConfigError
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("SampleTable",)


class SampleTable(Callback):
    """Appends rows to ``samples.jsonl`` in the run folder: stage, step, prompt, completion, grade, rewards.

    Rows of training come every ``every_n_steps`` optimizer steps, those of validation after each evaluation. Rows that
    a killed run wrote after its last checkpoint are dropped when it resumes.
    """

    def __init__(self, every_n_steps: int = 50, n_samples: int = 8) -> None:
        """Initialize the callback.

        Args:
            every_n_steps: Optimizer steps between tables of the rollout.
            n_samples: Rows of a table.

        Raises:
            ConfigError: If a number is not positive.
        """
        if every_n_steps < 1 or n_samples < 1:
            raise ConfigError(f"every_n_steps and n_samples must be positive, got {every_n_steps} and {n_samples}.")
        self.every_n_steps, self.n_samples = every_n_steps, n_samples
        self._last = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there are samples.

        Raises:
            ConfigError: If the method samples nothing.
        """
        module_as(pl_module, SampledModule, "SampleTable")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows of steps that are about to be taken again."""
        path = self._path(trainer)
        if trainer.is_global_zero and path.is_file():
            # Texts hold other line ends than "\n", which json leaves as they are; what follows the last "\n" is half a
            # row.
            rows = path.read_text(encoding="utf-8").split("\n")[:-1]
            kept = [r + "\n" for r in rows if _step(r) <= trainer.global_step]
            path.write_text("".join(kept), encoding="utf-8")
        self._last = trainer.global_step // self.every_n_steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write rows of the rollout when the next interval has begun."""
        interval = trainer.global_step // self.every_n_steps
        if interval > self._last:
            self._last = interval
            self._write(trainer, "train", module_as(pl_module, SampledModule, "SampleTable").rollout)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write rows of the evaluation."""
        if not trainer.sanity_checking:
            self._write(trainer, "val", module_as(pl_module, SampledModule, "SampleTable").evaluated)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write rows of the evaluation."""
        self._write(trainer, "test", module_as(pl_module, SampledModule, "SampleTable").evaluated)

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "samples.jsonl"

    def _write(self, trainer: Trainer, stage: str, trajectories: Sequence[Trajectory]) -> None:
        if not trainer.is_global_zero or not trajectories:
            return
        path = self._path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for t in trajectories[: self.n_samples]:
                row = {"stage": stage, "step": trainer.global_step, **t.as_shown()}
                row |= {"rewards": list(t.rewards), "reward_parts": t.reward_parts}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _step(row: str) -> int:
    """Return a row's step; a row that cannot be read is of no step."""
    try:
        return int(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return 2**62
