"""A corpus of what models write: no wrong answer may be graded correct, and hardly a right one wrong."""

from pathlib import Path
from typing import NamedTuple

from surefoot.reasoning.answers import Grader

CORPUS = Path(__file__).with_name("corpus.tsv")


class Row(NamedTuple):
    """A line of the corpus."""

    expected: bool
    reference: str
    completion: str
    line: str


def rows() -> list[Row]:
    """Return the corpus."""
    found = []
    for line in CORPUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        grade, how, reference, text, _reason = line.split("\t")
        assert grade in ("right", "wrong"), line
        assert how in ("box", "text"), line
        text = text.replace("⏎", "\n")
        completion = rf"So it is \boxed{{{text}}}." if how == "box" else text
        found.append(Row(grade == "right", reference, completion, line))
    return found


def test_no_false_positive_and_hardly_a_false_negative() -> None:
    corpus = rows()
    assert len(corpus) >= 300
    grader = Grader(n_workers=2, time_limit=10)
    grades = grader([r.completion for r in corpus], [r.reference for r in corpus])
    grader.pool.close()
    verdicts = list(zip(corpus, grades, strict=True))
    false_positives = [r.line for r, g in verdicts if g.correct and not r.expected]
    false_negatives = [(r.line, g) for r, g in verdicts if r.expected and not g.correct]
    assert not false_positives
    assert len(false_negatives) <= 0.02 * sum(r.expected for r in corpus), false_negatives
    assert not [r.line for r, g in verdicts if g.status in ("timeout", "error")]
