"""What ends in one line and what in a traceback: only defects of the code are tracebacks."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import tiny

from surefoot.cli import main
from surefoot.cli.error_report import error_line
from surefoot.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def caught(function: Callable[[], Any]) -> Exception:
    """Return what a function raises."""
    try:
        function()
    except (ValueError, RuntimeError, ImportError, yaml.YAMLError) as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_circle_of_errors_ends() -> None:
    first, second = ValueError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    assert error_line(first) is None
    third = ConfigError("mend this")
    second.__context__ = third
    third.__cause__ = first
    assert error_line(first) == "mend this"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOTDIR, errno.EISDIR, errno.EDQUOT, errno.EEXIST, errno.EIO])
def test_errors_of_the_system_name_the_file(number: int) -> None:
    line = error_line(OSError(number, "reason", "some/file"))
    assert line == "reason: some/file"


def test_errors_of_libraries_are_lines_and_name_the_library() -> None:
    for function in (
        lambda: torch.optim.SGD([torch.zeros(1)], lr=-1.0),
        lambda: torch.nn.Linear(2, 2)(torch.zeros(1, 3)),
        lambda: json.loads("{"),
        lambda: yaml.safe_load("a: ["),
    ):
        line = error_line(caught(function))
        assert line is not None
        assert "--debug shows where" in line


def test_a_package_that_is_not_installed_is_named() -> None:
    line = error_line(caught(lambda: __import__("a_package_that_is_not_there")))
    assert line is not None
    assert "a_package_that_is_not_there is not installed" in line


def test_defects_of_our_code_and_the_users_keep_their_traceback(tmp_path: Path) -> None:
    code = (
        "from surefoot.cli.error_report import error_line\n"
        "import surefoot.classification.groups as ours, mine\n"
        "for broken in (lambda: ours.combine_attributes(None, None), lambda: mine.wrong(1)):\n"
        "    try:\n"
        "        broken()\n"
        "    except Exception as error:\n"
        "        assert error_line(error) is None, error\n"
        "try:\n"
        "    mine.refuse()\n"
        "except Exception as error:\n"
        "    assert error_line(error) == 'not this (--debug shows where)', error_line(error)\n"
    )
    (tmp_path / "mine.py").write_text(
        "def wrong(x):\n    return x.nothing\n\n\ndef refuse():\n    raise ValueError(\n        'not this'\n    )\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that has to fail; returns its line of error, the last that it prints."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("surefoot: error:")
    return line


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small config and a file that is no folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "file").write_text("x")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny()))
    return path


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["fit", "--ckpt_path", "nope.ckpt"], "checkpoint nope.ckpt does not exist"),
        (["fit", "--runs_root", "file"], "Not a directory: file"),
        (["fit", "--runs_root", "file/below"], "Not a directory: file"),
        (["fit", "--trainer.logger", "WandbLogger"], "wandb"),
        (["fit", "--trainer.overfit_batches", "2"], "trainer.limit_train_batches"),
        (["fit", "--trainer.accumulate_grad_batches", "0"], "must be at least 1, got 0"),
        (["fit", "--trainer.gradient_clip_val", "-1"], "must be at least 0, got -1"),
        (["fit", "--trainer.callbacks+", "LearningRateFinder"], "optimizer.init_args.lr"),
        (
            [
                "fit",
                "--model.init_args.lr_scheduler",
                "torch.optim.lr_scheduler.ReduceLROnPlateau",
            ],
            "init_args: {monitor:",
        ),
        (["fit", "--model.init_args.optimizer.init_args.lr", "-1"], "Invalid learning rate"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    config: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = flags
    line = line_of([verb, "--config", str(config), *rest], capsys)
    assert says in line
    assert "Union" not in line


def test_checkpoints_that_are_no_runs(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in line_of(["test", "--ckpt_path", "nope.ckpt"], capsys)
    assert "give the file that a run wrote" in line_of(["test", "--ckpt_path", "."], capsys)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.ckpt").write_text("x")
    for folder in ("run", "run/checkpoints"):
        assert line_of(["test", "--ckpt_path", folder], capsys).endswith("give run/checkpoints/last.ckpt.")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    assert "give --config" in line_of(["test", "--ckpt_path", "foreign.ckpt"], capsys)


def test_a_plateau_of_a_named_quantity(config: Path, tmp_path: Path) -> None:
    settings = tiny()
    settings["model"]["init_args"]["lr_scheduler"] = {
        "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
        "init_args": {"monitor": "val/accuracy", "mode": "max", "patience": 0, "factor": 0.5},
    }
    config.write_text(yaml.safe_dump(settings))
    flags = ["--trainer.max_epochs", "4", "--model.init_args.optimizer.init_args.lr", "1e-6"]
    main(["fit", "--config", str(config), *flags])
    state = torch.load(tmp_path / "runs/tiny/latest/checkpoints/last.ckpt", weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-6


def test_an_untrained_network_is_called_so(
    config: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["test", "--config", str(config)])
    assert "not as a run has trained it" in capsys.readouterr().err + caplog.text


def test_a_table_without_rows(tmp_path: Path) -> None:
    from datamodules import GroupFolderDataModule

    for content in ("", "img_filename,y,place,split\n"):
        (tmp_path / "metadata.csv").write_text(content)
        with pytest.raises(DataError, match="cannot be read"):
            _ = GroupFolderDataModule(tmp_path).n_classes
