"""``make bench`` runs every benchmark that needs no peer, and says how to run the others."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEED_DATA = ("constant_solution", "smollm2_gsm8k", "smollm2_verifiers", "preference_pairs")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("data", [[], ["SUREFOOT_DATA=data"]], ids=["without data", "with data"])
def test_every_benchmark_is_run_or_named(data: list[str]) -> None:
    command = ["make", "-n", "bench", "BENCH=out", *data]
    printed = subprocess.run(
        command, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout
    run = set(re.findall(r"^\.venv/bin/python (benchmarks/\w+\.py)", printed, flags=re.MULTILINE))
    named = set(re.findall(r"benchmarks/\w+\.py", printed)) - run
    peers = {"benchmarks/private_linear.py"}
    need_data = {f"benchmarks/{name}.py" for name in NEED_DATA}
    assert named == peers | (set() if data else need_data)
    assert run | named == {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")}
    assert "--peers" in printed
    for line in printed.splitlines():  # every option is one of the program's
        for program in re.findall(r"benchmarks/\w+\.py(?= --)", line):
            options = re.findall(r" (--[a-z]+)", line.split(program)[1])
            assert options
            assert all(f'"{option}"' in (ROOT / program).read_text() for option in options), line


def imported(scope: ast.AST) -> list[str]:
    """Return the packages that a module or a function imports when it is run, without the functions in it."""
    found = []
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.Import):
            found += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module.split(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef):
            found += imported(node)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_surefoot_is_imported_before_what_imports_torchvision(path: Path) -> None:
    ours = {"surefoot", "lightning_modules", "datamodules", "callbacks"}
    tree = ast.parse(path.read_text())
    late = {"lightning", "torchmetrics", "torchvision", "transformers", "timm"}
    for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))):
        order = [*imported(tree), *([] if scope is tree else imported(scope))]
        first = next((i for i, package in enumerate(order) if package in ours), len(order))
        assert not late & set(order[:first]), f"line {getattr(scope, 'lineno', 1)}: torchvision fails beside CPU torch"
