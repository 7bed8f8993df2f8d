"""Baselines that read nothing of a step, on solutions made by hand."""

import json
import math
from pathlib import Path

import pytest
import yaml
from small_datasets import write_big_bench_mistake

from benchmarks import smollm2_verifiers
from benchmarks.smollm2_verifiers import (
    Rule,
    Solution,
    Step,
    TrainingRates,
    best_rule,
    best_rule_of_each_task,
    best_rules_together,
    first_error_f1,
    interval,
    main,
    mean_over_tasks,
    measured,
    of_steps,
    predicted,
    scored,
    solution,
)
from surefoot.reasoning.metrics.judgements import ranking
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.values import judged_until_an_error
from surefoot.runs import RunFolder


def made(task: str, number: int, n_steps: int, error: int | None = None, score: float = 0.5) -> Solution:
    """Return a solution that is judged until its first wrong step, numbered from 0."""
    n_judged = n_steps if error is None else error + 1
    steps = [Step(task, n, float(n - 1 != error)) for n in range(1, 1 + n_judged)]
    return Solution(f"{task}-{number}", task, steps, n_steps, {"model": [score] * n_judged})


def test_a_solution_knows_its_task_and_only_judged_steps_count() -> None:
    judged = judged_until_an_error(Problem("word-sorting-7", "?", "a"), ["one", "three", "two"], 1, "here")
    own = solution(judged)
    assert (own.problem, own.task, own.n_steps) == ("word-sorting-7", "word-sorting", 3)
    assert own.steps == [("word-sorting", 1, 1.0), ("word-sorting", 2, 0.0)]


def test_what_training_does_not_know_has_the_rate_of_the_wider_group() -> None:
    rates = TrainingRates([made("a", 0, 2, error=1), made("a", 1, 1), made("b", 0, 1, error=0)])
    overall = (2 + 0.5) / (4 + 1)  # two of four steps are right
    in_a = (2 + overall) / (3 + 1)
    assert rates.of_task(Step("a", 1, 0.0)) == pytest.approx(in_a)
    assert rates.of_number(Step("a", 1, 0.0)) == pytest.approx((2 + in_a) / (2 + 1))
    assert rates.of_number(Step("a", 2, 0.0)) == pytest.approx((0 + in_a) / (1 + 1))
    assert rates.of_number(Step("a", 9, 0.0)) == rates.of_task(Step("a", 9, 0.0))
    assert rates.of_number(Step("c", 1, 0.0)) == pytest.approx(overall)


def test_scores_stand_beside_the_judged_steps_and_rank_long_beginnings() -> None:
    """Lengths of hundreds of tokens are still told apart: as logits they would all round to 0."""
    problem = Problem("a-0", "?", "0")
    judged = judged_until_an_error(problem, ["x" * 500, "y" * 500, "z"], 1, "here")
    rows = [
        {"index": 0, "values": [0.9, 0.2], "n_tokens": [300, 600]},
        {"index": 0, "values": [0.9], "n_tokens": [600]},  # two steps within a token
    ]
    (own,) = scored(rows, [judged], [made("a", 0, 2)])
    assert own.scores["model"] == [0.9, 0.2]
    assert own.scores["characters so far"] == [1 / 502, 1 / 1003]
    assert of_steps(ranking, "tokens so far")([own]) == 1


def test_within_a_task_the_rate_of_the_task_ranks_nothing() -> None:
    """One task's steps are right, another's wrong but for one each: together the task ranks, alone it does not."""
    easy, hard = [made("easy", 0, 9), made("easy", 1, 1, 0)], [made("hard", i, 1, 0) for i in range(9)]
    test = [*easy, *hard, made("hard", 9, 1)]
    rates = TrainingRates(test)
    test = [s._replace(scores={"task": [rates.of_task(step) for step in s.steps]}) for s in test]
    of = of_steps(ranking, "task")
    assert of(test) == pytest.approx(0.9)  # 81 of the 100 pairs, and half of the 18 within a task
    assert mean_over_tasks(of)(test) == 0.5
    found = measured(of, test)
    assert [found[name]["mean"] for name in ("all", "mean over tasks")] == pytest.approx([0.9, 0.5])
    assert [*found["tasks"]] == ["easy", "hard"]
    assert [*measured(of, [s for s in test if s.task == "easy"])] == ["all"]


