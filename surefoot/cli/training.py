"""The verbs fit, validate, test, predict: LightningCLI with run folders, facts from data to model, safe resumption."""

import contextlib
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from surefoot.cli.checkpoints import DurableTrainer, LastCheckpoint, check_checkpoint_path, is_full
from surefoot.cli.checks import check_data_seed, check_seed, check_trainer
from surefoot.cli.loading import build_datamodule, rebuild_module
from surefoot.cli.predictions import PredictionWriter
from surefoot.cli.recorder import RunRecorder
from surefoot.cli.result_lines import result_lines
from surefoot.cli.run_opening import RunFinished, RunRequest, checkpoint_to_go_on_from, enter_run
from surefoot.cli.safe_stop import SafeStop, SavingStop
from surefoot.cli.settings import (
    check_yaml,
    differences,
    fill_seeds,
    flag_values,
    plain_message,
    stored_descriptions,
    stored_settings,
)
from surefoot.compatibility.lightning import (
    QuietModelSummary,
    QuietProgressBar,
    is_first_process,
    quiet_screen,
    tell_batches_from_shares,
)
from surefoot.compatibility.tensorboard import quiet_writer
from surefoot.contracts import ClassificationData, GroupedData, offers
from surefoot.errors import ConfigError
from surefoot.runs import RunFolder
from surefoot.training.rebuilding import descriptions

__all__ = ("SurefootCLI", "run_trainer")

#: Facts of the data that a model needs, filled in wherever the model has such an argument.
FACTS = ("n_classes", "n_groups")


def _facts(datamodule: object) -> dict[str, int | None]:
    """Return what the data know of `FACTS`."""
    return {
        "n_classes": datamodule.n_classes if offers(datamodule, ClassificationData) else None,
        "n_groups": datamodule.n_groups if offers(datamodule, GroupedData) else None,
    }


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


