"""vLLM's processes import torchvision, which beside a CPU build of torch works only after ``import surefoot``."""

import multiprocessing
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from surefoot.compatibility.vllm import SERVER, spawned_with_surefoot

#: As vLLM's engine starts: a spawned process that imports vLLM's own modules.
PARENT = """
import multiprocessing
from contextlib import nullcontext
from importlib import import_module
from surefoot.compatibility.vllm import spawned_with_surefoot

with {context}():
    process = multiprocessing.get_context("spawn").Process(target=import_module, args=("torchvision",))
    process.start()
process.join()
raise SystemExit(process.exitcode)
"""


@pytest.mark.parametrize(
    ("context", "works"),
    [("spawned_with_surefoot", True), ("nullcontext", torch.version.cuda is not None)],
)
def test_a_spawned_process_imports_torchvision(context: str, works: bool) -> None:
    code = PARENT.format(context=context)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == works, done.stderr


def test_workers_of_a_spawned_engine_import_surefoot_too() -> None:
    """The child's main module is ours, so that what it spawns has it too."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with spawned_with_surefoot():
        process = context.Process(target=_main_of_a_child, args=(results,))
        process.start()
    process.join()
    assert results.get() == SERVER


def _main_of_a_child(results: "multiprocessing.SimpleQueue[str]") -> None:
    main = import_module("__main__")
    assert main.__spec__ is not None
    results.put(main.__spec__.name)
