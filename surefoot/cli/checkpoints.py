"""Checkpoints that survive a kill and a full disk: written under another name, flushed, renamed; one more is kept."""

import contextlib
import errno
import json
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from surefoot.errors import ConfigError, SurefootError
from surefoot.storage.files import move, partial_path, replacing
from surefoot.training.weights import read_checkpoint

__all__ = (
    "LAST",
    "PREVIOUS",
    "DurableTrainer",
    "LastCheckpoint",
    "check_checkpoint_path",
    "damage",
    "is_full",
    "metadata",
    "recover",
)

#: The checkpoint to go on from, and the one before it.
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
#: In a checkpoint that is a folder: its files' sizes in bytes.
_SIZES = "sizes.json"


class _Watched:
    """A file that keeps the first failure of a write: torch reports another error instead, or none."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return self.file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self.error is None:
            self.file.flush()


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a given path, without a copy in memory or in the system's temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If it cannot be written.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            watched = _Watched(file)
            torch.save(checkpoint, cast(IO[bytes], watched))
            if watched.error is not None:
                raise watched.error


class DurableTrainer(Trainer):
    """Lightning's trainer; its checkpoints, files and folders alike, are whole or not there."""

    def save_checkpoint(
        self,
        filepath: str | Path,
        weights_only: bool | None = None,
        storage_options: object = None,
    ) -> None:
        """Write a checkpoint to another name, flush it and rename it; of ``last.ckpt`` keep the one before.

        Raises:
            OSError: If it cannot be written, with its path; the one before is still there.
        """
        given, weights_only = str(self.strategy.broadcast(filepath)), bool(weights_only)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = DurableCheckpointIO()
        if "://" in given or not isinstance(self.strategy.checkpoint_io, DurableCheckpointIO):
            super().save_checkpoint(filepath, weights_only, storage_options)
            return
        path = Path(given)
        with contextlib.ExitStack() as whole:
            if self.is_global_zero:
                path.parent.mkdir(parents=True, exist_ok=True)
                keep = path.with_name(PREVIOUS) if path.name == LAST else None
                whole.enter_context(replacing(path, keep))
            self.strategy.barrier()
            super().save_checkpoint(partial_path(path), weights_only, storage_options)
            if self.is_global_zero:
                _note_sizes(partial_path(path))
        self.strategy.barrier()


class LastCheckpoint(ModelCheckpoint):
    """The checkpoint to go on from: every so many steps or every epoch, and always when training ends."""

    def __init__(self, folder: Path, every_n_steps: int | None) -> None:
        """Initialize the callback.

        Args:
            folder: Where to.
            every_n_steps: Optimizer steps between two; an epoch by default.
        """
        super().__init__(
            dirpath=folder,
            filename=LAST.removesuffix(".ckpt"),
            every_n_train_steps=every_n_steps,
            every_n_epochs=None if every_n_steps else 1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know that the state which a run goes on from is written already."""
        if Path(str(trainer.ckpt_path)).resolve() == Path(str(self.dirpath)).resolve() / LAST:
            self._last_global_step_saved = checkpoint["global_step"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final state, unless the last step's is there."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def _note_sizes(path: Path) -> None:
    """Write into a checkpoint that is a folder what belongs to it."""
    if path.is_dir():
        sizes = {p.name: p.stat().st_size for p in path.iterdir()}
        (path / _SIZES).write_text(json.dumps(sizes))


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint of `DurableTrainer`, none if all of it is there.

    Args:
        path: File, which is read whole (its checksums are compared), or folder, whose files' sizes are looked at.
    """
    try:
        if path.is_dir():
            sizes = json.loads((path / _SIZES).read_text())
            wrong = [n for n, size in sizes.items() if (path / n).stat().st_size != size]
            return f"{wrong[0]} has another size" if wrong else None
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
        return None if broken is None else f"the checksum of {broken} is another"
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    except (ValueError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        return str(error) or type(error).__name__


def check_checkpoint_path(path: Path) -> None:
    """Raise if a path is a folder and no checkpoint of sharded weights, such as a run folder.

    Raises:
        ConfigError: If it is, naming the checkpoint that lies in it if one does.
    """
    if not path.is_dir() or (path / "meta.pt").is_file():
        return
    inside = next((p for p in (path / "checkpoints" / LAST, path / LAST) if p.exists()), None)
    hint = f"give {inside}" if inside else "give the file that a run wrote, such as RUN/checkpoints/last.ckpt"
    raise ConfigError(f"--ckpt_path {path} is a folder and not a checkpoint: {hint}.")


def metadata(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content; of one that is a folder, all but the tensors of model and optimizer.

    Raises:
        SurefootError: If it cannot be read.
    """
    return read_checkpoint(Path(path) / "meta.pt" if Path(path).is_dir() else path, mmap=True)


def recover(folder: Path) -> Path | None:
    """Return the checkpoint to go on from; in place of a damaged or missing one the one before it, which is said.

    Args:
        folder: Folder of a run's checkpoints, which no other process writes to.

    Returns:
        The path, none if there is no checkpoint.

    Raises:
        SurefootError: If there are checkpoints and none is whole.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.exists() and not previous.exists():
        return None
    wrong = damage(last) if last.exists() else "it is missing"
    if wrong is None:
        return last
    if not previous.exists() or damage(previous) is not None:
        raise SurefootError(
            f"checkpoint {last} cannot be read ({wrong}), and there is no whole one before it: --fresh true starts a"
            " new run."
        )
    step = metadata(previous)["global_step"]
    rank_zero_info(f"{last} is damaged ({wrong}): going on from the one before it, of optimizer step {step}")
    move(previous, last)
    return last


def is_full(error: OSError) -> bool:
    """Return whether an error says that a disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