class SurefootCLI(LightningCLI):
    """LightningCLI in subclass mode; `STYLE` traps 1 to 6 are avoided here, which tests hold."""

    run: RunFolder
    recorder: RunRecorder

    def __init__(self, held: contextlib.ExitStack, **settings: Any) -> None:
        """Parse, build and run.

        Args:
            held: Lets go of the run folder in the end.
            settings: Arguments of LightningCLI.
        """
        self.held = held
        self.verb: str = settings["args"][0]
        super().__init__(**settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the verb that is asked for: the parsers of the others would take most of the time."""
        return {self.verb: super().subcommands()[self.verb]}

    def init_parser(self, **kwargs: object) -> LightningArgumentParser:
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
        self.config_files = flag_values(arguments, "--config", "-c")
        for config in self.config_files:
            check_yaml(Path(config))
        path = next(iter(flag_values(arguments, "--ckpt_path")), None)
        stored = None
        if path is not None and path.split(":")[0] not in _LIGHTNINGS_PATHS and "://" not in path:
            if not Path(path).exists():
                raise ConfigError(f"checkpoint {path} does not exist.")
            check_checkpoint_path(Path(path))
            stored = stored_settings(path)
            if stored is None and not self.config_files:
                raise ConfigError(
                    f"checkpoint {path} was not written by surefoot fit and holds no settings: give --config FILE.yaml"
                    " too."
                )
        if stored is None:
            self.config = parser.parse_args(arguments)
            check_seed(self.config[self.verb].seed_everything)
            return
        base = {k: stored[k] for k in ("model", "data") if k in stored}
        observers = {"trainer": {"callbacks": stored.get("trainer", {}).get("callbacks")}}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(base | observers, file)
            file.flush()
            self.config = parser.parse_args([self.verb, "--config", file.name, *arguments[1:]])
        check_seed(self.config[self.verb].seed_everything)
        now = yaml.safe_load(parser.dump(self.config, skip_none=False, skip_validation=True))[self.verb]
        for key, was, is_now in differences(base, {k: now[k] for k in base}):
            rank_zero_info(f"resumed: {key} was {was} in the checkpoint and is now {is_now}")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` has let the checkpoint's settings in, with the lowest priority."""

    def before_instantiate_classes(self) -> None:
        """Pass facts from data to model, then open the run folder."""
        config = self.config[self.subcommand]
        if config.get("model") is None or config.get("data") is None:
            missing = "model" if config.get("model") is None else "data"
            raise ConfigError(f"no {missing} is configured: give --config FILE.yaml, or --ckpt_path of a Surefoot run.")
        check_trainer(config.trainer)
        if "weights_only" in config and config.weights_only is None:
            config.weights_only = True  # loading never unpickles code
        if config.seed_everything is not False:
            for part in (config.model, config.data, config.trainer.callbacks):
                fill_seeds(part, config.seed_everything)
        if self.subcommand == "fit":
            check_data_seed(config)
        self._carry_facts(config)
        self.settings = self._settings()
        request = RunRequest(str(self.subcommand), config, self.settings, self.config_files)
        self.run = enter_run(request, self.held)
        if request.checkpoint is not None and Path(request.checkpoint).exists():
            config.ckpt_path = str(Path(request.checkpoint).resolve())  # ``latest`` will point to this run
        if self.subcommand == "fit" and (last := checkpoint_to_go_on_from(self.run)) is not None:
            config.ckpt_path = str(last)
            rank_zero_info(f"resuming {self.run.path} from {last.name}")

    def _carry_facts(self, config: Namespace) -> None:
        wanted = [f for f in FACTS if f in config.model.get("init_args", {})]
        if not wanted:
            return
        facts = _facts(build_datamodule(config.data.as_dict()))
        for fact in wanted:
            value, given = facts[fact], config.model.init_args[fact]
            if given is None:
                config.model.init_args[fact] = value
            elif value is not None and given != value:
                raise ConfigError(f"model.init_args.{fact} is {given} but the data has {value}; leave it out.")

    def _settings(self) -> dict[str, Any]:
        """Return the effective settings as plain types."""
        text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False, skip_validation=True)
        settings: dict[str, object] = yaml.safe_load(text)[self.subcommand]
        self.config_dump = deepcopy(settings)  # Lightning would make its own, for modules' hyperparameters
        return settings

    def _run_verb(self, verb: str, arguments: dict[str, object]) -> object:
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
        if is_first_process():
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

    def fit(self, **arguments: object) -> object:
        """Train."""
        return self._run_verb("fit", arguments)

    def validate(self, **arguments: object) -> object:
        """Evaluate on the validation split."""
        return self._run_verb("validate", arguments)

    def test(self, **arguments: object) -> object:
        """Evaluate on the test split."""
        return self._run_verb("test", arguments)

    def predict(self, **arguments: object) -> object:
        """Predict on the test split; `PredictionWriter` writes the predictions."""
        return self._run_verb("predict", arguments)

    def instantiate_classes(self) -> None:
        """Build all; the model of a checkpoint without the weights that the checkpoint brings."""
        path = self.config[self.subcommand].get("ckpt_path")
        if not path or not Path(path).exists() or stored_settings(path) is None:
            super().instantiate_classes()
            return
        config = self.config.clone()
        config[self.subcommand].model = rebuild_module(self.settings["model"], Path(path))
        # A datamodule may load its tokenizer as late as in its first batch.
        self.held.enter_context(descriptions(stored_descriptions(path)))
        self.config_init = self.parser.instantiate_classes(config)
        built = self.config_init[self.subcommand]
        self.model, self.datamodule = built.model, built.data
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
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


def _set_aside_metrics(folder: Path) -> None:
    """Rename an interrupted run's ``metrics.csv``, which Lightning's logger would delete."""
    path = folder / "metrics.csv"
    if path.is_file() and is_first_process():
        path.rename(folder / f"metrics.{len(list(folder.glob('metrics.*.csv')))}.csv")


class _SaveSettings(SaveConfigCallback):
    """Saves the effective config into the run folder, over an earlier attempt's."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and not self.already_saved:
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.parser.dump(self.config, skip_none=False, skip_validation=True), encoding="utf-8")
            self.already_saved = True


def run_trainer(arguments: Sequence[str]) -> None:
    """Run one of LightningCLI's verbs; a finished run says so and is not run again.

    Args:
        arguments: The verb and its options.
    """
    tell_batches_from_shares()
    try:
        with quiet_screen(), quiet_writer(), contextlib.ExitStack() as held:
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
    except RunFinished as finished:
        rank_zero_info(f"already finished: {finished.run.path} (--fresh true runs it again)")
