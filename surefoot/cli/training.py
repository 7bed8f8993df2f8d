"""The verbs fit, validate, test, predict: LightningCLI with run folders, facts from data to model, safe resumption."""

import contextlib
import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

# Imported so that configs may name a class without its module path.
import callbacks
import datamodules
import lightning_modules
from surefoot.cli import RUN_VARIABLE
from surefoot.cli.checkpoints import (
    LAST,
    PREVIOUS,
    DurableTrainer,
    LastCheckpoint,
    is_full,
    metadata,
    recover,
)
from surefoot.cli.predictions import PredictionWriter
from surefoot.cli.recorder import RunRecorder
from surefoot.cli.result_lines import result_lines
from surefoot.cli.safe_stop import SafeStop, SavingStop
from surefoot.cli.settings import (
    check_yaml,
    differences,
    fill_seeds,
    flag_values,
    plain_message,
    stored_descriptions,
    stored_inputs,
    stored_settings,
)
from surefoot.compatibility.lightning import (
    QuietModelSummary,
    QuietProgressBar,
    quiet_screen,
    tell_batches_from_shares,
)
from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import die_with_parent
from surefoot.runs import Run, await_run, list_runs, mark_latest, open_run
from surefoot.storage.contents import contents_read, differing_contents
from surefoot.storage.files import remove_partials
from surefoot.storage.locks import hold
from surefoot.storage.manifests import WEIGHTS
from surefoot.training.rebuilding import check_weights, descriptions, weights_follow
from surefoot.training.weights import read_checkpoint

__all__ = (
    "SurefootCLI",
    "build_datamodule",
    "callbacks",
    "datamodules",
    "lightning_modules",
    "load_module",
    "run_trainer",
)

#: Facts of the data that a model needs, filled in wherever the model has such an argument.
FACTS = ("n_classes", "n_groups")
#: Settings that say where and how to run, not what; they do not tell runs apart.
_NOT_IDENTITY = (
    "config",
    "ckpt_path",
    "weights_only",
    "runs_root",
    "experiment",
    "fresh",
    "override_optimizer",
)
#: Values of --ckpt_path that name no file.
_LIGHTNINGS_PATHS = ("last", "best", "hpc", "registry")


