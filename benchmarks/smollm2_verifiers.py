"""An outcome and a process reward model of SmolLM2-135M on real labels, beside what needs no model.

python benchmarks/smollm2_verifiers.py --out benchmarks/results/smollm2_verifiers.json

Trained through the shipped configs, measured on the fifth of the problems that they hold out. Run again, it reads
finished runs and what they have predicted, and only measures.

The baselines read nothing of what a step says. Some know where it ends: its number, and the characters and tokens so
far, of which more count as worse; of an outcome, which is judged at the last step, these are the solution's length.
Others know how often steps are right in training: those of its task, and those of its task and number. For first
errors, they see the number of steps of a solution, and its task: chosen in training for all tasks alike, for the F1
within each task, or for that over all solutions. The model calls the first step wrong whose value is below 1/2, or
below the threshold that is best on the other half of the held-out problems.

BIG-Bench Mistake has five tasks, which the prompt gives away and of which some are harder: all is measured over all
solutions, within each task, and as the mean over tasks. Intervals redraw problems, with all of their solutions; draws
in which a statistic has no value, such as F1 where every solution of a task is wrong, are left out.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
import yaml

from surefoot.cli import main as surefoot
from surefoot.cli.loading import build_datamodule
from surefoot.reasoning.metrics.judgements import brier_score, first_error, first_errors, ranking
from surefoot.reasoning.problems import read_jsonl
from surefoot.reasoning.values import JudgedText
from surefoot.runs import RunFolder, describe_environment, list_runs
from surefoot.statistics import bootstrap_interval
from surefoot.storage.json_files import write_json

ROOT = Path(__file__).parents[1]
#: What is trained -> its config.
VERIFIERS = {
    "outcome": "process_reward_gsm8k_solutions_smollm2",
    "process": "process_reward_big_bench_mistake_smollm2",
}


class Step(NamedTuple):
    """A judged step."""

    task: str
    number: int  # from 1
    label: float  # 1 for right, 0 for wrong


class Solution(NamedTuple):
    """A solution, at its judged steps."""

    problem: str  # its id
    task: str
    steps: list[Step]
    n_steps: int  # judged or not
    scores: dict[str, list[float]]  # of the model, and of the baselines

    @property
    def labels(self) -> list[float]:
        """Whether each judged step is right."""
        return [step.label for step in self.steps]


Statistic = Callable[[Sequence[Solution]], float]
#: From a solution to the number of its first wrong step from 0, -1 for none.
Predictor = Callable[[Solution], int]


def settings_of(run: RunFolder) -> dict[str, Any]:
    """Return a run's settings, none where it has not begun."""
    path = run.path / "config.yaml"
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def predicted(runs: Sequence[RunFolder], trained: RunFolder, checkpoint: Path) -> Path | None:
    """Return what a checkpoint of a run has predicted before with the run's settings, none where it has not."""
    same = ("seed_everything", "trainer", "model", "data")
    wanted = {name: settings_of(trained)[name] for name in same} | {"ckpt_path": str(checkpoint)}
    for run in reversed(runs):
        found, path = settings_of(run), run.path / "predictions.jsonl"
        if path.is_file() and {name: found[name] for name in wanted} == wanted:
            return path
    return None


def train_and_predict(name: str, runs: Path, flags: Sequence[str]) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Train a verifier; return its run, and its predictions of the held-out solutions."""
    common = ["--config", str(ROOT / f"configs/reasoning/{name}.yaml"), "--runs_root", str(runs), *flags]
    surefoot(["fit", *common])
    trained = RunFolder((runs / name / "latest").resolve())
    checkpoint = trained.path / "checkpoints/last.ckpt"
    experiment = f"{name}-predict"
    path = predicted(list_runs(runs / experiment), trained, checkpoint)
    if path is None:
        surefoot(["predict", *common, "--ckpt_path", str(checkpoint), "--experiment", experiment])
        path = runs / experiment / "latest/predictions.jsonl"
    return trained, list(read_jsonl(path))


def solution(judged: JudgedText) -> Solution:
    """Return a solution without scores; what its problem's id says before the number is the task."""
    task = judged.problem.id.rpartition("-")[0]
    steps = [Step(task, n, float(v)) for n, v in enumerate(judged.values, 1) if v is not None]
    return Solution(judged.problem.id, task, steps, len(judged.values), {})


class TrainingRates:
    """How often steps are right in training: all, those of a task, and those of a task and number.

    A rate counts one more step, which is as right as the wider group's: what training does not know has that rate.
    """

    def __init__(self, train: Iterable[Solution]) -> None:
        """Count."""
        self._labels: dict[object, list[float]] = defaultdict(list)
        for step in (step for s in train for step in s.steps):
            for group in (None, step.task, (step.task, step.number)):
                self._labels[group].append(step.label)

    def _rate(self, group: object, wider: float) -> float:
        labels = self._labels.get(group, [])
        return (sum(labels) + wider) / (len(labels) + 1)

    def of_task(self, step: Step) -> float:
        """Return the rate of the step's task."""
        return self._rate(step.task, self._rate(None, 0.5))

    def of_number(self, step: Step) -> float:
        """Return the rate of the steps of the step's task with its number."""
        return self._rate((step.task, step.number), self.of_task(step))


