"""The folder list is the architecture: who may import whom, and which files have to come in pairs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("lightning_modules", "datamodules", "callbacks")
#: The rooms of the core from the ground up: a room imports only from those named before it.
ORDER = (
    "errors",
    "statistics",
    "processes",
    "storage",
    "runs",
    "training",
    "compatibility",
    "pipelines",
    "classification",
    "metrics",
    "losses",
    "privacy",
    "reasoning",
    "reasoning.answers",
    "reasoning.problems",
    "reasoning.arithmetic",
    "reasoning.contamination",
    "reasoning.sequences",
    "reasoning.language_models",
    "reasoning.prompts",
    "reasoning.trajectories",
    "reasoning.metrics",
    "reasoning.learning_dynamics",
    "reasoning.rewards",
    "reasoning.credit",
    "reasoning.rollouts",
    "reasoning.completions",
    "reasoning.curation",
    "report",
    "reproduce",
    "cli",
)


def imports(path: Path) -> set[str]:
    """Return the dotted modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return found


def room(module: str) -> str:
    """Return the room of a module such as ``surefoot.reasoning.credit.base``: ``reasoning.credit``."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[0] == "reasoning" else 1])


def module_of(path: Path) -> str:
    """Return a file's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


CORE = sorted(p for p in (ROOT / "surefoot").rglob("*.py") if p.name not in ("__main__.py",))
#: The one file beside the command line's that may know Lightning
LIGHTNING = ROOT / "surefoot/compatibility/lightning.py"


@pytest.mark.parametrize(
    "path", [p for p in CORE if p.parent.name != "cli" and p != LIGHTNING], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_core_never_imports_lightning_or_the_rooms(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"lightning", "pytorch_lightning", *ROOMS}


@pytest.mark.parametrize(
    "path",
    [p for p in CORE if p.relative_to(ROOT).parts[1:] != ("__init__.py",)],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_run_downwards(path: Path) -> None:
    own = room(module_of(path))
    for name in imports(path):
        if name.startswith("surefoot.") and name != "surefoot.__version__":
            other = next(r for r in (room(name), name.split(".")[1]) if r in ORDER)
            allowed = ORDER.index(other) <= ORDER.index(own) or (own == "reproduce" and other == "cli")
            assert allowed, f"{path} imports {name} from above"


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_never_import_each_other(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & (set(ROOMS) - {room}), path
        assert "surefoot.cli" not in imports(path), path


def test_no_circle_of_files() -> None:
    graph: dict[str, set[str]] = {}
    for path in CORE:
        module = module_of(path)
        top = {n for node in ast.parse(path.read_text()).body for n in _names(node)}
        graph[module] = {n for n in top if n.startswith("surefoot.") and n != module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return {node.module}
    return set()


def test_every_experiment_has_a_tiny_twin() -> None:
    full = {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.yaml")}
    full = {p for p in full if p.parts[0] not in ("overlays", "pipelines")}
    assert full
    assert full == {p.relative_to(ROOT / "tests/configs") for p in (ROOT / "tests/configs").rglob("*.yaml")}


def test_every_public_file_says_what_it_exports() -> None:
    for folder in ("surefoot", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "__main__.py" or path == ROOT / "surefoot/__init__.py":
                continue
            assert "__all__" in path.read_text(), path


def test_nothing_is_unpickled_or_evaluated() -> None:
    pattern = re.compile(r"(?<![\w.])(eval|exec)\(|pickle\.load|weights_only=False|allow_pickle=True")
    for folder in ("surefoot", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            assert not pattern.search(path.read_text()), path
