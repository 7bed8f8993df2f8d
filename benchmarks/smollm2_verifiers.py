"""An outcome and a process reward model of SmolLM2-135M on real labels, beside what needs no model.

python benchmarks/smollm2_verifiers.py --out benchmarks/results/smollm2_verifiers.json

Trained through the shipped configs, measured on the fifth of the problems that they hold out. The baselines know where
a step lies and nothing of what it says: its number, and how many tokens end with it; for first errors, the number of
steps of the solution.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from surefoot.cli import main as surefoot
from surefoot.cli.loading import build_datamodule
from surefoot.reasoning.metrics.judgements import brier_score, first_error, first_errors, ranking
from surefoot.reasoning.problems import read_jsonl
from surefoot.reasoning.values import JudgedText
from surefoot.runs import describe_environment
from surefoot.statistics import bootstrap_interval
from surefoot.storage.json_files import write_json

ROOT = Path(__file__).parents[1]
#: What is trained -> its config.
VERIFIERS = {
    "outcome": "process_reward_gsm8k_solutions_smollm2",
    "process": "process_reward_big_bench_mistake_smollm2",
}


class Solution(NamedTuple):
    """A held-out solution, at its judged steps."""

    labels: list[float]
    n_steps: int  # judged or not
    scores: dict[str, list[float]]  # of the model, and of the baselines


def train_and_predict(name: str, runs: Path, flags: Sequence[str]) -> list[dict[str, Any]]:
    """Train a verifier and return its predictions of the held-out solutions; finished runs are only read."""
    common = ["--config", str(ROOT / f"configs/reasoning/{name}.yaml"), "--runs_root", str(runs), *flags]
    surefoot(["fit", *common])
    checkpoint = runs / name / "latest/checkpoints/last.ckpt"
    surefoot(["predict", *common, "--ckpt_path", str(checkpoint), "--experiment", f"{name}-predict"])
    return list(read_jsonl(runs / f"{name}-predict/latest/predictions.jsonl"))


def labels_of(judged: JudgedText) -> list[float]:
    """Return the labels of a solution's judged steps."""
    return [float(v) for v in judged.values if v is not None]


def solutions(rows: Sequence[dict[str, Any]], test: Sequence[JudgedText]) -> list[Solution]:
    """Return the held-out solutions with the scores of the model and of the baselines.

    Those of which two steps end within one token are left out.
    """
    found = []
    for row in rows:
        judged = test[row["index"]]
        numbers = [n for n, v in enumerate(judged.values, 1) if v is not None]
        if len(numbers) != len(row["values"]):
            continue
        scores = {
            "model": row["values"],
            "number of the step": [-float(n) for n in numbers],
            "tokens so far": [-float(n) for n in row["n_tokens"]],
        }
        found.append(Solution(labels_of(judged), len(judged.values), scores))
    return found


def measured(statistic: Callable[[Sequence[Solution]], float], test: Sequence[Solution]) -> dict[str, float]:
    """Return a statistic of solutions with its 95% interval over redrawn solutions."""
    return bootstrap_interval(lambda chosen: statistic([test[i] for i in chosen]), len(test))._asdict()


def auroc(score: str) -> Callable[[Sequence[Solution]], float]:
    """Return the area under the ROC curve of a score over all judged steps."""

    def of(chosen: Sequence[Solution]) -> float:
        scores = torch.tensor([v for s in chosen for v in s.scores[score]])
        return ranking(scores, torch.tensor([v for s in chosen for v in s.labels]))

    return of


def brier(chosen: Sequence[Solution]) -> float:
    """Return the model's Brier score over all judged steps."""
    scores = torch.tensor([v for s in chosen for v in s.scores["model"]])
    return brier_score(scores, torch.tensor([v for s in chosen for v in s.labels]))


def first_error_f1(predict: Callable[[Solution], int]) -> Callable[[Sequence[Solution]], float]:
    """Return ProcessBench's F1 of a predictor of the first wrong step."""

    def of(chosen: Sequence[Solution]) -> float:
        truth = torch.tensor([first_error(s.labels, 0.5) for s in chosen])
        if (truth < 0).all() or (truth >= 0).all():
            return math.nan
        return first_errors(torch.tensor([predict(s) for s in chosen]), truth).f1

    return of


def by_number_of_steps(train: Sequence[JudgedText]) -> Callable[[Solution], int]:
    """Return the best predictor on the training solutions of those that say one step of all that have enough steps."""
    known = [Solution(labels_of(judged), len(judged.values), {}) for judged in train]
    lengths = range(2, 1 + max(s.n_steps for s in known))

    def predictor(step: int, least: int) -> Callable[[Solution], int]:
        return lambda s: step if s.n_steps >= least else -1

    predictors = [predictor(step, least) for least in lengths for step in range(least)]
    return max(predictors, key=lambda predict: first_error_f1(predict)(known))


def measure(name: str, runs: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Train one verifier and return what it and the baselines reach."""
    rows = train_and_predict(name, runs, flags)
    settings = yaml.safe_load((runs / name / "latest/config.yaml").read_text())
    data: Any = build_datamodule(settings["data"])
    test = solutions(rows, data.judged("test"))
    found: dict[str, Any] = {
        "n_train": len(data.judged("train")),
        "n_test": len(test),
        "n_left_out": len(rows) - len(test),
        "share_right": sum(sum(s.labels) for s in test) / sum(len(s.labels) for s in test),
        "auroc": {score: measured(auroc(score), test) for score in test[0].scores},
        "brier": measured(brier, test),
    }
    if any(len(s.labels) > 1 for s in test):
        predictors: dict[str, Callable[[Solution], int]] = {"model": lambda s: first_error(s.scores["model"], 0.5)}
        predictors["number of steps"] = by_number_of_steps(data.judged("train"))
        found["first_error_f1"] = {who: measured(first_error_f1(how), test) for who, how in predictors.items()}
    return found


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
