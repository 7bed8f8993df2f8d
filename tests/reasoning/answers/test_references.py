"""Every shipped reference equals itself in the notations that models write, and no other one."""

import random

import pytest

from datamodules.reasoning import EvaluationSetDataModule, GSM8KDataModule
from surefoot.reasoning.answers import Grader

FORMS = (
    r"So \boxed{%s}.",
    r"$\boxed{%s}$",
    r"\boxed{%s.}",
    "So 48 / 2 = 24.\n#### %s",
    "#### $%s$",
    "The answer is $%s$.",
    "The answer is %s.",
    r"Therefore, the answer is \(%s\).",
    "The final answer is: $$%s$$",
    "**Answer:** $%s$",
    "Final Answer: %s",
    "Hence\n\\[ %s \\]",
)
SETS = ("amc23", "aime24", "minerva_math", "svamp", "asdiv", "math500", "gsm8k")
#: Cross pairs that are equal: looked at by hand.
EQUAL = frozenset[tuple[str, str]]()


def references(name: str) -> list[str]:
    """Return the different references of a set."""
    data = (
        GSM8KDataModule(n_val=0, contamination="off") if name == "gsm8k" else EvaluationSetDataModule(name)  # type: ignore[arg-type]
    )
    data.setup("")
    return list(dict.fromkeys(p.answer for p in data.splits["test"]))


def rejected(golds: list[str], n_forms: int) -> list[tuple[str, str]]:
    """Return the references and completions that are not accepted; each reference is written in some forms, in turn."""
    grader = Grader(n_workers=2, time_limit=10, budget=400)
    pairs = [
        (gold, FORMS[(i * n_forms + k) % len(FORMS)] % gold) for i, gold in enumerate(golds) for k in range(n_forms)
    ]
    grades = grader([text for _, text in pairs], [gold for gold, _ in pairs])
    grader.pool.close()
    return [pair for pair, grade in zip(pairs, grades, strict=True) if not grade.correct]


@pytest.mark.usefixtures("data_root")
def test_a_sample_of_references_accept_themselves() -> None:
    golds = [g for name in SETS[2:] for g in references(name)[::20]]
    assert len(golds) > 50
    assert rejected(golds, 3) == []


@pytest.mark.slow
@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize("name", SETS)
def test_all_references_accept_themselves(name: str) -> None:
    assert rejected(references(name), 4) == []


def accepted_across(name: str, n_golds: int, n_others: int) -> list[tuple[str, str]]:
    """Return pairs of different references of which one passes for the other, plain numbers aside."""
    golds = [g for g in references(name) if not g.isdigit()]
    draw = random.Random(0)
    chosen = draw.sample(golds, min(len(golds), n_golds))
    pairs = [(g, o) for g in chosen for o in draw.sample(golds, min(len(golds), n_others)) if g != o]
    grader = Grader(n_workers=2, time_limit=10, budget=400)
    statuses = grader.pool.compare(pairs)
    grader.pool.close()
    return [p for p, s in zip(pairs, statuses, strict=True) if s == "correct"]


@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize("name", ["minerva_math", "math500"])
def test_no_other_reference_passes(name: str) -> None:
    assert set(accepted_across(name, 6, 6)) <= EQUAL


@pytest.mark.slow
@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize("name", ["minerva_math", "math500", "asdiv"])
def test_no_other_reference_passes_among_many(name: str) -> None:
    assert set(accepted_across(name, 60, 12)) <= EQUAL
