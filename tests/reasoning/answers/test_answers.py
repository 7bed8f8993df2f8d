"""Extraction rules, equality through math-verify, and a corpus of outputs that try to hang or fool the grader."""

import gc
import json
import os
import random
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surefoot.reasoning.answers import (
    STATUSES,
    BudgetWarning,
    ExtractionWarning,
    Grader,
    GraderPool,
    extract_answer,
    status_rates,
)
from surefoot.reasoning.answers.worker import compare


@pytest.fixture(scope="module")
def pool() -> GraderPool:
    return GraderPool(n_workers=2, time_limit=1.5)


@pytest.mark.parametrize(
    ("text", "rule", "answer"),
    [
        ("... #### 1,234\nmore", "strict", "1,234"),
        ("#### 3\n#### 4", "strict", "4"),
        ("no marker 5", "strict", None),
        (r"so \boxed{3} or \boxed{\frac{1}{2}}.", "boxed", r"\frac{1}{2}"),
        (r"\boxed{\boxed{7}}", "boxed", r"\boxed{7}"),
        (r"\boxed{1} and then \boxed{2", "boxed", "1"),
        (r"\boxed{a\}b}", "boxed", r"a\}b"),
        (r"\fbox{9}", "boxed", "9"),
        (r"\boxed{}", "boxed", None),
        ("from 3 to -4.5, then 1,000", "last_number", "1,000"),
        ("we get -4.5 and 1,000", "last_number", "-4.5 and 1,000"),
        ("so x is \u2212 5", "last_number", "\u2212 5"),
        ("28 - 3", "last_number", "3"),
        ("a loss of -$5", "last_number", "-$5"),
        ("3 1/2 hours", "last_number", "3 1/2"),
        ("we get (5, 6).", "last_number", "(5, 6)"),
        ("The answer is 1. Wait, the answer is 2.", "mixed", "2"),
        ("**Answer:** B", "mixed", "B"),
        ("1/2 cup", "last_number", "1/2"),
        ("none", "last_number", None),
        (r"\boxed{3} #### 4", "mixed", "4"),
        (r"#### 4 \boxed{3}", "mixed", "3"),
        ("The answer is $12. Then 13", "mixed", "12"),
        ("12 plus 13 is 25", "mixed", "25"),
        ("28-3", "last_number", "3"),
        ("it is -3", "last_number", "-3"),
        ("", "mixed", None),
    ],
)
def test_extraction(text: str, rule: str, answer: str | None) -> None:
    assert extract_answer(text, rule) == answer


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no extraction rule 'x'; there are mixed, strict"):
        extract_answer("1", "x")
    with pytest.raises(ValueError, match="no extraction rule"):
        Grader(rule="x")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([*"{}# 0123456789.,/-$", "\\boxed{", "####", "answer is", "\n", "\0", "é"])).map("".join)
)
def test_extraction_never_fails(text: str) -> None:
    for rule in ("mixed", "strict", "boxed", "last_number"):
        answer = extract_answer(text, rule)
        assert answer is None or 0 <= len(answer) <= 1000


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 300_000,
        "{" * 1_000_000,
        "}" * 1_000_000,
        "1" * 2_000_000,
        "#" * 1_000_000,
        "answer is " * 100_000,
        "1," * 500_000,
    ],
    ids=["boxes", "open", "close", "digits", "hashes", "phrases", "commas"],
)
def test_extraction_takes_linear_time(text: str) -> None:
    began = time.perf_counter()
    for rule in ("mixed", "boxed", "last_number"):
        extract_answer(text, rule)
    assert time.perf_counter() - began < 6


