"""The folder list is the architecture: who may import whom, and which files have to come in pairs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("lightning_modules", "datamodules", "callbacks")
#: Floors of the core, from the ground; imports run downwards or stay on a floor.
FLOORS = {
    0: (
        "errors",
        "groups",
        "distributed",
        "random_state",
        "modes",
        "precision",
        "torchvision_cpu",
        "wilds_compatibility",
        "runs",
        "files",
        "locks",
        "manifests",
        "processes",
        "contents",
        "loading",
        "shifts",
        "confounders",
        "statistics",
        "sequences",
        "answers",
        "problems",
        "arithmetic",
        "contamination",
        "digit_tokenizer",
        "pretrained",
        "rebuilding",
    ),
    1: (
        "losses",
        "metrics",
        "networks",
        "layer_statistics",
        "privacy",
        "adversaries",
        "last_layer",
        "language_models",
        "prompts",
        "trajectories",
        "completions",
        "curation",
        "learning_dynamics",
    ),
    2: ("credit", "rewards", "rollouts", "generation", "pipelines", "reproduce", "report"),
    3: ("cli",),
}


def imports(path: Path) -> set[str]:
    """Return the dotted modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return found


def floor(name: str) -> int:
    return next(level for level, names in FLOORS.items() if name in names)


CORE = sorted(p for p in (ROOT / "surefoot").rglob("*.py") if p.name not in ("__main__.py",))


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_never_imports_lightning_or_the_rooms(path: Path) -> None:
    if path.parent.name == "cli":
        return
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"lightning", "pytorch_lightning", *ROOMS}


@pytest.mark.parametrize(
    "path",
    [p for p in CORE if p.relative_to(ROOT).parts[1:] != ("__init__.py",)],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_run_downwards(path: Path) -> None:
    own = path.relative_to(ROOT / "surefoot").parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "surefoot" and len(parts) > 1 and parts[1] not in ("__version__", own):
            allowed = floor(parts[1]) <= floor(own) or (own == "reproduce" and parts[1] == "cli")
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
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
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
    full = {p.stem for p in (ROOT / "configs").glob("*.yaml")}
    assert full
    assert full == {p.stem for p in (ROOT / "tests/configs").glob("*.yaml")}


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
