"""The arithmetic study, measured: policies, the values of what they write, and verifiers beside exact values."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from surefoot.reasoning.arithmetic import judge_steps
from surefoot.reasoning.completions.store import describe_shards, is_described, read_trajectories, write_shard
from surefoot.reasoning.credit import EffectiveReward
from surefoot.reasoning.credit.progress import progress
from surefoot.reasoning.language_models import PretrainedLanguageModel
from surefoot.reasoning.metrics.judgements import ranking
from surefoot.reasoning.sequences import split_spans
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ExactChainValues, LearnedValues
from surefoot.reproduce.jobs import measure_rows, run_calls, run_jobs, seconds_of
from surefoot.reproduce.language_models import ENGINE, completions_of, folder_of, model_of, run_verb
from surefoot.reproduce.pav.studies import (
    ALPHA,
    JUDGE,
    ORACLE,
    SAMPLING,
    VERIFIERS,
    K,
    Size,
    data,
    policy,
    pretraining,
    verifier,
    weak_policy,
)
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured

__all__ = ("best_threshold", "measure_policies", "on_track", "prepare_reinforcement", "sampled_with")

ROLLOUTS = "rollouts"  # many from each prefix, beside verifiers
FIRST_PIT = 0.5  # value from which on a loss is looked for


def measure_policies(size: Size, out: Path, seeds: Sequence[int]) -> Iterator[Measured]:
    """Train policies, label what they write, train verifiers, and yield what the values are and who predicts them.

    Args:
        size: Of the study.
        out: Folder of runs.
        seeds: Of the policies.
    """
    seconds = _train_policies(size, out, seeds) + _sample_and_label(size, out, seeds)
    gaps = measure_rows("arithmetic_values", value_rows, {s: (s, out) for s in seeds}, side_by_side=False)
    yield Measured(gaps.tables, {"arithmetic_values": seconds})
    seconds = _train_verifiers(size, out, seeds) + run_calls(write_exact_values, {s: (s, out) for s in seeds})[1]
    learned = [name for name in size.verifiers if name != ORACLE]
    arguments = {(s, name): (s, name, out) for s in seeds for name in (*learned, ROLLOUTS)}
    gate = measure_rows("arithmetic_verifiers", verifier_rows, arguments)
    yield Measured(gate.tables, {"arithmetic_verifiers": seconds + gate.seconds["arithmetic_verifiers"]})
    yield measure_rows("arithmetic_outcome_errors", outcome_error_rows, {s: (s, out) for s in seeds})


def prepare_reinforcement(size: Size, out: Path, seeds: Sequence[int]) -> None:
    """Make what reinforcement begins with, unless the folder has it: policies, and the verifier of the prover's steps.

    Args:
        size: Of the study.
        out: Folder of runs.
        seeds: Of the policies.
    """
    needed = size._replace(verifiers=(JUDGE,), n_held_out=0)
    for prepare in (_train_policies, _sample_and_label, _train_verifiers):
        prepare(needed, out, seeds)


def _train_policies(size: Size, out: Path, seeds: Sequence[int]) -> float:
    """Return the seconds of work."""
    trained = run_jobs([pretraining(s, size) for s in seeds], out)
    trained |= run_jobs([make(s, size, out) for s in seeds for make in (policy, weak_policy)], out)
    return seconds_of(trained.values())


def _train_verifiers(size: Size, out: Path, seeds: Sequence[int]) -> float:
    """Train those that learn, on fewer completions in half as many steps; return the seconds."""
    jobs, few = [], math.ceil(size.epochs * size.n_traces / size.n_few / 2)
    for name in size.verifiers:
        if name == ORACLE:
            continue
        epochs = {"outcome": size.outcome_epochs, "few": few, "first_pit": few}.get(name, size.epochs)
        given = size._replace(epochs=epochs)
        jobs += [verifier(s, given, name, completions_of(VERIFIERS[name], s, out), out) for s in seeds]
    return seconds_of(run_jobs(jobs, out).values())


def _sample_and_label(size: Size, out: Path, seeds: Sequence[int]) -> float:
    """Write the completions that verifiers learn from and are measured on; return the seconds of work."""
    drawn = {"samples": (1000, size.n_traces)}
    labels: dict[str, tuple[str, int, Mapping[str, object]]] = {"labels": ("samples", size.n_rollouts, {})}
    if size.n_held_out:
        drawn |= {"held": (2000, size.n_held_out), "predicted": (2700, size.n_predicted)}
        labels["held_out"] = ("held", size.n_oracle, {})
    if "outcome" in size.verifiers:
        drawn["sampled"] = (1500, size.n_outcomes)
    if "few" in size.verifiers:
        drawn["some"] = (2500, size.n_few)
        labels["few"] = ("some", size.n_rollouts, {})
    if "first_pit" in size.verifiers:  # the first round takes half of what all steps take, the rest goes to pits
        rounds = {"per_round": max(1, size.n_rollouts // 2), "first_pit": FIRST_PIT}
        labels["first_pit"] = ("some", 2 * size.n_rollouts, rounds)
    _, sampling = run_calls(sample, {(s, name): (name, *drawn[name], s, size, out) for s in seeds for name in drawn})
    _, labelling = run_calls(label, {(s, name): (name, *labels[name], s, out) for s in seeds for name in labels})
    writers = {"control": write_on_track, "outcome": write_outcomes}
    chosen = [write for name, write in writers.items() if name in size.verifiers]
    written = [run_calls(write, {s: (s, out) for s in seeds})[1] for write in chosen]
    return sampling + labelling + sum(written)


def sample(name: str, first: int, n: int, seed: int, size: Size, out: Path) -> None:
    """Write one completion of each of ``n`` problems; ``first`` tells their seeds from those of other completions."""
    problems = {"data": data(size, first + seed, n_train=n), "split": "train", "problems_per_shard": 512}
    settings = sampled_with(seed, out) | problems | {"sampling": {"n": 1, **SAMPLING}}
    run_verb("generate", settings, completions_of(name, seed, out))


def label(name: str, completions: str, n_rollouts: int, rounds: Mapping[str, object], seed: int, out: Path) -> None:
    """Write completions again, with values of their prefixes from at most ``n_rollouts`` rollouts of each."""
    given = {"completions": str(completions_of(completions, seed, out)), "sampling": {"n": n_rollouts, **SAMPLING}}
    settings = {**sampled_with(seed, out), **given, **rounds, "problems_per_shard": 128}
    run_verb("label", settings, completions_of(name, seed, out))


def sampled_with(seed: int, out: Path) -> dict[str, Any]:
    """Return the settings of verbs that name a seed's policy and its engine."""
    return {"model": model_of(f"policy_seed{seed}", out), "engine": ENGINE}


