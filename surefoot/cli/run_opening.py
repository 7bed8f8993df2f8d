"""Which run folder a command writes to: opened, held against other processes, and where training goes on from."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from surefoot.cli.checkpoints import LAST, PREVIOUS, recover
from surefoot.cli.settings import differences, stored_inputs, stored_settings
from surefoot.compatibility.lightning import is_first_process
from surefoot.errors import ConfigError
from surefoot.processes import die_with_parent
from surefoot.runs import RUN_VARIABLE, RunFolder, await_run, list_runs, open_run
from surefoot.storage.contents import contents_read, differing_contents
from surefoot.storage.files import remove_partials
from surefoot.storage.locks import hold

__all__ = ("RunFinished", "RunRequest", "checkpoint_to_go_on_from", "enter_run")

#: Settings that say where and how to run, not what; they do not distinguish runs.
_NOT_IDENTITY = (
    "config",
    "ckpt_path",
    "weights_only",
    "runs_root",
    "experiment",
    "fresh",
    "override_optimizer",
)


class RunFinished(Exception):
    """The run of these settings has ended well before; nothing is left to do."""

    def __init__(self, run: RunFolder) -> None:
        """Initialize the exception."""
        self.run = run


@dataclass(frozen=True)
class RunRequest:
    """What a command asks for.

    Args:
        verb: Verb of the trainer.
        config: The verb's parsed settings.
        settings: The same as plain types, as they are saved.
        config_files: The files that were given.
    """

    verb: str
    config: Namespace
    settings: Mapping[str, object]
    config_files: Sequence[str]

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that is named."""
        path = self.config.get("ckpt_path")
        return None if not path else str(path)

    @property
    def experiment(self) -> str:
        """The name given, or the config's; without a config, that of the checkpoint's experiment and the verb."""
        if self.config.experiment:
            return str(self.config.experiment)
        if self.config_files:
            return Path(self.config_files[0]).stem
        folders = Path(self.checkpoint).absolute().parts[-4:-1] if self.checkpoint else ()
        is_run = len(folders) == 3 and folders[2] == "checkpoints"
        return f"{folders[0]}-{self.verb}" if is_run else "run"

    def identity(self) -> dict[str, object]:
        """Return what distinguishes this run from others."""
        identity = {k: v for k, v in self.settings.items() if k not in _NOT_IDENTITY} | {"verb": self.verb}
        return identity | ({"ckpt_path": self.checkpoint} if self.checkpoint else {})

    def contents(self) -> dict[str, str]:
        """Return what the paths hold that model, data and the callbacks' own data name."""
        settings = self.config.as_dict()
        given = self.config.trainer.get("callbacks") or []
        callbacks = [c.as_dict() if isinstance(c, Namespace) else c for c in given]
        read = {n: settings[n] for n in ("model", "data")} | {"trainer": {"callbacks": callbacks}}
        return contents_read(read, [Path(self.config.runs_root).resolve()])


def enter_run(request: RunRequest, held: contextlib.ExitStack) -> RunFolder:
    """Find or make the run folder and hold it; on other ranks, find rank zero's.

    Args:
        request: What the command asks for.
        held: Lets go of the folder in the end.

    Raises:
        RunFinished: If there is nothing to do.
        ConfigError: If training would go on with another model than it began with.
        SurefootError: If another process holds the folder.
    """
    inherited = os.environ.get(RUN_VARIABLE)
    if inherited is not None:  # a rank that rank zero launched
        die_with_parent()
        return RunFolder(Path(inherited))
    root, fits = Path(request.config.runs_root), request.verb == "fit"
    is_first = is_first_process()
    if is_first:
        contents = request.contents()
        _check_inputs(request, contents)
        run = open_run(root, request.experiment, request.identity(), request.config.fresh or not fits, contents)
        _print_changed_contents(run, contents)
        if not (fits and run.finished):
            _hold(run, held)
    else:
        run = await_run(root, request.experiment, request.identity())
    if fits and run.finished:  # perhaps by another process a moment ago
        raise RunFinished(run)
    return run


def checkpoint_to_go_on_from(run: RunFolder) -> Path | None:
    """Return the checkpoint to go on from, none where there is none; rank zero mends what is damaged."""
    folder = run.path / "checkpoints"
    if is_first_process():
        remove_partials(folder)
        remove_partials(run.path)
        return recover(folder)
    some = any((folder / name).exists() for name in (LAST, PREVIOUS))
    return folder / LAST if some else None  # where rank zero puts the one that is whole


def _hold(run: RunFolder, held: contextlib.ExitStack) -> None:
    """Keep others from writing to the run folder, before anything in it changes, and pass it on to launched ranks."""
    held.enter_context(hold(run.path, ", or start another run of these settings with --fresh true"))
    os.environ[RUN_VARIABLE] = str(run.path.resolve())
    held.callback(os.environ.pop, RUN_VARIABLE, None)


def _check_inputs(request: RunRequest, contents: Mapping[str, str]) -> None:
    """Refuse to train on from a checkpoint whose model folder, such as that of the KL reference, is another by now.

    Raises:
        ConfigError: If a path among the model's settings is the same and holds something else.
    """
    path = request.checkpoint
    if request.verb != "fit" or path is None or not Path(path).exists():
        return
    stored = {"model": (stored_settings(path) or {}).get("model")}
    renamed = [key for key, _, _ in differences(stored, {"model": request.settings["model"]})]
    for key in differing_contents(stored_inputs(path), contents):
        if key.startswith("model.") and not any(key.startswith(r) for r in renamed):
            raise ConfigError(
                f"what {key} names has changed since {path} was written, and training would go on with another"
                " reference: put it back, or name what is meant."
            )


def _print_changed_contents(run: RunFolder, contents: Mapping[str, str]) -> None:
    """Print which contents keep an earlier run of these settings from being gone on with."""
    earlier = [r for r in list_runs(run.path.parent) if r.path != run.path]
    if not run.started and not run.finished and earlier:
        for key in differing_contents(earlier[-1].inputs, contents):
            rank_zero_info(f"{key} holds something else than for {earlier[-1].path}: a new run")
