"""Solutions of GSM8K's test problems by four models, with whether each is right."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.problems import Problem, first_field, read_jsonl, real_data_folder
from surefoot.reasoning.values import JudgedText, judged_solution

__all__ = ("GSM8KSolutionsDataModule",)

Solver = Literal["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


class GSM8KSolutionsDataModule(JudgedDataModule):
    """The outcome of each solution: what an outcome reward model learns from.

    Reference: Cobbe et al. 2021, arXiv 2110.14168.
    """

    def __init__(self, root: Path | None = None, solvers: Sequence[Solver] = SOLVERS, **judged: Any) -> None:
        """Initialize the data.

        Args:
            root: Folder with example_model_solutions.jsonl; by default gsm8k in the folder that SUREFOOT_DATA names.
            solvers: Whose solutions.
            judged: Arguments of `JudgedDataModule`.

        Raises:
            ConfigError: If there is no solver.
        """
        super().__init__(**judged)
        if not solvers:
            raise ConfigError("solvers must name at least one model.")
        self.root, self.solvers = root, tuple(solvers)

    def read(self) -> Iterator[tuple[str, JudgedText]]:
        """Yield the solutions.

        Raises:
            DataError: If the file is missing or damaged.
        """
        path = real_data_folder("gsm8k", self.root) / "example_model_solutions.jsonl"
        for i, row in enumerate(read_jsonl(path)):
            where = f"{path}, row {i + 1}"
            question, truth = (first_field(row, [name], where) for name in ("question", "ground_truth"))
            problem = Problem(f"gsm8k-test-{i}", question, truth.rpartition("A: ")[2].strip())
            for solver in self.solvers:
                given = row.get(solver)
                if not isinstance(given, Mapping) or not isinstance(given.get("is_correct"), bool):
                    raise DataError(f"{where} has no judged solution of {solver}.")
                steps = first_field(given, ["solution"], f"{where}, {solver}").split("\n")
                outcome = float(given["is_correct"])
                values = [*[None] * (len(steps) - 1), outcome]
                yield problem.id, judged_solution(problem, steps, values, f"{where}, {solver}", outcome=outcome)
