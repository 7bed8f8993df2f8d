"""Star graphs: paths that leave one node, and the first step of the right one is the only decision.

A problem lists the edges in a random order, then where the path starts and where it ends:
``12,5;33,7;12,33;5,21?12,7``. Its solution is the path after the start, ``#### (33,7)``; each `SEPARATOR` ends a step,
which is one node. Every node but the first is found by looking up the edge that leaves the node before; the first needs
the whole path, read from its end. The whole path is the answer: whoever copies the goal from the question is wrong.

Reference: Bachmann & Nagarajan 2024, arXiv 2403.06963, section 4 (whose targets repeat the start).
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from surefoot.reasoning.problems import Problem
from surefoot.storage.files import write_text
from surefoot.training.seeds import derive_seed

__all__ = ("SEPARATOR", "PathGrade", "StarGraphs", "grade_path", "write_problems")

#: Ends a step of a solution, for ``surefoot label``.
SEPARATOR = ","
#: A solution, or one that broke off.
_PATH = re.compile(r"#### \((\d+(?:,\d+)*)")


@dataclass(frozen=True)
class StarGraphs:
    """Graphs of ``degree`` paths of ``length`` nodes each, the start included, which they share.

    Args:
        degree: Paths; whoever guesses the first node is right once in so many.
        length: Nodes of a path, at least 3: with 2, the goal follows the start.
        n_labels: Nodes are named by different numbers from 1 to this.

    Raises:
        ValueError: If a number is out of range.
    """

    degree: int = 2
    length: int = 5
    n_labels: int = 50

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.degree < 2 or self.length < 3 or self.n_labels < self.n_nodes:
            raise ValueError(
                f"expected degree >= 2, length >= 3 and n_labels >= degree * (length - 1) + 1, got {self.degree},"
                f" {self.length} and {self.n_labels}."
            )

    @property
    def n_nodes(self) -> int:
        """Nodes of a graph."""
        return self.degree * (self.length - 1) + 1

    def problem(self, seed: int, number: int) -> Problem:
        """Return a problem, the same for the same seed and number."""
        draw = random.Random(derive_seed("star_graph", seed, number))
        start, *rest = draw.sample(range(1, self.n_labels + 1), self.n_nodes)
        n = self.length - 1
        paths = [(start, *rest[i : i + n]) for i in range(0, len(rest), n)]
        edges = [f"{a},{b}" for path in paths for a, b in pairwise(path)]
        draw.shuffle(edges)
        chosen = paths[0]  # labels are drawn in a random order
        answer = f"({SEPARATOR.join(map(str, chosen[1:]))})"
        question = f"{';'.join(edges)}?{start},{chosen[-1]}"
        return Problem(f"star-graph-{seed}-{number}", question, answer, f"#### {answer}")

    def problems(self, seed: int, n: int) -> list[Problem]:
        """Return the first n problems of a seed."""
        return [self.problem(seed, number) for number in range(n)]


class PathGrade(NamedTuple):
    """What is right of a solution."""

    first_node: bool
    full_path: bool


def grade_path(solution: str, problem: Problem) -> PathGrade:
    """Return what is right of a solution; its first node may be where it broke off later."""
    found = _PATH.search(solution)
    nodes = found[1].split(SEPARATOR) if found else []
    expected = problem.answer.strip("()").split(SEPARATOR)
    return PathGrade(nodes[:1] == expected[:1], solution.strip() == problem.solution)


def write_problems(problems: Sequence[Problem], path: Path) -> None:
    """Write problems to a file that JSONLDataModule reads."""
    rows = ({"id": p.id, "question": p.question, "answer": p.answer, "solution": p.solution} for p in problems)
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