def few(counts: Iterable[int]) -> list[float]:
    """Return scores in (0, 1] that fall with the counts; a ranking takes numbers beyond for logits, and rounds them."""
    return [1 / (1 + n) for n in counts]


def scored(rows: Sequence[dict[str, Any]], test: Sequence[JudgedText], train: Sequence[Solution]) -> list[Solution]:
    """Return the held-out solutions with the scores of the model and of the baselines.

    Those of which two steps end within one token are left out.
    """
    rates, found = TrainingRates(train), []
    for row in rows:
        judged = test[row["index"]]
        own = solution(judged)
        if len(own.steps) != len(row["values"]):
            continue
        scores = {
            "model": row["values"],
            "number of the step": few(step.number for step in own.steps),
            "characters so far": few(sum(map(len, judged.steps[: step.number])) for step in own.steps),
            "tokens so far": few(row["n_tokens"]),
            "rate of the task": [rates.of_task(step) for step in own.steps],
            "rate of the task and number": [rates.of_number(step) for step in own.steps],
        }
        found.append(own._replace(scores=scores))
    return found


def grouped(solutions: Iterable[Solution], by: Callable[[Solution], str]) -> dict[str, list[Solution]]:
    """Return solutions by their task, or by their problem."""
    groups: dict[str, list[Solution]] = defaultdict(list)
    for s in solutions:
        groups[by(s)].append(s)
    return groups


def mean_over_tasks(statistic: Statistic) -> Statistic:
    """Return the mean over tasks of a statistic of each one's solutions."""
    return lambda chosen: fmean(statistic(own) for own in grouped(chosen, lambda s: s.task).values())


def interval(statistic: Statistic, test: Sequence[Solution]) -> dict[str, float]:
    """Return a statistic of solutions with its 95% interval over redrawn problems."""
    problems = [*grouped(test, lambda s: s.problem).values()]
    return bootstrap_interval(lambda drawn: statistic([s for i in drawn for s in problems[i]]), len(problems))._asdict()


def measured(statistic: Statistic, test: Sequence[Solution]) -> dict[str, Any]:
    """Return a statistic of all solutions; where there are several tasks, of each, and the mean over them."""
    tasks = grouped(test, lambda s: s.task)
    found: dict[str, Any] = {"all": interval(statistic, test)}
    if len(tasks) > 1:
        found["mean over tasks"] = interval(mean_over_tasks(statistic), test)
        found["tasks"] = {task: interval(statistic, own) for task, own in sorted(tasks.items())}
    return found


def of_steps(metric: Callable[[torch.Tensor, torch.Tensor], float], score: str) -> Statistic:
    """Return a metric of a score over all judged steps."""

    def of(chosen: Sequence[Solution]) -> float:
        scores = torch.tensor([v for s in chosen for v in s.scores[score]])
        return metric(scores, torch.tensor([v for s in chosen for v in s.labels]))

    return of


def first_wrong(s: Solution) -> int:
    """Return the number of a solution's first wrong step from 0, -1 if it has none."""
    return first_error(s.labels, 0.5)


def some_are_wrong(solutions: Sequence[Solution]) -> bool:
    """Return whether some solutions have a wrong step, and some none: first errors have no F1 otherwise."""
    return len({first_wrong(s) < 0 for s in solutions}) == 2


def first_error_f1(predict: Predictor) -> Statistic:
    """Return ProcessBench's F1 of a predictor of the first wrong step, NaN where it has no value."""

    def of(chosen: Sequence[Solution]) -> float:
        if not some_are_wrong(chosen):
            return math.nan
        truth = torch.tensor([first_wrong(s) for s in chosen])
        return first_errors(torch.tensor([predict(s) for s in chosen]), truth).f1

    return of


@dataclass(frozen=True)
class Rule:
    """Says one step of all solutions that have enough steps, and of the others that all is right."""

    step: int  # from 0
    least: int  # steps of a solution

    def __call__(self, s: Solution) -> int:
        """Return the first wrong step of a solution."""
        return self.step if s.n_steps >= self.least else -1

    def of(self, n_steps: torch.Tensor) -> torch.Tensor:
        """Return the first wrong steps of solutions of so many steps."""
        return torch.where(n_steps >= self.least, self.step, -1)


def rules(n_steps: torch.Tensor) -> list[Rule]:
    """Return the rules that differ on solutions of so many steps."""
    return [Rule(step, least) for least in range(1, 1 + int(n_steps.max())) for step in range(least)]