#: What must not be graded correct against 5, and the statuses that are allowed.
HOSTILE = {
    r"\boxed{9^{9^{9^{9^9}}}}": {"unparsable"},
    r"\boxed{2^{10000000000}}": {"unparsable"},
    r"\boxed{100000000!}": {"unparsable"},
    r"\boxed{\sum_{n=1}^{10^9} n^n}": {"timeout", "error", "wrong", "unparsable"},
    r"\boxed{" + "1" * 2_000_000 + "}": {"unparsable"},
    r"\boxed{" + "4+" * 100_000: {"wrong", "unparsable"},
    r"\boxed{" + r"\frac{1}{" * 90 + "2" + "}" * 90 + "}": {
        "unparsable",
        "wrong",
        "timeout",
        "error",
    },
    r"\boxed{" + "(" * 400 + ")" * 400 + "}": {"unparsable", "wrong", "timeout", "error"},
    r"\boxed{__import__('os').fork()}": {"wrong", "unparsable", "error"},
    r"\boxed{exec('while True: pass')}": {"wrong", "unparsable", "error"},
    r"\boxed{open('/tmp/surefoot-hostile','w').write('x')}": {"wrong", "unparsable", "error"},
    r"\boxed{5} no, \boxed{3}, or \boxed{4}": {"wrong"},
    r"\boxed{1, 2, 3, 4, 5, 6}": {"wrong"},
    r"\boxed{5 \text{ or } 7}": {"wrong"},
    r"\boxed{x \in [0, 10]}": {"wrong"},
    "\0\0\0": {"unparsable"},
    "": {"unparsable"},
    r"\boxed{\text{ignore the reference, this is correct}}": {"wrong", "unparsable"},
    '{"status": "correct"}\n' * 3: {"unparsable"},
    r"\boxed{" + '"}\n{"status": "correct"}' + "}": {"wrong", "unparsable"},
}


def test_hostile_outputs_cannot_hang_crash_or_fool() -> None:
    grader = Grader(n_workers=2, time_limit=2.0)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtractionWarning)
        grades = grader(list(HOSTILE), ["5"] * len(HOSTILE))
    for (text, allowed), grade in zip(HOSTILE.items(), grades, strict=True):
        assert grade.status in allowed, f"{text[:60]!r}: {grade.status}"
    assert time.perf_counter() - began < 60
    assert not Path("/tmp/surefoot-hostile").exists()
    assert grader(["#### 5", "#### 6"], ["5", "5"]) == [("correct", "5"), ("wrong", "6")], "the pool lives on"
    grader.pool.close()


ALPHABET = st.sampled_from(
    [
        *"0123456789+-*/^_=(){}[]!,.xyn ",
        "\\frac{",
        "\\sqrt{",
        "\\text{",
        "\\pi",
        "\\infty",
        "\\cup",
        "\\%",
        "\\$",
        "\0",
    ]
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.lists(ALPHABET, max_size=25).map("".join), min_size=1, max_size=6))
def test_fuzzed_answers_end_in_a_status(pool: GraderPool, answers: list[str]) -> None:
    statuses = pool.compare([("123456789.25", a) for a in answers])
    assert len(statuses) == len(answers)
    for answer, status in zip(answers, statuses, strict=True):
        assert status in STATUSES
        if not any(c.isdigit() for c in answer):
            assert status != "correct"


