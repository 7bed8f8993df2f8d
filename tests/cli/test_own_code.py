"""Classes of a user's own: in a module of the working folder, and in packages that are named like Surefoot's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import tiny

from surefoot.cli import main

ROOT = Path(__file__).parents[2]

FOCAL = '''
from lightning_modules import ERM


class Focal(ERM):
    """Cross-entropy by another name."""
'''
COUNTER = """
from pathlib import Path

from lightning.pytorch import Callback


class BatchCounter(Callback):
    def __init__(self) -> None:
        self.n = 0

    def on_train_batch_end(self, *args) -> None:
        self.n += 1

    def on_train_end(self, trainer, pl_module) -> None:
        Path("counted").write_text(str(self.n))
"""
DATA = """
from datamodules import DigitsDataModule


class FewDigits(DigitsDataModule):
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: a module, packages named like ours (one with an ``__init__``, one without), a config."""
    (tmp_path / "focal.py").write_text(FOCAL)
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks/__init__.py").write_text("from callbacks.counter import BatchCounter\n")
    (tmp_path / "callbacks/counter.py").write_text(COUNTER)
    (tmp_path / "datamodules").mkdir()
    (tmp_path / "datamodules/few.py").write_text(DATA)
    (tmp_path / "configs").mkdir()
    settings: dict[str, Any] = tiny("focal.Focal")
    settings["trainer"]["callbacks"] = [
        {"class_path": "GroupMetrics"},
        {"class_path": "callbacks.BatchCounter"},
    ]
    settings["data"]["class_path"] = "datamodules.few.FewDigits"
    (tmp_path / "configs/focal.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def run_in(folder: Path, *command: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(path), str(ROOT)]))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_command_finds_own_modules_and_packages(project: Path) -> None:
    script = Path(sys.executable).with_name("surefoot")
    done = run_in(project, str(script), "fit", "--config", "configs/focal.yaml")
    assert done.returncode == 0, done.stderr
    assert (project / "counted").read_text() == "18"
    assert (project / "runs/focal/latest/finished.json").is_file()


def test_python_m_does_not_let_own_packages_hide_ours(project: Path) -> None:
    (project / "callbacks/evaluation.py").write_text("")  # the name of a module of ours
    command = (sys.executable, "-m", "surefoot", "fit", "--config", "configs/focal.yaml")
    done = run_in(project, *command, "--print_config")
    assert done.returncode == 0, done.stderr
    assert "class_path: callbacks.BatchCounter" in done.stdout
    notes = [n for n in done.stderr.splitlines() if n.startswith("surefoot: note:")]
    assert len(notes) == 1
    assert "callbacks.evaluation" in notes[0]


def test_own_packages_may_lie_on_pythonpath(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = (sys.executable, "-m", "surefoot", "fit", "--config", str(project / "configs/focal.yaml"))
    done = run_in(tmp_path_factory.mktemp("elsewhere"), *command, "--print_config", path=project)
    assert done.returncode == 0, done.stderr
    assert "class_path: callbacks.BatchCounter" in done.stdout
    assert "class_path: datamodules.few.FewDigits" in done.stdout


def test_a_file_of_the_working_folder_never_hides_a_library(project: Path) -> None:
    (project / "torchmetrics.py").write_text("raise RuntimeError('hidden')")
    code = "from surefoot.cli.own_code import find_own_modules; find_own_modules(); import torchmetrics"
    done = run_in(project, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_a_checkout_of_surefoot_is_no_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import callbacks
    from surefoot.cli.own_code import join_own_packages

    for name in ("surefoot", "callbacks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    before = list(callbacks.__path__)
    join_own_packages()
    assert list(callbacks.__path__) == before


def test_an_own_module_with_an_error_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "broken_by_its_author.py").write_text("import a_package_that_is_not_there\n")
    settings = yaml.safe_load((project / "configs/focal.yaml").read_text())
    settings["model"]["class_path"] = "broken_by_its_author.Focal"
    settings["data"]["class_path"] = "DigitsDataModule"
    settings["trainer"]["callbacks"] = []
    (project / "configs/focal.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken_by_its_author", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "configs/focal.yaml"])
    assert stop.value.code == 2
    assert "a_package_that_is_not_there" in capsys.readouterr().err
