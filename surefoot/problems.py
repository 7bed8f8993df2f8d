"""Problems with a reference answer, and files of them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.errors import DataError

__all__ = ("Detail", "Problem", "first_field", "last_boxed", "read_jsonl", "real_data_folder")

Detail = str | int | float | bool


class Problem(NamedTuple):
    """A question whose answer can be checked."""

    id: str  # stable over runs and machines
    question: str
    answer: str  # reference answer
    solution: str = ""  # reference trace, ending with the answer; empty where there is none
    details: Mapping[str, Detail] = {}  # level, subject, number of steps, ...


def real_data_folder(name: str, root: Path | None) -> Path:
    """Return a data set's folder: ``root`` itself, or ``name`` in the folder that SUREFOOT_DATA names.

    Raises:
        DataError: If neither is given, or the folder does not exist.
    """
    if root is None:
        data = os.environ.get("SUREFOOT_DATA")
        if data is None:
            raise DataError(
                f"no folder for {name}: set data.init_args.root, or the environment variable SUREFOOT_DATA"
                f" to a folder with {name}/."
            )
        root = Path(data) / name
    if not root.exists():
        raise DataError(f"{root} does not exist: expected the files of {name} there.")
    return root


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one JSON object a line.

    Raises:
        DataError: If the file is missing or a line is not an object; the line is named.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: expected one JSON object a line.")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number} is not UTF-8: {error}.") from error
            except ValueError as error:
                raise DataError(f"{path}, line {number} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is not a JSON object.")
            yield row


def first_field(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """Return the first of several fields that a row has, as text.

    Raises:
        DataError: If it has none.
    """
    for name in names:
        if row.get(name) is not None:
            value = row[name]
            return f"{value:g}" if isinstance(value, float) and value == int(value) else str(value)
    raise DataError(f"{where} has none of the fields {', '.join(names)}; it has {', '.join(row)}.")


def last_boxed(solution: str, where: str) -> str:
    r"""Return the content of a reference solution's last ``\boxed{}``.

    Raises:
        DataError: If there is none.
    """
    from surefoot.answers import extract_answer

    answer = extract_answer(solution, "boxed")
    if answer is None:
        raise DataError(rf"{where}: the solution has no \boxed{{}} answer.")
    return answer
