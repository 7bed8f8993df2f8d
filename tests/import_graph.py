"""Count the architecture: rooms, arrows, circles, floors and the largest files, read from the imports.

``python tests/import_graph.py [FOLDER]`` prints them for a checkout.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import networkx as nx

ROOT = Path(__file__).parents[1]
OUTER = ("lightning_modules", "datamodules", "callbacks")


class Counts(NamedTuple):
    """What is counted of a checkout."""

    files: int
    #: Folders with modules, and modules that lie loose in ``surefoot``
    rooms: int
    #: Pairs of rooms of which one imports from the other
    arrows: int
    #: Sets of files, and of rooms apart from those inside one another, that reach each other by imports anywhere
    file_circles: list[list[str]]
    room_circles: list[list[str]]
    #: Rooms on the longest way of imports
    floors: int
    #: Lines of the largest files
    largest: list[tuple[int, str]]


def modules(root: Path) -> dict[str, Path]:
    """Return the files of the product by dotted name."""
    files = [p for folder in ("surefoot", *OUTER) for p in (root / folder).rglob("*.py")]
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in sorted(files)}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield those of the known modules that a file imports, be it in a function or for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module for a in node.names
            ]
        else:
            continue
        yield from (name for name in names if name in known)


def graph_of(root: Path) -> nx.DiGraph:
    """Return which file imports which."""
    known = modules(root)
    graph = nx.DiGraph()
    graph.add_nodes_from(known)
    for module, path in known.items():
        graph.add_edges_from((module, other) for other in imported(path, known) if other != module)
    return graph


def passed_on(path: Path, known: dict[str, Path]) -> set[str]:
    """Return what a file reaches through one of the known modules that merely imports it, as ``module.name``.

    Other modules hold their own names, and a package's ``__init__`` those that its ``__all__`` lists.
    """
    tree = ast.parse(path.read_text())
    reached: list[tuple[str, str]] = []  # module, name
    ours: dict[str, str] = {}  # what the file calls a known module
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                ours |= {alias.asname or alias.name: full} if full in known else {}
                reached.append((node.module, alias.name))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    reached += [(ours[base], node.attr) for node in attributes if (base := ast.unparse(node.value)) in ours]
    return {f"{m}.{name}" for m, name in reached if f"{m}.{name}" not in known and name in _foreign(known[m])}


@cache
def _foreign(path: Path) -> frozenset[str]:
    """Return the names that a module has from others and that are not its to give."""
    foreign, own = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            foreign |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        if path.name == "__init__.py" and isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            own |= {*ast.literal_eval(node.value)}
    return frozenset(foreign - own)


def room_of(module: str, known: dict[str, Path]) -> str:
    """Return the folder of a module; of one that lies loose in ``surefoot``, the module itself."""
    parent = module.rpartition(".")[0]
    return module if known[module].name == "__init__.py" or parent == "surefoot" else parent


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """Return the sets of nodes that reach each other."""
    return sorted(sorted(nodes) for nodes in nx.strongly_connected_components(graph) if len(nodes) > 1)


def count(root: Path) -> Counts:
    """Return the counts of a checkout."""
    known, graph = modules(root), graph_of(root)
    rooms = {module: room_of(module, known) for module in known}
    arrows = {(rooms[a], rooms[b]) for a, b in graph.edges if rooms[a] != rooms[b]}
    of_rooms = nx.DiGraph(arrows)
    of_rooms.add_nodes_from(rooms.values())
    # a folder's face shows what its inner folders hold
    apart = of_rooms.edge_subgraph(
        (a, b) for a, b in arrows if not (f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}."))
    )
    floors = nx.dag_longest_path_length(nx.condensation(of_rooms)) + 1
    lines = sorted(((len(p.read_text().splitlines()), str(p.relative_to(root))) for p in known.values()), reverse=True)
    return Counts(len(known), len(set(rooms.values())), len(arrows), circles(graph), circles(apart), floors, lines[:10])


if __name__ == "__main__":
    found = count(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
    print(f"{found.files} files, {found.rooms} rooms, {found.arrows} arrows, {found.floors} floors")
    for title, sets in (("circles of files", found.file_circles), ("circles of rooms", found.room_circles)):
        print(f"{len(sets)} {title}")
        for names in sets:
            print("  " + ", ".join(names))
    print("largest files")
    for lines, name in found.largest:
        print(f"  {lines:5} {name}")