def write_on_track(seed: int, out: Path) -> None:
    """Write labelled completions again, with 1 as the value of each prefix whose steps are all right, 0 of others."""
    _write_again("labels", "on_track", seed, out, lambda t: [1.0, *map(float, on_track(t))])


def write_outcomes(seed: int, out: Path) -> None:
    """Write completions again, with 1 as the value of each prefix of those with a right answer, and 0 of others."""
    _write_again("sampled", "outcomes", seed, out, lambda t: [float(t.is_correct)] * (1 + len(t.spans)))


def write_exact_values(seed: int, out: Path) -> None:
    """Write held-out completions again, with the policy's own values of their prefixes, which are computed."""
    exact, policy = ExactChainValues(tolerance=1.0), _loaded_policy(seed, out)

    def values(trajectory: Trajectory) -> Sequence[float]:
        exact.compute(policy, [trajectory])
        return trajectory.values

    _write_again("held_out", "exact", seed, out, values)


def _write_again(
    name: str, written: str, seed: int, out: Path, values: Callable[[Trajectory], Sequence[float]]
) -> None:
    """Write stored completions with known values of their prefixes."""
    folder = completions_of(written, seed, out)
    if is_described(folder):
        return
    trajectories = list(read_trajectories(completions_of(name, seed, out)))
    decode = _loaded_policy(seed, out).decode
    for t in trajectories:
        if not t.spans:
            t.spans, t.steps = split_spans(t.completion, decode, "\n", t.text)
        t.values, t.value_counts = values(t), ()
    folder.mkdir(parents=True, exist_ok=True)
    shard = folder / "data-00000-of-00001.arrow"
    write_shard(trajectories, shard)
    describe_shards(folder, [shard])


def on_track(trajectory: Trajectory) -> list[bool]:
    """Return, for each step, whether it and all steps before it are right."""
    kinds = judge_steps(trajectory.problem.question, [step.strip("\n") for step in trajectory.steps])
    found: list[bool] = []
    for kind in kinds:
        found.append((not found or found[-1]) and kind in ("correct", "answer"))
    return found


