"""Problems with a reference answer, and files of them."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.errors import DataError

__all__ = (
    "Detail",
    "Problem",
    "checked_reference",
    "first_answer",
    "first_field",
    "last_boxed",
    "read_jsonl",
    "real_data_folder",
    "unreadable_references",
)

#: So many formulas of a split are read by the parser when data is loaded, some milliseconds each.
_MAX_READ = 200

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


def first_field(row: Mapping[str, object], names: Sequence[str], where: str) -> str:
    """Return the first of several fields that a row has, as text.

    Raises:
        DataError: If it has none.
    """
    for name in names:
        if row.get(name) is not None:
            value = row[name]
            return _number(value, f"{where}, {name}") if isinstance(value, float) else str(value)
    raise DataError(f"{where} has none of the fields {', '.join(names)}; it has {', '.join(row)}.")


def first_answer(row: Mapping[str, object], names: Sequence[str], where: str) -> str:
    """Return the first of several fields that a row has, as a reference answer: numbers keep all their digits.

    Raises:
        DataError: If it has none, or it is no text and no number.
    """
    found = next((row[n] for n in names if row.get(n) is not None), "")
    if not isinstance(found, str | int | float):
        raise DataError(f"{where}: the answer is {found!r}: expected a number or a text.")
    return first_field(row, names, where)


def _number(value: float, where: str) -> str:
    if not math.isfinite(value):
        raise DataError(f"{where} is {value}: expected a finite number.")
    return str(int(value)) if value == int(value) and abs(value) < 1e16 else repr(value)


def checked_reference(answer: str, where: str) -> str:
    """Return a reference answer that something can equal.

    Raises:
        DataError: If it is empty, too long, says that there is none, or its brackets do not match.
    """
    from surefoot.reasoning.answers import MAX_ANSWER_LENGTH
    from surefoot.reasoning.answers.notation import tidy

    fault = None
    if not answer.strip():
        fault = "is empty"
    elif len(answer) > MAX_ANSWER_LENGTH:
        fault = f"has {len(answer)} characters, of at most {MAX_ANSWER_LENGTH}"
    elif answer.strip().lower() in ("nan", "none", "null", "n/a", "[invalid]"):
        fault = "is no answer"
    elif not re.search(r"\w|\\(?:infty|emptyset|varnothing|\{)|[∞∅]", tidy(answer)):
        fault = "has neither a digit nor a letter"
    elif not _braces_match(answer):
        fault = "has braces that do not match"
    elif re.search(
        r"\\(?:[dt]?frac|sqrt|boxed|text)\s*(?:\{\s*\}|$)|\\frac\s*\{[^{}]*\}\s*(?:\{\s*\}|$)",
        answer,
    ):
        fault = "has a LaTeX command without its argument"
    if fault is not None:
        raise DataError(
            f"{where}: the reference answer {answer[:60]!r} {fault}, so that every completion would be graded wrong:"
            " mend or remove the problem."
        )
    return answer


def unreadable_references(answers: Sequence[str]) -> list[str]:
    """Return the reference answers that only their own text equals, because the parser finds no formula in them.

    Of many, an even sample of formulas is read.
    """
    from surefoot.reasoning.answers.equality import is_unreadable, plain_verdict

    formulas = [a for a in dict.fromkeys(answers) if plain_verdict(a, a) is None]
    return [a for a in formulas[:: len(formulas) // _MAX_READ + 1] if is_unreadable(a)]


def _braces_match(text: str) -> bool:
    depth = 0
    for token in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            return False
    return depth == 0


def last_boxed(solution: str, where: str) -> str:
    r"""Return the content of a reference solution's last ``\boxed{}``.

    Raises:
        DataError: If there is none.
    """
    from surefoot.reasoning.answers import extract_answer

    answer = extract_answer(solution, "boxed")
    if answer is None:
        raise DataError(rf"{where}: the solution has no \boxed{{}} answer.")
    return answer
