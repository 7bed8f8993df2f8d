"""Stored completions with their grades: what ``surefoot generate`` writes and what is chosen from it for training."""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = (
    "COLUMNS",
    "Row",
    "correct_completions",
    "distinct_completions",
    "group_by_problem",
    "read_completions",
)

#: Columns of a dataset of completions, one row per completion. ``completion_ids`` are as sampled; ``target_ids`` are to
#: be trained on, with the end of the turn in place of a stop text.
COLUMNS = (
    "problem_id",
    "problem_index",
    "sample",
    "question",
    "reference",
    "prompt_ids",
    "completion_ids",
    "target_ids",
    "logprobs",
    "text",
    "finish_reason",
    "status",
    "answer",
)

Row = Mapping[str, Any]


def read_completions(folder: Path) -> "Dataset":
    """Return a dataset of completions.

    Args:
        folder: What ``surefoot generate --out`` wrote.

    Raises:
        DataError: If it is missing, unfinished, damaged or lacks a column.
    """
    from datasets import load_from_disk

    if (folder / "generation.json").is_file() and not (folder / "dataset_info.json").is_file():
        raise DataError(f"{folder} is not finished: run the same surefoot generate again to go on.")
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist: expected a folder that surefoot generate wrote.")
    try:
        dataset: Dataset = load_from_disk(str(folder))
    except Exception as error:  # damaged files end in errors of pyarrow's, datasets' and json's own
        raise DataError(f"{folder} cannot be read as a dataset: {error}") from error
    missing = [c for c in COLUMNS if c not in dataset.column_names]
    if missing:
        raise DataError(f"{folder} has no column {', '.join(missing)}: not written by surefoot generate?")
    return dataset


def group_by_problem(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each problem, problems in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["problem_id"]), []).append(row)
    return groups


def correct_completions(rows: Iterable[Row], max_per_problem: int, seed: int = 0, distinct: bool = True) -> list[Row]:
    """Return each problem's correct completions, at most so many, chosen uniformly; truncated ones are left out.

    Distinct ones bring variety where a problem has many solutions. Where it has few, each right one is kept once but
    every way of reaching the answer by luck is distinct: there keep completions as often as they were sampled.

    Args:
        rows: Rows of completions.
        max_per_problem: Most completions kept of a problem.
        seed: Seed of the choice.
        distinct: Keep of completions that differ only in white space the first one.

    References: Yuan et al. 2023, rejection sampling fine-tuning (distinct ones); Singh et al. 2024, ReST-EM (as
    sampled).
    """
    kept: list[Row] = []
    for problem, group in group_by_problem(rows).items():
        chosen = [r for r in group if r["status"] == "correct" and r["finish_reason"] == "stop"]
        if distinct:
            chosen = distinct_completions(chosen)
        if len(chosen) > max_per_problem:
            drawn = random.Random(f"{seed}/{problem}").sample(range(len(chosen)), max_per_problem)
            chosen = [chosen[i] for i in sorted(drawn)]
        kept += chosen
    return kept


def distinct_completions(rows: Sequence[Row]) -> list[Row]:
    """Return the first of each text, up to white space."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(" ".join(str(row["text"]).split()), row)
    return list(first.values())