def value_rows(seed: int, out: Path) -> Rows:
    """Return the mean value after each step, of beginnings that are right and of others."""
    values: dict[tuple[int, bool], list[float]] = {}
    for t in read_trajectories(completions_of("held_out", seed, out)):
        for step, (right, value) in enumerate(zip([True, *on_track(t)], t.values, strict=True)):
            values.setdefault((step, right), []).append(value)
    return [
        {"seed": seed, "step": step, "right": right, "value": sum(own) / len(own), "n": len(own)}
        for (step, right), own in sorted(values.items())
    ]


def verifier_rows(seed: int, name: str, out: Path) -> Rows:
    """Return how well a verifier, or many rollouts, predict the policy's exact values and advantages."""
    exact = list(read_trajectories(completions_of("exact", seed, out)))
    true_values = torch.tensor([v for t in exact for v in t.values])
    true_steps = torch.tensor([a for t in exact for a in progress(t)])
    right = torch.tensor([float(r) for t in exact for r in [True, *on_track(t)]])
    judged = list(read_trajectories(completions_of("held_out", seed, out)))
    if name != ROLLOUTS:
        LearnedValues(folder_of(f"{name}_seed{seed}", out)).predict(judged)
    values = torch.tensor([v for t in judged for v in t.values])
    steps = torch.tensor([a for t in judged for a in progress(t)])
    ends = torch.tensor([t.values[-1] for t in judged])
    labels = "held_out" if name == ROLLOUTS else VERIFIERS[name]
    return [
        {
            "seed": seed,
            "verifier": name,
            "correlation_of_values": _correlation(values, true_values),
            "correlation_of_advantages": _correlation(steps, true_steps),
            "auroc_right_so_far": ranking(values, right),
            "auroc_right_answer": ranking(ends, torch.tensor([float(t.is_correct) for t in judged])),
            "rollouts": _rollouts(labels, seed, out),
        }
    ]


def outcome_error_rows(seed: int, out: Path) -> Rows:
    """Return how often a score of each step, below a threshold or not, predicts the wrong outcome.

    A threshold of its own for each score and step is chosen on the first half of the completions; the errors are those
    of the second half.
    """
    completions = list(read_trajectories(completions_of("predicted", seed, out)))
    decode = _loaded_policy(seed, out).decode
    for t in completions:
        t.spans, t.steps = split_spans(t.completion, decode, "\n", t.text)
    LearnedValues(folder_of(f"{JUDGE}_seed{seed}", out)).predict(completions)
    half, rows = len(completions) // 2, []
    for name, score in {"Q": EffectiveReward(alpha=0), "Q + alpha A": EffectiveReward(alpha=ALPHA, k=K)}.items():
        scored = [(score(t), t.is_correct) for t in completions]
        for step in range(max(len(scores) for scores, _ in scored)):
            chosen_on, measured_on = (
                [(scores[step], right) for scores, right in own if len(scores) > step]
                for own in (scored[:half], scored[half:])
            )
            if chosen_on and measured_on:
                threshold, n = best_threshold(chosen_on), len(measured_on)
                error = sum((value >= threshold) != right for value, right in measured_on) / n
                rows.append({"seed": seed, "step": step + 1, "score": name, "error": error, "n": n})
    return rows


def best_threshold(scored: Sequence[tuple[float, bool]]) -> float:
    """Return the score from which on right is predicted, with the fewest errors.

    Args:
        scored: Scores, and whether each is of something right.
    """
    ordered = sorted(scored, reverse=True)
    errors = sum(right for _, right in ordered)  # where nothing is predicted to be right
    least, best = errors, math.inf
    for score, group in groupby(ordered, key=lambda pair: pair[0]):
        errors += sum(-1 if right else 1 for _, right in group)
        if errors < least:
            least, best = errors, score
    return best


def _loaded_policy(seed: int, out: Path) -> PretrainedLanguageModel:
    return PretrainedLanguageModel(str(folder_of(f"policy_seed{seed}", out) / "model"))


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


def _rollouts(name: str, seed: int, out: Path) -> int:
    """Return how many completions the labels of a verifier took, those of prefixes included."""
    return sum(1 + sum(t.value_counts) for t in read_trajectories(completions_of(name, seed, out)))