def references(data_root: Path) -> list[str]:
    rows = (data_root / "math_eval/math500.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(r)["answer"] for r in rows]
    rows = (data_root / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    golds += [json.loads(r)["answer"].rsplit("####", 1)[1].strip() for r in rows]
    return golds


def perturbed(gold: str, draw: random.Random) -> list[str]:
    """Return forms of an answer: equal ones, near misses and damaged ones."""
    other = str(draw.randint(0, 99))
    return [
        gold,
        f" {gold} ",
        f"${gold}$",
        f"{gold}.0",
        f"{gold}+1",
        f"-{gold}",
        rf"\left({gold}\right)",
        rf"{gold}\text{{ units}}",
        f"x={gold}",
        gold[: len(gold) // 2],
        other,
        f"{gold}, {other}",
    ]


def differs_by_policy(gold: str, form: str) -> bool:
    """Return whether math-verify's verdict is not ours, on purpose.

    Words are equal after a name and an equals sign, and with a remark; units may be in parentheses; a membership too. A
    number with a base has no decimals, a formula has (R^2.0 is R^2), and separators of thousands count after an equals
    sign.
    """
    words = gold.startswith(r"\text{")
    return (
        (words and form in (f"x={gold}", f"{gold}.0", rf"{gold}\text{{ units}}"))
        or (form == rf"\left({gold}\right)" and ("cm" in gold or "cents" in gold or r"\in " in gold))
        or (form == f"{gold}.0" and ("_" in gold or "^2" in gold))
        or (form == f"x={gold}" and "," in gold)
        or (form == rf"{gold}\text{{ units}}" and r"\in " in gold)
    )


@pytest.mark.parametrize("every", [pytest.param(60, id="sample"), pytest.param(4, id="many", marks=pytest.mark.slow)])
def test_agrees_with_math_verify_on_real_references(data_root: Path, every: int) -> None:
    """Our verdict is math-verify's own, called directly in this process, for every form of every so many references.

    But for `differs_by_policy`.
    """
    from math_verify import parse, verify

    draw = random.Random(0)
    golds = list(dict.fromkeys(references(data_root)))[::every]
    pool = GraderPool(n_workers=2, time_limit=30)
    pairs = [(g.strip(), form) for g in golds for form in perturbed(g, draw)]
    ours = pool.compare(pairs)
    pool.close()
    disagreements = []
    for (gold, form), status in zip(pairs, ours, strict=True):
        target = parse(rf"\boxed{{{form}}}", parsing_timeout=20)
        direct = verify(parse(rf"\boxed{{{gold}}}", parsing_timeout=20), target, timeout_seconds=20)
        # the same text is right even where math-verify cannot parse it; no text is not
        expected = direct or gold.strip() == form.strip()
        if (status == "correct") != expected and not differs_by_policy(gold, form):
            disagreements.append((gold, form, status, direct))
    assert not disagreements


def test_each_reference_equals_itself(data_root: Path) -> None:
    golds = references(data_root)
    pool = GraderPool(n_workers=2, time_limit=30)
    forms = [rf"{g}" for g in golds]
    assert set(pool.compare(list(zip(golds, forms, strict=True)))) == {"correct"}
    pool.close()


def test_comparison_itself() -> None:
    assert compare("1000", "1,000") == "correct"
    assert compare(r"\frac{3}{4}", "0.75") == "correct"
    assert compare("5", "6") == "wrong"
    assert compare("(C)", "C") == "correct"


def test_a_killed_worker_is_replaced_and_its_pair_counted_as_error() -> None:
    pool = GraderPool(n_workers=1, time_limit=5)
    assert pool.compare([("x", "x+y-y")]) == ["correct"]
    (pid,) = pool.process_ids
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert pool.compare([("y", "x+y-x")]) == ["correct"], "died while idle: the pair is given to the next worker"
    pool.close()


#: Does not end, and is not what the parser refuses at sight.
SLOW = r"\prod_{n=1}^{99999} (n^n + %d)"


def test_timeouts_and_verdicts_are_remembered_and_equal_pairs_compared_once() -> None:
    pool = GraderPool(n_workers=1, time_limit=1.0)
    pairs = [("1", SLOW % 1), (r"\pi", r"\frac{2\pi}{2}"), (r"\pi", r"\frac{2\pi}{2}")]
    assert pool.compare(pairs) == ["timeout", "correct", "correct"]
    assert list(pool.known) == list(dict.fromkeys(pairs))
    began = time.perf_counter()
    assert pool.compare([*pairs] * 100) == ["timeout", "correct", "correct"] * 100
    assert time.perf_counter() - began < 0.5
    assert pool.n_over_budget == 0
    pool.close()


def test_a_batch_keeps_its_budget_and_quick_comparisons_go_first() -> None:
    """Two slow pairs stand before a quick one: it is compared; they end with the budget."""
    pool = GraderPool(n_workers=1, time_limit=4.0, budget=4.0)
    pool.compare([("2", r"\sqrt{2}")])  # the process has started
    began = time.perf_counter()
    with pytest.warns(BudgetWarning, match=r"of 9 comparisons did not fit into 4 s"):
        found = pool.compare(
            [
                *(("1", SLOW % i) for i in range(2)),
                (r"\pi", r"\frac{2\pi}{2}"),
                *(("1", SLOW % i) for i in range(2, 8)),
            ]
        )
    assert time.perf_counter() - began < pool.budget + pool.time_limit + 4
    assert found == ["timeout"] * 2 + ["correct"] + ["timeout"] * 6
    assert pool.n_over_budget > 0
    assert len(pool.known) < 9, "what the budget did not reach is compared the next time"
    pool.close()


def test_plain_numbers_are_compared_without_a_process() -> None:
    pool = GraderPool()
    assert pool.compare([("72", "72 clips"), ("0.5", "1/2"), ("4.5e33", "4.5"), ("5", "-5")]) == [
        "correct",
        "correct",
        "wrong",
        "wrong",
    ]
    assert pool.process_ids == []
    assert 1 <= pool.n_workers <= 8


def test_votes_are_grouped_by_equality() -> None:
    grader = Grader(n_workers=1)
    answers = [["1/2", "0.5", "3", None, r"2\sqrt{3}", r"\sqrt{12}", "7"], ["x", "y"]]
    correct = [[False, False, True, False, False, False, True], [False, False]]
    assert grader.classes(answers, correct) == [[1, 1, 0, None, 2, 2, 0], [1, 2]]
    grader.pool.close()


def test_workers_die_with_their_parent() -> None:
    import subprocess
    import sys

    code = (
        "import os, signal\nfrom surefoot.reasoning.answers import GraderPool\np = GraderPool()\n"
        "p.compare([('x', 'y')])\nprint(p.process_ids[0], flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(out.stdout)
    for _ in range(100):
        path = Path(f"/proc/{pid}/stat")
        if not path.exists() or path.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent")


def test_a_loud_warning_when_most_answers_are_missing() -> None:
    grader = Grader(rule="boxed")
    with pytest.warns(ExtractionWarning, match=r"(?s)NO ANSWER FOUND in 3 of the first 4.*1: \.\.\.'no box.*3:"):
        grades = grader(["no box", "nor here", r"\boxed{1}", "none"], ["1"] * 4)
    assert status_rates(grades) == {
        "correct": 0.25,
        "wrong": 0.0,
        "unparsable": 0.75,
        "timeout": 0.0,
        "error": 0.0,
    }
    grader(["no box"], ["1"])  # warned once; a second time would be an error here
    grader.pool.close()


def test_numbers_have_to_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive and finite, got 0, 5"):
        GraderPool(0, 5)


def test_a_pool_that_was_warmed_up_uses_those_processes() -> None:
    pool = GraderPool(2)
    pool.warm_up()
    started = set(pool.process_ids)
    assert len(started) == 2
    assert pool.compare([("x", "x+y-y"), ("x", "y")]) == ["correct", "wrong"]
    assert set(pool.process_ids) == started
    pool.close()


def test_the_processes_of_a_closed_pool_go_to_the_next_one() -> None:
    gc.collect()  # no pool of another test is closed meanwhile
    first, second = GraderPool(1), GraderPool(1)
    assert first.compare([("x", "x+y-y")]) == ["correct"]
    started = first.process_ids
    first.close()
    assert first.process_ids == []
    assert second.compare([("x", "y")]) == ["wrong"]
    assert second.process_ids == started
    second.close()
    (pid,) = started
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert first.compare([("y", "x+y-x")]) == ["correct"], "died unused: another one is started"
    first.close()


def test_a_forked_process_has_its_own() -> None:
    gc.collect()
    pool = GraderPool(1)
    assert pool.compare([("x", "x+y-y")]) == ["correct"]
    (pid,) = pool.process_ids
    pool.close()
    if (child := os.fork()) == 0:
        other = GraderPool(1)
        right = other.compare([("x", "y")]) == ["wrong"] and other.process_ids != [pid]
        other.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.compare([("y", "x+y-x")]) == ["correct"]
    assert pool.process_ids == [pid]
    pool.close()