def test_intervals_redraw_problems() -> None:
    """Ten solutions of each of two problems are two units: half of the draws hold one problem alone."""
    test = [made("a", number, 1, None if number else 0) for number in (0, 1) for _ in range(10)]
    found = interval(lambda chosen: sum(s.labels[0] for s in chosen) / len(chosen), test)
    assert found == {"mean": 0.5, "low": 0, "high": 1, "n": 2}


def test_rules_for_each_task_and_for_all() -> None:
    """Task a: errors at step 1 where there are three steps. Task b: errors at step 0, however many steps there are."""
    train = [made("a", i, 3, 1) for i in range(4)] + [made("a", i, 2) for i in range(4, 8)]
    train += [made("b", i, 3, 0) for i in range(4)] + [made("b", 4, 3)]
    assert best_rule(train[:8]) == Rule(step=1, least=3)
    assert best_rule(train[8:]) == Rule(step=0, least=1)  # nothing has an F1 above 0, the first is taken
    assert first_error_f1(best_rule(train))(train) == pytest.approx(2 * 0.5 * 0.8 / 1.3)
    together = best_rules_together(train)
    # task b gives up its one right solution: all eight errors are found, and four of five right solutions
    assert first_error_f1(together)(train) == pytest.approx(2 * 1 * 0.8 / 1.8)
    each = best_rule_of_each_task(train)
    assert [each(s) for s in train] == [together(s) for s in train]
    unknown = made("c", 0, 3, 0)
    assert each(unknown) == together(unknown) == best_rule(train)(unknown)


def test_no_f1_where_all_solutions_are_alike() -> None:
    assert math.isnan(first_error_f1(lambda s: -1)([made("a", 0, 2)]))


def test_predictions_are_read_if_they_are_of_this_checkpoint_and_these_settings(tmp_path: Path) -> None:
    def run(number: int, **changed: object) -> RunFolder:
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = {"seed_everything": 0, "trainer": {}, "model": {}, "data": {}, "ckpt_path": None}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings | changed))
        (folder / "predictions.jsonl").touch()
        return RunFolder(folder)

    checkpoint = tmp_path / "0/checkpoints/last.ckpt"
    trained, same = run(0), run(1, ckpt_path=str(checkpoint))
    others = [run(2, ckpt_path="another"), run(3, ckpt_path=str(checkpoint), data={"seed": 1})]
    unfinished = run(4, ckpt_path=str(checkpoint))
    (unfinished.path / "predictions.jsonl").unlink()
    assert predicted([same, *others, unfinished], trained, checkpoint) == same.path / "predictions.jsonl"
    assert predicted([*others, unfinished], trained, checkpoint) is None


@pytest.mark.filterwarnings("ignore")  # of Lightning about short runs
def test_a_finished_run_is_only_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_big_bench_mistake(data, n=40)
    monkeypatch.setattr(smollm2_verifiers, "ROOT", Path(__file__).parents[1])  # with the tiny twins
    arguments = ["--only", "process", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "found.json")]
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments, "--data.init_args.root", str(data)])
    found = []
    for _ in range(2):
        main()
        found.append(json.loads((tmp_path / "found.json").read_text())["process"])
    name = smollm2_verifiers.VERIFIERS["process"]
    assert found[0] == found[1]
    assert [f.name for f in sorted((tmp_path / "runs").glob("*/[0-9]*"))] == ["0", "0"]
    assert (tmp_path / f"runs/{name}-predict/0/predictions.jsonl").is_file()
    assert (found[0]["n_test"], found[0]["n_left_out"]) == (10, 0)
    n_right = round(20 * found[0]["share_right"]) - 10  # solutions of two steps, of which the second may be wrong
    expected = (10 + n_right / 2) / (10 + n_right)  # all first steps are ranked above wrong ones, second ones alike
    assert found[0]["auroc"]["rate of the task and number"]["all"]["mean"] == pytest.approx(expected)
    assert [*found[0]["first_error_f1"]["model"]] == ["all"]
