"""The folder list is the architecture: who may import whom, and which files have to come in pairs."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from import_graph import count, modules, passed_on

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
    "reasoning.policy",
    "reasoning.samplers",
    "reasoning.values",
    "reasoning.completions",
    "reasoning.search",
    "reasoning.curation",
    "contracts",
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


def test_the_house_stays_simple() -> None:
    """No circles, imports in functions and for types included, and bounds that a larger house has to argue with."""
    found = count(ROOT)
    assert found.file_circles == []
    # `reproduce` is a verb, and trains through the command line as its users do
    assert found.room_circles == [["surefoot.cli", "surefoot.reproduce"]]
    # 43 rooms, 238 arrows, 11 floors and 446 lines at most when last pinned; the ranking of provers from stored labels
    # had brought five of the arrows, the pav study, which reads a model's own probabilities, two, and the study of
    # incorrect synthetic data nine: it reads completions, values and a model as pav does, and builds pairs. A paper
    # brings one room below `reproduce` and some five arrows: raise the bounds by that in its commit, and say there what
    # more it brings and why. Floors stay: a room that lies higher than `cli` and `reproduce` has its code in the wrong
    # place.
    assert found.rooms <= 43
    assert found.arrows <= 240
    assert found.floors <= 11
    assert found.largest[0][0] <= 450, found.largest[0]


def test_circles_are_found(tmp_path: Path) -> None:
    """a <-> b by a function's import and one for types; c is apart; the face of a folder is no circle of rooms."""
    texts = {
        "surefoot/__init__.py": "",
        "surefoot/a/__init__.py": "from surefoot.a.one import x",
        "surefoot/a/one.py": "def f():\n    from surefoot.b import two",
        "surefoot/b/two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import surefoot.a.one",
        "surefoot/c.py": "from surefoot.a import one\nfrom torch import Tensor",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = count(tmp_path)
    assert found.file_circles == [["surefoot.a.one", "surefoot.b.two"]]
    assert found.room_circles == [["surefoot.a", "surefoot.b"]]
    assert (found.files, found.rooms, found.arrows) == (5, 4, 3)


def test_a_name_is_taken_from_where_it_is_defined() -> None:
    """Or from a package that lists it; tests, which replace names where they are used, are held to it as well."""
    known = modules(ROOT)
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    found = {str(p.relative_to(ROOT)): sorted(names) for p in files if (names := passed_on(p, known))}
    assert found == {}


def test_names_that_are_passed_on_are_found(tmp_path: Path) -> None:
    """Neither a function's import nor an alias hides one; a package's own list is its face."""
    texts = {
        "datamodules/__init__.py": "from datamodules.digits import Digits\nimport json\n__all__ = ('Digits',)",
        "datamodules/digits.py": "class Digits: ...",
        "surefoot/cli/__init__.py": "",
        "surefoot/cli/generate.py": "import datamodules\nfrom os import path as p\nx = 1\n__all__ = ('datamodules',)",
        "surefoot/one.py": "def f():\n    from surefoot.cli.generate import datamodules\n    return datamodules.Digits",
        "surefoot/two.py": "from surefoot.cli import generate as g\ng.p, g.x",
        "surefoot/three.py": "import surefoot.cli.generate\nsurefoot.cli.generate.datamodules",
        "surefoot/four.py": "from datamodules import Digits, digits, json\nfrom surefoot.cli.generate import x",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    known = modules(tmp_path)
    found = {name: names for name, path in known.items() if (names := passed_on(path, known))}
    assert found == {
        "surefoot.one": {"surefoot.cli.generate.datamodules"},
        "surefoot.two": {"surefoot.cli.generate.p"},
        "surefoot.three": {"surefoot.cli.generate.datamodules"},
        "surefoot.four": {"datamodules.json"},
    }


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


FOLDERS = ("surefoot", *ROOMS, "tests", "benchmarks")
#: Functions with more parameters than eight, and why.
LONG = {
    "surefoot/reasoning/language_models/tiny.py: TinyLanguageModel.__init__": "numbers of a Llama, each with a default",
    "surefoot/reasoning/sequences/attention.py: packed_attention": "the signature is transformers'",
}


def long_signatures(path: Path) -> list[str]:
    """Return the functions of a file, methods as ``Class.name``, that have nine or more parameters of their own."""
    tree = ast.parse(path.read_text())
    owners = {id(f): f"{c.name}." for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if sum(a.arg not in ("self", "cls") for a in given) >= 9:
                found.append(f"{owners.get(id(node), '')}{node.name}")
    return found


def functions(path: Path) -> dict[str, int]:
    """Return the lines of every function in a file, docstring included."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f"{node.name}, line {node.lineno}": (node.end_lineno or 0) - node.lineno + 1 for node in nodes}


def test_functions_are_short() -> None:
    files = [p for folder in ("surefoot", *ROOMS, "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))]
    lines = {f"{p.relative_to(ROOT)}: {name}": n for p in files for name, n in functions(p).items()}
    assert len(lines) > 1000
    assert {name: n for name, n in lines.items() if n > 60} == {}


def test_long_functions_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("class A:\n    async def f(self):\n" + "        x = 1\n" * 70 + "def g(): ...\n")
    assert functions(path) == {"f, line 2": 71, "g, line 73": 1}


def test_nine_parameters_become_objects() -> None:
    files = [p for folder in ("surefoot", *ROOMS) for p in sorted((ROOT / folder).rglob("*.py"))]
    assert {f"{p.relative_to(ROOT)}: {name}" for p in files for name in long_signatures(p)} == set(LONG)


def test_long_signatures_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("class A:\n    def f(self, a, b, c, d, /, e, f, g, *args, h, i=1, **more): ...\ndef g(a, b): ...\n")
    assert long_signatures(path) == ["A.f"]


def private_imports(path: Path) -> set[str]:
    """Return what begins with an underscore in another of our modules and is named in a file.

    It is imported from there, is an attribute of an imported module, or is replaced there by a test.
    """
    tree = ast.parse(path.read_text())
    imported: dict[str, str] = {}  # name in the file -> our module
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {a.asname or a.name: a.name for a in node.names if a.name.split(".")[0] in FOLDERS}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            is_ours = node.module.split(".")[0] in FOLDERS or list((ROOT / "tests").rglob(f"{node.module}.py"))
            for alias in node.names if is_ours else ():
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if any(re.match(r"_[^_]", part) for part in f"{node.module}.{alias.name}".split(".")):
                    found.add(f"{node.module}.{alias.name}")
    modules = {name for name, module in imported.items() if _is_module(module)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules and re.match(r"_[^_]", node.attr):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            target, name = (*(ast.unparse(a) for a in node.args[:2]), "", "")[:2]
            if target in modules and re.match("'_[^_]", name):
                found.add(f"{target}.{name}")
    return found


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def test_no_file_takes_what_another_keeps_to_itself() -> None:
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    found = {str(p.relative_to(ROOT)): names for p in files if (names := private_imports(p))}
    assert found == {}


def test_private_imports_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from surefoot import runs\nimport surefoot.cli\nfrom surefoot.runs import _key_of, RunFolder\n"
        "from small_datasets import _png\nfrom torch import _dynamo\nruns._x, surefoot.cli._y, RunFolder._z\n"
        "monkeypatch.setattr(runs, '_replaced', 1)\nfrom surefoot import __version__\n"
    )
    assert private_imports(path) == {
        *("surefoot.runs._key_of", "small_datasets._png", "runs._x", "surefoot.cli._y", "runs.'_replaced'"),
    }


#: Private names that are written like one of ours, and whose they are.
LIBRARIES_OWN = {
    "benchmarks/private_linear.py: module._module": "opacus' wrapped layer",
    "surefoot/reasoning/values/growing.py: p._version": "torch's count of a tensor's changes in place",
    "tests/cli/test_screen.py: bar._get_train_description": "a hook of Lightning's progress bar",
}


def foreign_members(paths: list[Path]) -> set[tuple[Path, str]]:
    """Return the private members of other files' classes that files reach for, override, or replace in a test."""
    trees = {path: ast.parse(path.read_text()) for path in paths}
    classes = {c.name: (p, c) for p, tree in trees.items() for c in ast.walk(tree) if isinstance(c, ast.ClassDef)}
    members = {name: _private_members(c) for name, (_, c) in classes.items()}
    owners: dict[str, set[Path]] = {}
    for name, (path, _) in classes.items():
        for member in members[name]:
            owners.setdefault(member, set()).add(path)
    found = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name, text = node.attr, ast.unparse(node)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and len(node.args) > 1:
                name, text = ast.unparse(node.args[1]).strip("'"), ast.unparse(node.args[0])
                text = f"{text}.{name}"
            else:
                continue
            if path not in owners.get(name, {path}):
                found.add((path, text))
    for name, (path, node) in classes.items():
        for base in _bases(node, classes):
            if classes[base][0] != path:
                found |= {(path, f"{name}.{member}") for member in members[name] & members[base]}
    return found


def _private_members(node: ast.ClassDef) -> set[str]:
    """Return what a class keeps to itself: methods, attributes of the class, and those that it sets on itself."""
    names = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
    for n in ast.walk(node):
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == "self":
            names.add(n.attr)
    for n in node.body:
        targets = n.targets if isinstance(n, ast.Assign) else [n.target] if isinstance(n, ast.AnnAssign) else []
        names |= {ast.unparse(target) for target in targets}
    return {name for name in names if re.match(r"_[^_]", name)}


def _bases(node: ast.ClassDef, classes: Mapping[str, tuple[Path, ast.ClassDef]]) -> set[str]:
    """Return the names of a class's bases, and of theirs."""
    own = {ast.unparse(b).split("[")[0].split(".")[-1] for b in node.bases} & classes.keys() - {node.name}
    return own.union(*(_bases(classes[base][1], classes) for base in own))


def test_no_class_uses_what_one_in_another_file_keeps_to_itself() -> None:
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    assert {f"{p.relative_to(ROOT)}: {name}" for p, name in foreign_members(files)} == set(LIBRARIES_OWN)


def test_foreign_members_are_found(tmp_path: Path) -> None:
    texts = {
        "a.py": "class A:\n    _kind = 1\n    def _step(self): self._n = 1\n    def go(self): self._step()",
        "b.py": "class B(a.A):\n    def go(self): self._n\nclass C(B):\n    def _step(self): ...",
        "c.py": "x._kind, x._other, x.go\nmonkeypatch.setattr(A, '_step', 1)",
        "d.py": "class D:\n    def _step(self): self._step(), self._mine",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = {(p.name, member) for p, member in foreign_members(sorted(tmp_path.iterdir()))}
    assert found == {("b.py", "self._n"), ("b.py", "C._step"), ("c.py", "x._kind"), ("c.py", "A._step")}


def test_a_class_s_name_means_one_thing() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(p for folder in ("surefoot", *ROOMS) for p in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert found
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_nothing_is_unpickled_or_evaluated() -> None:
    pattern = re.compile(r"(?<![\w.])(eval|exec)\(|pickle\.load|weights_only=False|allow_pickle=True")
    for folder in ("surefoot", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            assert not pattern.search(path.read_text()), path
