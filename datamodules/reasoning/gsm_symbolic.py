"""GSM-Symbolic: grade-school word problems from templates, as many as one likes."""

import random
from collections.abc import Sequence
from typing import Any

from datamodules.reasoning.problems import ProblemsDataModule, SplitName
from surefoot.errors import DataError
from surefoot.reasoning.problems import Problem, first_answer
from surefoot.training.seeds import derive_seed

__all__ = ("GSMSymbolicDataModule",)


class GSMSymbolicDataModule(ProblemsDataModule):
    """A hundred templates of word problems with fresh names and numbers, through reasoning-gym; seeded, offline.

    Problems with the same question never stand in two splits.

    Reference: Mirzadeh et al., ICLR 2025; reasoning-gym, task gsm_symbolic.
    """

    def __init__(self, n_train: int = 2000, n_test: int = 500, **splits: Any) -> None:
        """Initialize the generator.

        Args:
            n_train: Training problems.
            n_test: Test problems.
            splits: Arguments of `ProblemsDataModule`.
        """
        arguments: dict[str, Any] = {"n_train": n_train, "n_test": n_test, "contamination": "off"}
        super().__init__(**arguments | splits)
        self.sizes: dict[SplitName, int] = {"train": n_train, "val": self.n_val, "test": n_test}
        self._drawn: dict[SplitName, list[Problem]] = {}

    def read(self, split: SplitName) -> Sequence[Problem] | None:
        """Return a split's problems, generated once."""
        if not self._drawn:
            seen: set[str] = set()
            for name in ("test", "val", "train"):
                self._drawn[name] = self._draw(name, seen)
        return self._drawn[split]

    def variant(self, parent: Problem, number: int) -> Problem:
        """Return a problem from the same template as a given one, with fresh names and numbers; none of val or test.

        Args:
            parent: A problem of this datamodule.
            number: Which variant; equal numbers give equal variants.
        """
        import reasoning_gym

        dataset = reasoning_gym.create_dataset("gsm_symbolic", size=1, seed=0)
        template = int(parent.details["template"])
        draw = random.Random(derive_seed("variant", parent.id, number))
        held = {p.question for split in ("val", "test") for p in self.read(split) or ()}
        entry = dataset.generators[template](draw, dataset.config.difficulty)
        while entry["question"] in held:
            entry = dataset.generators[template](draw, dataset.config.difficulty)
        return _problem(f"{parent.id}-variant-{number}", entry, template)

    def _draw(self, split: SplitName, seen: set[str]) -> list[Problem]:
        try:
            import reasoning_gym
        except ImportError as error:
            raise DataError("GSMSymbolicDataModule needs reasoning-gym: pip install reasoning-gym.") from error
        size = self.sizes[split]
        dataset = reasoning_gym.create_dataset(
            "gsm_symbolic", size=2 * size + 100, seed=derive_seed(self.seed, split) % 2**31
        )
        problems: list[Problem] = []
        for i in range(2 * size + 100):
            if len(problems) == size:
                break
            entry = dataset[i]
            if entry["question"] in seen:
                continue
            seen.add(entry["question"])
            identity = f"gsm_symbolic-{self.seed}-{split}-{i}"
            problems.append(_problem(identity, entry, int(dataset.task_indices[i])))
        if len(problems) < size:
            raise DataError(f"only {len(problems)} distinct {split} problems could be generated, not {size}.")
        return problems


def _problem(identity: str, entry: Any, template: int) -> Problem:
    """Return reasoning-gym's entry as a problem."""
    solution = str(entry["metadata"].get("answer_cot", f"#### {entry['answer']}"))
    n_steps = max(1, len([s for s in solution.split("\n") if s.strip()]) - 2)
    details = {"n_steps": n_steps, "template": template}
    answer = first_answer(entry, ["answer"], identity)
    return Problem(identity, entry["question"], answer, solution, details)