class _Parser(LightningArgumentParser):
    """Errors become one line, without a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        if not self.exit_on_error:
            return super().error(message, ex)
        if message.startswith("the following arguments are required"):
            message += ": give --config FILE.yaml, or --ckpt_path of a Surefoot run"
        raise ConfigError(plain_message(message)) from ex


class _RunFinished(Exception):
    """The run of these settings has ended well before; nothing is left to do."""

    def __init__(self, run: Run) -> None:
        self.run = run


class SurefootCLI(LightningCLI):
    """LightningCLI in subclass mode; `STYLE` traps 1 to 6 are dealt with here and tested."""

    run: Run
    recorder: RunRecorder

    def __init__(self, held: contextlib.ExitStack, **settings: Any) -> None:
        """Parse, build and run.

        Args:
            held: Lets go of the run folder in the end.
            settings: Arguments of LightningCLI.
        """
        self.held = held
        super().__init__(**settings)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser whose errors are one line."""
        self.parser_class = _Parser
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to a run rather than to a model, its data or the trainer."""
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Name of the experiment; by default the config's.",
        )
        parser.add_argument("--runs_root", type=Path, default=Path("runs"), help="Folder of all run folders.")
        parser.add_argument(
            "--fresh",
            type=bool,
            default=False,
            help="Start a new run even if these settings have one.",
        )
        parser.add_argument(
            "--checkpoint_every_n_steps",
            type=int | None,
            default=None,
            help="Optimizer steps between checkpoints to resume from; every epoch by default.",
        )
        parser.add_argument(
            "--override_optimizer",
            type=bool,
            default=False,
            help="On resume, take learning rate and the like from the settings, not from the checkpoint.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a checkpoint's model, data and callbacks fill in what neither configs nor flags say."""
        arguments = list(args)
        verb = arguments[0]
        self.config_files = flag_values(arguments, "--config", "-c")
        for config in self.config_files:
            check_yaml(Path(config))
        path = next(iter(flag_values(arguments, "--ckpt_path")), None)
        stored = None
        if path is not None and path.split(":")[0] not in _LIGHTNINGS_PATHS and "://" not in path:
            if not Path(path).exists():
                raise ConfigError(f"checkpoint {path} does not exist.")
            stored = stored_settings(path)
            if stored is None and not self.config_files:
                raise ConfigError(
                    f"checkpoint {path} was not written by surefoot fit and holds no settings: give --config FILE.yaml"
                    " too."
                )
        if stored is None:
            self.config = parser.parse_args(arguments)
            return
        base = {k: stored[k] for k in ("model", "data") if k in stored}
        observers = {"trainer": {"callbacks": stored.get("trainer", {}).get("callbacks")}}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(base | observers, file)
            file.flush()
            self.config = parser.parse_args([verb, "--config", file.name, *arguments[1:]])
        now = yaml.safe_load(parser.dump(self.config, skip_none=False))[verb]
        for key, was, is_now in differences(base, {k: now[k] for k in base}):
            rank_zero_info(f"resumed: {key} was {was} in the checkpoint and is now {is_now}")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` has let the checkpoint's settings in, with the lowest priority."""

    def before_instantiate_classes(self) -> None:
        """Carry facts from data to model, then open the run folder."""
        config = self.config[self.subcommand]
        if config.get("model") is None or config.get("data") is None:
            missing = "model" if config.get("model") is None else "data"
            raise ConfigError(f"no {missing} is configured: give --config FILE.yaml, or --ckpt_path of a Surefoot run.")
        _check_trainer(config.trainer)
        if "weights_only" in config and config.weights_only is None:
            config.weights_only = True  # loading never unpickles code
        if config.seed_everything is not False:
            for part in (config.model, config.data, config.trainer.callbacks):
                fill_seeds(part, config.seed_everything)
        if self.subcommand == "fit":
            _check_data_seed(config)
        self._carry_facts(config)
        self._open_run(config)

    def _carry_facts(self, config: Namespace) -> None:
        wanted = [f for f in FACTS if f in config.model.get("init_args", {})]
        if not wanted:
            return
        datamodule = build_datamodule(config.data.as_dict())
        for fact in wanted:
            value, given = getattr(datamodule, fact, None), config.model.init_args[fact]
            if given is None:
                config.model.init_args[fact] = value
            elif value is not None and given != value:
                raise ConfigError(f"model.init_args.{fact} is {given} but the data has {value}; leave it out.")

    def _settings(self) -> dict[str, Any]:
        """Return the effective settings as plain types."""
        text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
        settings: dict[str, Any] = yaml.safe_load(text)[self.subcommand]
        return settings

    def _experiment(self, checkpoint: Any) -> str:
        """Return the config's name; without a config, that of the checkpoint's experiment and the verb."""
        if self.config_files:
            return Path(self.config_files[0]).stem
        folders = Path(checkpoint).absolute().parts[-4:-1] if checkpoint else ()
        is_run = len(folders) == 3 and folders[2] == "checkpoints"
        return f"{folders[0]}-{self.subcommand}" if is_run else "run"

    def _open_run(self, config: Namespace) -> None:
        inherited = os.environ.get(RUN_VARIABLE)
        settings = self._settings()
        if inherited is not None:  # a rank that rank zero launched
            die_with_parent()
            self.run = Run(Path(inherited))
        else:
            experiment = config.experiment or self._experiment(config.get("ckpt_path"))
            identity = {k: v for k, v in settings.items() if k not in _NOT_IDENTITY} | {"verb": self.subcommand}
            if config.get("ckpt_path"):
                identity["ckpt_path"] = str(config.ckpt_path)
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                fresh = config.fresh or self.subcommand != "fit"
                contents = self._contents(config)
                self._check_inputs(config, settings, contents)
                self.run = open_run(Path(config.runs_root), experiment, identity, fresh, contents)
                self._tell_changed_contents(contents)
            else:
                self.run = await_run(Path(config.runs_root), experiment, identity)
            if rank_zero_only.rank == 0 and not self._nothing_to_do():  # type: ignore[attr-defined]
                self._hold_run()
            if self._nothing_to_do():  # another process may have finished it a moment ago
                raise _RunFinished(self.run)
        if self.subcommand == "fit" and (last := self._checkpoint_to_go_on_from()) is not None:
            config.ckpt_path = str(last)
            rank_zero_info(f"resuming {self.run.path} from {last.name}")
        self.settings = settings

    def _checkpoint_to_go_on_from(self) -> Path | None:
        folder = self.run.path / "checkpoints"
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            remove_partials(folder)
            remove_partials(self.run.path)
            return recover(folder)
        some = any((folder / name).exists() for name in (LAST, PREVIOUS))
        return folder / LAST if some else None  # where rank zero puts the one that is whole

    def _nothing_to_do(self) -> bool:
        return self.subcommand == "fit" and self.run.finished

    def _hold_run(self) -> None:
        """Keep others from writing to the run folder, before anything in it changes, and tell launched ranks of it."""
        self.held.enter_context(hold(self.run.path, ", or start another run of these settings with --fresh true"))
        mark_latest(self.run)
        os.environ[RUN_VARIABLE] = str(self.run.path.resolve())
        self.held.callback(os.environ.pop, RUN_VARIABLE, None)

    def _contents(self, config: Namespace) -> dict[str, str]:
        """Return what the paths hold that model, data and the callbacks' own data name."""
        settings = config.as_dict()
        callbacks = [c.as_dict() if isinstance(c, Namespace) else c for c in config.trainer.get("callbacks") or []]
        read = {n: settings[n] for n in ("model", "data")} | {"trainer": {"callbacks": callbacks}}
        return contents_read(read, [Path(config.runs_root).resolve()])

    def _check_inputs(self, config: Namespace, settings: Mapping[str, Any], contents: Mapping[str, str]) -> None:
        """Refuse to train on from a checkpoint whose model folder, such as that of the KL reference, is another by now.

        Raises:
            ConfigError: If a path among the model's settings is the same and holds something else.
        """
        path = config.get("ckpt_path")
        if self.subcommand != "fit" or not path or not Path(path).exists():
            return
        stored = {"model": (stored_settings(path) or {}).get("model")}
        renamed = [key for key, _, _ in differences(stored, {"model": settings["model"]})]
        for key in differing_contents(stored_inputs(path), contents):
            if key.startswith("model.") and not any(key.startswith(r) for r in renamed):
                raise ConfigError(
                    f"what {key} names has changed since {path} was written, and training would go on with another"
                    " reference: put it back, or name what is meant."
                )

    def _tell_changed_contents(self, contents: Mapping[str, str]) -> None:
        """Say which contents keep an earlier run of these settings from being gone on with."""
        earlier = [r for r in list_runs(self.run.path.parent) if r.path != self.run.path]
        if not self.run.started and not self.run.finished and earlier:
            for key in differing_contents(earlier[-1].inputs, contents):
                rank_zero_info(f"{key} holds something else than for {earlier[-1].path}: a new run")

    def _run_verb(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Run the trainer; rank zero records its end."""
        if verb != "fit" and not self.config[verb].get("ckpt_path"):
            rank_zero_info(
                "no --ckpt_path is given: the model is as its settings build it, not as a run has trained it"
            )
        try:
            result = getattr(self.trainer, verb)(**arguments)
        except OSError as error:
            if not is_full(error) or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(self.run.path)) from error
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            if verb == "fit":
                self.recorder.finish(self.trainer)
            if verb == "fit" and self.run.finished:
                last = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
                epochs, steps = self.trainer.current_epoch, self.trainer.global_step
                for line in result_lines(self.run.path, epochs, steps, last):
                    rank_zero_info(line)
            else:
                rank_zero_info(f"run folder: {self.run.path}")
        return result

    def fit(self, **arguments: Any) -> Any:
        """Train."""
        return self._run_verb("fit", arguments)

    def validate(self, **arguments: Any) -> Any:
        """Evaluate on the validation split."""
        return self._run_verb("validate", arguments)

    def test(self, **arguments: Any) -> Any:
        """Evaluate on the test split."""
        return self._run_verb("test", arguments)

    def predict(self, **arguments: Any) -> Any:
        """Predict on the test split; `PredictionWriter` writes the predictions."""
        return self._run_verb("predict", arguments)

    def instantiate_classes(self) -> None:
        """Build all; the model of a checkpoint without the weights that the checkpoint brings."""
        path = self.config[self.subcommand].get("ckpt_path")
        if not path or not Path(path).exists() or stored_settings(path) is None:
            super().instantiate_classes()
            return
        config = self.config.clone()
        config[self.subcommand].model = _rebuild(self.settings["model"], Path(path))
        # A datamodule may load its tokenizer as late as in its first batch.
        self.held.enter_context(descriptions(stored_descriptions(path)))
        self.config_init = self.parser.instantiate_classes(config)
        built = self.config_init[self.subcommand]
        self.model, self.datamodule = built.model, built.data
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with its run folder, loggers and the checkpoint to resume from."""
        config = self.config[self.subcommand]
        folder, trainer = self.run.path, self.config_init[self.subcommand].trainer
        if trainer.default_root_dir is None:
            trainer.default_root_dir = str(folder)
        if trainer.logger in (None, True) and not trainer.fast_dev_run:
            _set_aside_metrics(folder)
            trainer.logger = [
                CSVLogger(str(folder), name="", version=""),
                TensorBoardLogger(str(folder), name="", version="tensorboard"),
            ]
        self.recorder = RunRecorder(self.run, self.settings, config.get("override_optimizer", False))
        extra: list[Callback] = [self.recorder]
        has_bar = any(isinstance(c, ProgressBar) for c in trainer.callbacks or [])
        if trainer.enable_progress_bar in (None, True) and not has_bar and not trainer.barebones:
            extra.append(QuietProgressBar())
        has_summary = any(isinstance(c, ModelSummary) for c in trainer.callbacks or [])
        if trainer.enable_model_summary in (None, True) and not has_summary and not trainer.barebones:
            extra.append(QuietModelSummary())
        if self.subcommand == "predict":
            extra.append(PredictionWriter(folder))
        if self.subcommand == "fit" and trainer.enable_checkpointing in (None, True):
            extra.append(LastCheckpoint(folder / "checkpoints", config.checkpoint_every_n_steps))
            extra.append(SavingStop(folder / "checkpoints" / "last.ckpt"))
        elif self.subcommand == "fit":
            extra.append(SafeStop())
        trainer.callbacks = [*(trainer.callbacks or []), *extra]
        return super().instantiate_trainer(**kwargs)


def _check_trainer(trainer: Namespace) -> None:
    """Raise a `ConfigError` for what Lightning can do only with loaders and learning rates of its own kind."""
    if trainer.overfit_batches:
        raise ConfigError(
            "trainer.overfit_batches would replace the order of the data, which resumes and reweights here: give"
            " trainer.limit_train_batches and trainer.limit_val_batches instead."
        )
    if trainer.accumulate_grad_batches < 1:
        raise ConfigError(f"trainer.accumulate_grad_batches must be at least 1, got {trainer.accumulate_grad_batches}.")
    if trainer.gradient_clip_val is not None and not trainer.gradient_clip_val >= 0:
        raise ConfigError(f"trainer.gradient_clip_val must be at least 0, got {trainer.gradient_clip_val}.")
    for callback in trainer.callbacks or ():
        if str(callback.class_path).endswith(".LearningRateFinder"):
            raise ConfigError(
                "LearningRateFinder sets one attribute of a module, but optimizers are built from their settings here:"
                " compare"
                " runs with --model.init_args.optimizer.init_args.lr instead."
            )


def _check_data_seed(config: Namespace) -> None:
    """Refuse to train on from a checkpoint whose data were split by another seed: it may have seen our test examples.

    Raises:
        ConfigError: If the two seeds of one dataset differ.
    """
    data, given = config.data, config.model.get("init_args", {}).get("checkpoint")
    if given is None:
        return
    path = Path(given)
    if path.is_dir() or path.name == WEIGHTS:  # a run folder, or its weights
        path = (path if path.is_dir() else path.parent) / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return
    stored = (stored_settings(path) or {}).get("data") or {}
    was, now = (d.get("init_args", {}).get("seed") for d in (stored, data))
    if stored.get("class_path") == data.class_path and was is not None and was != now:
        raise ConfigError(
            f"{given} was trained on data of seed {was} and this run's have seed {now}: its training examples may be"
            f" among this run's test examples. Give a checkpoint of seed {now}, or --data.init_args.seed {was}."
        )


def _set_aside_metrics(folder: Path) -> None:
    """Rename an interrupted run's ``metrics.csv``, which Lightning's logger would delete."""
    path = folder / "metrics.csv"
    if path.is_file() and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        path.rename(folder / f"metrics.{len(list(folder.glob('metrics.*.csv')))}.csv")


class _SaveSettings(SaveConfigCallback):
    """Saves the effective config into the run folder, over an earlier attempt's."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and not self.already_saved:
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(path), skip_none=False, overwrite=True, multifile=False)
            self.already_saved = True


def run_trainer(arguments: Sequence[str]) -> None:
    """Run one of LightningCLI's verbs; a finished run says so and is not run again.

    Args:
        arguments: The verb and its options.
    """
    tell_batches_from_shares()
    try:
        with quiet_screen(), contextlib.ExitStack() as held:
            SurefootCLI(
                held,
                model_class=LightningModule,
                datamodule_class=LightningDataModule,
                trainer_class=DurableTrainer,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                save_config_callback=_SaveSettings,
                args=list(arguments),
            )
    except _RunFinished as finished:
        rank_zero_info(f"already finished: {finished.run.path} (--fresh true runs it again)")


def _build(base: type, settings: Mapping[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object")
    own = copy.deepcopy(dict(settings))  # the parser changes lists in place
    return parser.instantiate_classes(parser.parse_object({"object": own})).object


def _rebuild(settings: Mapping[str, Any], checkpoint: Path) -> LightningModule:
    """Build a module whose weights a checkpoint will bring, all of them.

    Raises:
        SurefootError: If the checkpoint lacks some.
    """
    with descriptions(stored_descriptions(checkpoint)), weights_follow():
        module: LightningModule = _build(LightningModule, settings)
    if checkpoint.is_file():  # a folder's tensors are checked where they are loaded
        check_weights(module, metadata(checkpoint)["state_dict"], checkpoint)
    return module


def build_datamodule(settings: Mapping[str, Any]) -> LightningDataModule:
    """Build a datamodule from what a config says under ``data``.

    Args:
        settings: ``class_path`` and ``init_args``.
    """
    datamodule: LightningDataModule = _build(LightningDataModule, settings)
    return datamodule


def load_module(checkpoint: Path) -> LightningModule:
    """Build the module of a run's checkpoint with its weights.

    Args:
        checkpoint: Checkpoint written by ``surefoot fit``.

    Returns:
        The module in evaluation mode, on the CPU.

    Raises:
        SurefootError: If the file is not such a checkpoint.
    """
    settings = stored_settings(checkpoint)
    if settings is None:
        raise SurefootError(f"{checkpoint} was not written by surefoot fit: it holds no settings.")
    module = _rebuild(settings["model"], checkpoint)
    state = read_checkpoint(checkpoint)
    module.on_load_checkpoint(state)
    module.load_state_dict(state["state_dict"])
    return module.eval()
