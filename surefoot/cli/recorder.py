"""What the command line adds to every run: its environment, its end, and its settings in the checkpoints."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from callbacks import ModelExporter
from datamodules import Shift
from surefoot.cli.checkpoints import LAST, LastCheckpoint
from surefoot.compatibility.lightning import callbacks_of, is_fast_dev_run, log_short_runs
from surefoot.contracts import (
    CompletedTraining,
    Fingerprints,
    LanguageModelTraining,
    NetworkModule,
    datamodule_of,
    offers,
)
from surefoot.errors import SurefootError
from surefoot.reasoning.values import LabelledTraining
from surefoot.runs import RunFolder, describe_environment, mark_latest
from surefoot.storage.files import replacing
from surefoot.storage.json_files import write_json
from surefoot.storage.manifests import WEIGHTS, write_manifest
from surefoot.training.distributed import is_sharded, whole_tensor
from surefoot.training.rebuilding import Description, describe

__all__ = ("RunRecorder",)


class RunRecorder(Callback):
    """Writes the environment and the end of a run into its folder, and its settings into its checkpoints."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any], override_optimizer: bool) -> None:
        """Initialize the recorder.

        Args:
            run: Folder to write to.
            settings: Effective settings, plain types.
            override_optimizer: Whether a resumed optimizer takes its settings from these.
        """
        self.run, self.settings, self.override_optimizer = run, dict(settings), override_optimizer
        self._handed_on = False
        self._descriptions: dict[str, Description] = {}

    @rank_zero_only
    def _write_environment(self, trainer: Trainer) -> None:
        datamodule = datamodule_of(trainer)
        data = datamodule.fingerprints() if offers(datamodule, Fingerprints) else {}
        environment = describe_environment() | {"data": data, "ranks": trainer.world_size}
        write_json(self.run.path / "environment.json", environment)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let ``latest`` point to the run: by now all ranks have read what the command names."""
        if trainer.is_global_zero:
            mark_latest(self.run)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the environment; print, and if asked set, the learning rates of a resumed run."""
        log_short_runs(trainer)
        self._write_environment(trainer)
        datamodule = datamodule_of(trainer)
        of_data = _parts(datamodule) if datamodule is not None else ()
        self._descriptions = describe([*pl_module.modules(), *of_data])
        if trainer.ckpt_path is None or not trainer.optimizers:
            return
        configured = _configured_rates(pl_module)
        for optimizer, wanted in zip(trainer.optimizers, configured, strict=False):
            for group, settings in zip(optimizer.param_groups, wanted, strict=False):
                if self.override_optimizer:
                    group.update(settings)
                note = (
                    "from the settings, as --override_optimizer says"
                    if self.override_optimizer
                    else f"restored from the checkpoint; settings say {settings['lr']},"
                    " which --override_optimizer true would take"
                    if group["lr"] != settings["lr"]
                    else "as in the settings"
                )
                rank_zero_info(f"resumed: learning rate {group['lr']} ({note})")
        if self.override_optimizer:
            for scheduler in trainer.lr_scheduler_configs:
                rates = [g["lr"] for g in scheduler.scheduler.optimizer.param_groups]
                scheduler.scheduler.base_lrs = rates

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        """Add the settings, so that a checkpoint can be evaluated without its config."""
        checkpoint["surefoot_settings"] = self.settings
        checkpoint["surefoot_inputs"] = self.run.inputs
        checkpoint["surefoot_descriptions"] = self._descriptions

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the trained weights: ``weights.safetensors``, and a language model's folder if no callback has.

        Whose labels they were trained on stands in ``labels.json``.
        """
        self._handed_on = True
        if is_fast_dev_run(trainer):
            return
        module: object = pl_module
        if not offers(module, LanguageModelTraining):
            network = module.network if offers(module, NetworkModule) else pl_module
            _write_weights(self.run.path / WEIGHTS, network.state_dict(), trainer.is_global_zero)
            return
        model = module.language_model
        beside = [n for n, part in pl_module.named_children() if part is not model and list(part.parameters())]
        tensors = {name: t for name, t in pl_module.state_dict().items() if name.split(".")[0] in beside}
        if tensors:  # such as a value head
            _write_weights(self.run.path / WEIGHTS, tensors, trainer.is_global_zero)
        if offers(module, LabelledTraining) and trainer.is_global_zero:
            module.label_source().write(self.run.path)
        exported = any(isinstance(c, ModelExporter) for c in callbacks_of(trainer))
        if not exported and (trainer.is_global_zero or is_sharded(model)):  # every rank has a part of sharded tensors
            model.save(self.run.path / "model", write=trainer.is_global_zero)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish training where a run was killed between its last checkpoint and its end."""
        if not self._handed_on and trainer.fit_loop.done:
            trainer.fit_loop.on_run_end()

    def finish(self, trainer: Trainer) -> None:
        """Mark the run as finished, unless it was interrupted or has not done what its settings say.

        Raises:
            SurefootError: If something is missing; it stands in ``unfinished.json``, too.
        """
        fast = is_fast_dev_run(trainer)
        if fast or not trainer.is_global_zero or not trainer.state.finished or trainer.interrupted:
            return
        record = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
        unfinished = self.run.path / "unfinished.json"
        missing = self._missing(trainer)
        if missing is not None:
            write_json(unfinished, record | {"missing": missing})
            raise SurefootError(f"{self.run.path} has ended and is not finished: {missing}.")
        unfinished.unlink(missing_ok=True)
        write_manifest(self.run.path, self.settings)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        write_json(self.run.path / "finished.json", record | {"metrics": metrics})

    def _missing(self, trainer: Trainer) -> str | None:
        """Return what a run whose training has ended lacks."""
        module: object = trainer.lightning_module
        if offers(module, CompletedTraining) and (missing := module.unfinished()) is not None:
            return missing
        if trainer.global_step == 0:
            return "no optimizer step was taken (see trainer.max_epochs, max_steps and limit_train_batches)"
        saves = any(isinstance(c, LastCheckpoint) for c in callbacks_of(trainer))
        if saves and not (self.run.path / "checkpoints" / LAST).exists():
            return "no step was taken after the checkpoint that it started from, so that none was written"
        return None


def _parts(data: object) -> Iterator[object]:
    """Yield what a datamodule holds, and what other datamodules in it and shifts hold."""
    for value in vars(data).values():
        several = value.values() if isinstance(value, Mapping) else value
        for part in several if isinstance(value, Mapping | list | tuple) else (value,):
            yield part
            if isinstance(part, LightningDataModule | Shift):
                yield from _parts(part)


def _write_weights(path: Path, state: Mapping[str, torch.Tensor], write: bool) -> None:
    """Write tensors under their names; where they are sharded, all ranks have to call this."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        tensors[name] = whole_tensor(tensor).to("cpu").contiguous().clone()  # tied ones are written twice
    if not write:
        return
    with replacing(path) as partial:
        save_file(tensors, partial)


def _configured_rates(pl_module: LightningModule) -> list[list[dict[str, object]]]:
    """Return what fresh optimizers would be set to, per optimizer and parameter group; nothing where there is none."""
    fresh: Any = pl_module.configure_optimizers()
    if fresh is None:  # nothing is trained by an optimizer
        return []
    optimizers = fresh[0] if isinstance(fresh, tuple) else [fresh]
    return [
        [{k: v for k, v in g.items() if k not in ("params", "initial_lr")} for g in o.param_groups] for o in optimizers
    ]
