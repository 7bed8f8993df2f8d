"""Problems of a user's own: files, fields, and what is wrong with them in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules import JSONLDataModule
from surefoot.errors import ConfigError, DataError


def write(path: Path, *rows: dict[str, Any], encoding: str = "utf-8") -> Path:
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    path.write_text(text, encoding=encoding)
    return path


ROW = {"question": "2 + 2?", "answer": "4", "level": 1, "tags": ["easy"]}


def test_fields_ids_and_details(tmp_path: Path) -> None:
    train = write(
        tmp_path / "mine.jsonl",
        ROW | {"id": "first"},
        {"question": "3 * 5?", "solution": r"It is \boxed{15}."},
        {"question": "x", "answer": 0.5, "solution": None, "hard": True},
    )
    problems = JSONLDataModule(train=train, n_val=0).problems("train")
    assert [(p.id, p.answer) for p in problems] == [
        ("first", "4"),
        ("mine-2", "15"),
        ("mine-3", "0.5"),
    ]
    assert problems[0].details == {"level": 1}
    assert problems[1].solution == r"It is \boxed{15}."
    assert problems[2].details == {"hard": True}


def test_other_names_of_fields_and_splits(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} + 1?", "gold": str(i + 1)} for i in range(10)]
    train = write(tmp_path / "train.jsonl", *rows)
    test = write(tmp_path / "test.jsonl", *rows[:3])
    data = JSONLDataModule(train=train, test=test, question="prompt", answer="gold", n_val=4)
    assert [len(data.problems(s)) for s in ("train", "val", "test")] == [6, 4, 3]
    alone = JSONLDataModule(test=test, question="prompt", answer="gold")
    assert len(alone.problems("test")) == 3
    validated = JSONLDataModule(val=test, question="prompt", answer="gold")
    assert len(validated.problems("val")) == 3


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"question": "2 + 2?"}], "none of the fields answer; it has question"),
        ([ROW, {"problem": "?", "answer": "1"}], "object 2 has none of the fields question"),
        ([ROW | {"answer": " "}], "object 1: the question or the answer is empty"),
        ([ROW | {"id": "a"}, ROW | {"id": "a"}], "two problems have the id 'a'"),
        ([{"question": "?", "solution": "no box"}], "no \\boxed{} answer"),
        ([], "holds no problem"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    file = write(tmp_path / "mine.jsonl", *rows)
    with pytest.raises(DataError) as error:
        JSONLDataModule(test=file).problems("test")
    assert says in str(error.value)
    assert str(file) in str(error.value)


def test_encodings(tmp_path: Path) -> None:
    row = ROW | {"question": "Wie viel sind 2 + 2 Äpfel?"}
    latin = write(tmp_path / "latin.jsonl", ROW, row, encoding="latin-1")
    with pytest.raises(DataError, match=r"latin.jsonl, line 2 is not UTF-8"):
        JSONLDataModule(test=latin).problems("test")
    marked = write(tmp_path / "bom.jsonl", row, encoding="utf-8-sig")
    assert JSONLDataModule(test=marked).problems("test")[0].question == row["question"]


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a file"):
        JSONLDataModule()
    with pytest.raises(DataError, match="is missing"):
        JSONLDataModule(test=tmp_path / "nope.jsonl").problems("test")
