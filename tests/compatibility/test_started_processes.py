"""vLLM's processes import torchvision, which beside a CPU build of torch works only after ``import surefoot``."""

import multiprocessing
import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path

import pytest
import torch

from surefoot.compatibility.started_processes import importing_surefoot, starting_with_surefoot

CASES = [(starting_with_surefoot, True), (nullcontext, torch.version.cuda is not None)]
#: As vLLM asks about a model's class: a plain command.
IMPORT = [sys.executable, "-c", "import torchvision"]


@pytest.mark.parametrize(("context", "works"), CASES)
def test_a_command_imports_torchvision(context: type[AbstractContextManager[None]], works: bool) -> None:
    with context():
        done = subprocess.run(IMPORT, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == works, done.stderr


def test_a_child_of_a_spawned_process_imports_torchvision() -> None:
    """As vLLM's engine starts its workers, after the context was left."""
    context = multiprocessing.get_context("spawn")
    with starting_with_surefoot():
        process = context.Process(target=_import_in_a_child)
        process.start()
    process.join()
    assert process.exitcode == 0


def _import_in_a_child() -> None:
    child = multiprocessing.get_context("spawn").Process(target=import_module, args=("torchvision",))
    child.start()
    child.join()
    raise SystemExit(child.exitcode)


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "/some/folder", None):
        if value is None:
            monkeypatch.delenv("PYTHONPATH")
        else:
            monkeypatch.setenv("PYTHONPATH", value)
        with starting_with_surefoot(), starting_with_surefoot():
            first, *others = os.environ["PYTHONPATH"].split(os.pathsep)
            assert Path(first, "sitecustomize.py").is_file()
            assert others == ([value] if value else [])
        assert os.environ.get("PYTHONPATH") == value


def test_surefoot_is_found_from_elsewhere_and_a_hidden_sitecustomize_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.seen = 'theirs'")
    environment = importing_surefoot({"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)})
    code = "import sys; print(sys.seen, 'surefoot' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["theirs", "True"], done.stderr
