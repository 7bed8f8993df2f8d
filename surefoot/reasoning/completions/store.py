"""Stored completions: folders of Arrow files, a row per completion, in the one schema of `Trajectory.as_row`."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.errors import DataError
from surefoot.reasoning.trajectories import REQUIRED_COLUMNS, Trajectory
from surefoot.storage.files import replacing
from surefoot.storage.json_files import fingerprint, read_json, write_json

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

__all__ = (
    "RECORD",
    "SCHEMA_VERSION",
    "describe_shards",
    "is_described",
    "n_rows",
    "read_column",
    "read_columns",
    "read_completions",
    "read_shard",
    "read_trajectories",
    "schema",
    "write_shard",
)

#: File that says what a folder of completions is for.
RECORD = "generation.json"
#: Stands in that file; shards of different ones do not go together. 1 had no more than `REQUIRED_COLUMNS`, 2
#: no ``value_counts``, 3 no ``prover``, 4 no ``policy``.
SCHEMA_VERSION = 5
DESCRIPTION = "dataset_info.json"


def schema() -> "pyarrow.Schema":
    """Return the columns of `Trajectory.as_row` with their types."""
    import pyarrow as pa

    tokens, numbers = pa.list_(pa.int32()), pa.list_(pa.float64())
    return pa.schema(
        {
            "problem_id": pa.string(),
            "problem_index": pa.int64(),
            "sample": pa.int32(),
            "question": pa.string(),
            "reference": pa.string(),
            "prompt_ids": tokens,
            "completion_ids": tokens,
            "target_ids": tokens,
            "logprobs": pa.list_(pa.float32()),
            "text": pa.string(),
            "finish_reason": pa.string(),
            "status": pa.string(),
            "answer": pa.string(),
            "solution": pa.string(),
            "details": pa.string(),
            "policy_version": pa.int64(),
            "temperature": pa.float64(),
            "policy": pa.string(),
            "n_given": pa.int32(),
            "mask": pa.list_(pa.bool_()),
            "span_starts": tokens,
            "span_ends": tokens,
            "steps": pa.list_(pa.string()),
            "values": numbers,
            "value_counts": tokens,
            "prover": pa.string(),
            "rewards": numbers,
            "reward_parts": pa.string(),
        }
    )


def write_shard(trajectories: Iterable[Trajectory], path: Path) -> None:
    """Write completions to one file, whole or not at all."""
    import pyarrow as pa

    table = pa.Table.from_pylist([t.as_row() for t in trajectories], schema=schema())
    with replacing(path) as part, part.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def n_rows(path: Path) -> int:
    """Return the rows of a shard, -1 if it is missing or damaged."""
    import pyarrow as pa

    if not path.is_file():
        return -1
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            return sum(batch.num_rows for batch in stream)
    except (pa.ArrowInvalid, OSError):
        return -1


def read_columns(path: Path, columns: Sequence[str]) -> "pyarrow.Table":
    """Return some columns of a shard."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        return stream.read_all().select(list(columns))


def read_shard(path: Path) -> Iterator[Trajectory]:
    """Return the completions of a shard that this version has written."""
    for row in read_columns(path, schema().names).to_pylist():
        yield Trajectory.from_row(row)


def is_described(folder: Path) -> bool:
    """Return whether `describe_shards` has finished with a folder."""
    return (folder / DESCRIPTION).is_file()


def describe_shards(folder: Path, shards: Sequence[Path]) -> None:
    """Make a folder one that ``datasets.load_from_disk`` reads."""
    from datasets import DatasetInfo, Features

    names = [p.name for p in shards]
    write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": fingerprint({"shards": names, "out": str(folder)}),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        },
    )
    DatasetInfo(features=Features.from_arrow_schema(schema())).write_to_directory(str(folder))


def read_completions(folder: Path) -> "Dataset":
    """Return the rows of stored completions.

    Args:
        folder: What ``surefoot generate --out`` wrote.

    Raises:
        DataError: If it is missing, unfinished, damaged or lacks a column.
    """
    from datasets import load_from_disk

    if (folder / RECORD).is_file() and not is_described(folder):
        verb = read_json(folder / RECORD).get("verb", "generate")
        raise DataError(f"{folder} is not finished: run the same surefoot {verb} again to go on.")
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist: expected a folder that surefoot generate wrote.")
    try:
        dataset: Dataset = load_from_disk(str(folder))
    except Exception as error:  # damaged files end in errors of pyarrow's, datasets' and json's own
        raise DataError(f"{folder} cannot be read as a dataset: {error}") from error
    missing = [c for c in REQUIRED_COLUMNS if c not in dataset.column_names]
    if missing:
        raise DataError(f"{folder} has no column {', '.join(missing)}: not written by surefoot generate?")
    return dataset


def read_column(folder: Path, name: str) -> list[Any]:
    """Return one column of stored completions; arguments and errors are those of `read_completions`."""
    return list(read_completions(folder).with_format("arrow")[:][name].to_pylist())


def read_trajectories(folder: Path, rows: Sequence[int] | None = None) -> Iterator[Trajectory]:
    """Return stored completions one after the other.

    Args:
        folder: What ``surefoot generate --out`` wrote.
        rows: Which of them; all by default.

    Raises:
        DataError: If it is missing, unfinished, damaged, lacks a column, or a row is no completion.
    """
    stored: Any = read_completions(folder)
    for i in range(len(stored)) if rows is None else rows:
        try:
            trajectory = Trajectory.from_row(stored[i])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder}, row {i + 1} is no stored completion: {error}.") from error
        yield trajectory
