"""BIG-Bench Mistake: chains of thought of a large model whose first wrong step people have marked."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import ConfigError
from surefoot.reasoning.problems import Problem, first_answer, first_field, read_jsonl, real_data_folder
from surefoot.reasoning.values import JudgedText, judged_until_an_error

__all__ = ("BigBenchMistakeDataModule",)

Task = Literal[
    "dyck_languages",
    "logical_deduction",
    "multistep_arithmetic",
    "tracking_shuffled_objects",
    "word_sorting",
]
TASKS: tuple[Task, ...] = get_args(Task)


class BigBenchMistakeDataModule(JudgedDataModule):
    """Steps before the first wrong one are worth 1, that one 0; later ones are not judged.

    Reference: Tyen et al. 2024, arXiv 2311.08516.
    """

    def __init__(self, root: Path | None = None, tasks: Sequence[Task] = TASKS, **judged: Any) -> None:
        """Initialize the data.

        Args:
            root: Folder with <task>.jsonl; by default big_bench_mistake in the folder that SUREFOOT_DATA names.
            tasks: Which tasks.
            judged: Arguments of `JudgedDataModule`.

        Raises:
            ConfigError: If there is no task.
        """
        super().__init__(**judged)
        if not tasks:
            raise ConfigError("tasks must name at least one task.")
        self.root, self.tasks = root, tuple(tasks)

    def read(self) -> Iterator[tuple[str, JudgedText]]:
        """Yield the chains of thought.

        Raises:
            DataError: If a file is missing or damaged.
        """
        folder = real_data_folder("big_bench_mistake", self.root)
        for task in self.tasks:
            path = folder / f"{task}.jsonl"
            for i, row in enumerate(read_jsonl(path)):
                where = f"{path}, row {i + 1}"
                question, answer = first_field(row, ["input"], where), first_answer(row, ["target"], where)
                problem = Problem(f"{task}-{i}", question, answer)
                given = row.get("answer")  # null where no answer was found
                is_right = given is not None and str(given).strip() == answer.strip()
                outcome = float(is_right) if "answer" in row else None
                steps, error = row.get("steps"), row.get("mistake_index")
                yield problem.id, judged_until_an_error(problem, steps, error, where, outcome)