def as_tensors(train: Sequence[Solution]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of steps of solutions, and their first wrong ones."""
    return torch.tensor([s.n_steps for s in train]), torch.tensor([first_wrong(s) for s in train])


def best_rule(train: Sequence[Solution]) -> Rule:
    """Return the rule with the best F1 on training solutions, of which some are wrong."""
    n_steps, truth = as_tensors(train)
    return max(rules(n_steps), key=lambda rule: first_errors(rule.of(n_steps), truth).f1)


def best_rule_of_each_task(train: Sequence[Solution]) -> Predictor:
    """Return the rules with the best F1 within each task; where training cannot tell, that for all."""
    tasks = grouped(train, lambda s: s.task)
    chosen = {task: best_rule(own) for task, own in tasks.items() if some_are_wrong(own)}
    otherwise = best_rule(train)
    return lambda s: chosen.get(s.task, otherwise)(s)


def best_rules_together(train: Sequence[Solution]) -> Predictor:
    """Return rules for the tasks with the best F1 over all solutions: one task's is changed at a time while it rises.

    They may call all solutions of a task wrong, which costs F1 within it and wins where right ones are of other tasks.
    """
    n_steps, truth = as_tensors(train)
    masks = {task: torch.tensor([s.task == task for s in train]) for task in grouped(train, lambda s: s.task)}
    otherwise = best_rule(train)
    chosen, found, reached = dict.fromkeys(masks, otherwise), otherwise.of(n_steps), -1.0
    while (f1 := first_errors(found, truth).f1) > reached:
        reached = f1
        for task, mask in masks.items():
            outcomes = {
                rule: torch.where(mask, rule.of(n_steps), found) for rule in (chosen[task], *rules(n_steps[mask]))
            }
            chosen[task] = max(outcomes, key=lambda rule: first_errors(outcomes[rule], truth).f1)
            found = outcomes[chosen[task]]
    return lambda s: chosen.get(s.task, otherwise)(s)


def at_the_best_threshold(test: Sequence[Solution]) -> Predictor:
    """Return the model's first values below a threshold: for each half of the problems the best one of the other."""
    half_of = {problem: i % 2 for i, problem in enumerate(sorted({s.problem for s in test}))}
    chosen = {}
    for half in (0, 1):
        others = [s for s in test if half_of[s.problem] != half]
        scores = torch.tensor([v for s in others for v in s.scores["model"]])
        candidates = scores.quantile(torch.linspace(0, 1, 101)).unique().tolist()
        f1 = {limit: first_error_f1(below(constant(limit)))(others) for limit in candidates}
        chosen[half] = max(f1, key=f1.__getitem__)
    return below(lambda s: chosen[half_of[s.problem]])


def constant(limit: float) -> Callable[[Solution], float]:
    """Return the same limit for every solution."""
    return lambda _: limit


def below(limit: Callable[[Solution], float]) -> Predictor:
    """Return the first of the model's values that are below a limit."""
    return lambda s: first_error(s.scores["model"], limit(s))


def compare(test: Sequence[Solution], train: Sequence[Solution]) -> dict[str, Any]:
    """Return what the model and the baselines reach on held-out solutions."""
    scores = [*test[0].scores]
    probabilities = [score for score in scores if score == "model" or score.startswith("rate")]
    found: dict[str, Any] = {
        "n_train": len(train),
        "n_test": len(test),
        "share_right": fmean(v for s in test for v in s.labels),
        "auroc": {score: measured(of_steps(ranking, score), test) for score in scores},
        "brier": {score: measured(of_steps(brier_score, score), test) for score in probabilities},
    }
    if any(len(s.steps) > 1 for s in test):
        predictors: dict[str, Predictor] = {
            "model": below(constant(0.5)),
            "model, best threshold": at_the_best_threshold(test),
            "number of steps": best_rule(train),
            "number of steps, by task": best_rule_of_each_task(train),
            "number of steps, by task for all": best_rules_together(train),
        }
        found["first_error_f1"] = {who: measured(first_error_f1(how), test) for who, how in predictors.items()}
    return found


def measure(name: str, runs: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Train one verifier and return what it and the baselines reach."""
    trained, rows = train_and_predict(name, runs, flags)
    data: Any = build_datamodule(settings_of(trained)["data"])
    train = [solution(judged) for judged in data.judged("train")]
    test = scored(rows, data.judged("test"), train)
    return {"n_left_out": len(rows) - len(test)} | compare(test, train)


def main() -> None:
    """Measure and write; other arguments go to the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="keep the runs here, and resume them")
    parser.add_argument("--out", type=Path, default=Path("smollm2_verifiers.json"))
    parser.add_argument("--only", choices=[*VERIFIERS], help="one of the two")
    given, flags = parser.parse_known_args()
    chosen = [given.only] if given.only else [*VERIFIERS]
    result: dict[str, Any] = {kind: measure(VERIFIERS[kind], given.runs, flags) for kind in chosen}
    write_json(given.out, result | {"flags": flags, "environment": describe_environment()})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
