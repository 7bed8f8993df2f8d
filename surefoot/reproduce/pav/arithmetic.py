"""The arithmetic study, measured: the base's values, verifiers against an oracle, searches, reinforcement."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from surefoot.reasoning.arithmetic import judge_steps
from surefoot.reasoning.completions.store import describe_shards, is_described, read_trajectories, write_shard
from surefoot.reasoning.credit.progress import progress
from surefoot.reasoning.language_models import PretrainedLanguageModel
from surefoot.reasoning.metrics import pass_at_k
from surefoot.reasoning.metrics.judgements import ranking
from surefoot.reasoning.search import SearchPoint
from surefoot.reasoning.sequences import split_spans
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ExactChainValues, LearnedValues
from surefoot.report.search_curves import read_points
from surefoot.reproduce.jobs import (
    Result,
    changed,
    component,
    measure_rows,
    run_calls,
    run_jobs,
    run_named_jobs,
    seconds_of,
    slug,
)
from surefoot.reproduce.language_models import ENGINE, completions_of, folder_of, model_of, run_verb
from surefoot.reproduce.pav.studies import (
    EXACT,
    ORACLE,
    SAMPLING,
    VERIFIERS,
    RewardSetting,
    Size,
    data,
    policy,
    pretraining,
    reinforcement,
    values_of,
    verifier,
    weak_policy,
)
from surefoot.reproduce.results import Results, Rows
from surefoot.reproduce.running import Measured

__all__ = ("LEARNING_RATE", "measure_policies", "measure_reinforcement", "measure_search")

#: Attempts of the prover in a beam search, and the weight of its advantage where that is not chosen: the paper's.
K, ALPHA = 4, 0.5
#: Of reinforcement, for all methods.
LEARNING_RATE = 3e-4
BASE = "base"  # the weak policy, which is reinforced
JUDGE = "process"  # the verifier whose values reward steps
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
    seconds = _train_verifiers(size, out, seeds)
    arguments = {(s, name): (s, name, out) for s in seeds for name in size.verifiers}
    gate = measure_rows("arithmetic_verifiers", verifier_rows, arguments)
    yield Measured(gate.tables, {"arithmetic_verifiers": seconds + gate.seconds["arithmetic_verifiers"]})


def _train_policies(size: Size, out: Path, seeds: Sequence[int]) -> float:
    """Return the seconds of work."""
    trained = run_jobs([pretraining(s, size) for s in seeds], out)
    trained |= run_jobs([make(s, size, out) for s in seeds for make in (policy, weak_policy)], out)
    return seconds_of(trained.values())


def _train_verifiers(size: Size, out: Path, seeds: Sequence[int]) -> float:
    """Train those that learn, all in as many steps or the fewest whole epochs that are as many; return the seconds."""
    jobs = []
    for name in size.verifiers:
        if name == ORACLE:
            continue
        n = {"outcomes": size.n_outcomes, "few": size.n_few, "first_pit": size.n_few}.get(VERIFIERS[name])
        epochs = math.ceil(size.epochs * size.n_traces / (n or size.n_traces))
        given = size._replace(epochs=epochs)
        jobs += [verifier(s, given, name, completions_of(VERIFIERS[name], s, out), out) for s in seeds]
    return seconds_of(run_jobs(jobs, out).values())


def _sample_and_label(size: Size, out: Path, seeds: Sequence[int]) -> float:
    """Write the completions that verifiers learn from and are measured on; return the seconds of work."""
    drawn = {"samples": (1000, size.n_traces)}
    labels: dict[str, tuple[str, int, Mapping[str, object]]] = {"labels": ("samples", size.n_rollouts, {})}
    if size.n_held_out:
        drawn["held"] = (2000, size.n_held_out)
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
    writers = {"control": write_exact, "outcome": write_outcomes}
    chosen = [write for name, write in writers.items() if name in size.verifiers]
    written = [run_calls(write, {s: (s, out) for s in seeds})[1] for write in chosen]
    return sampling + labelling + sum(written)


def sample(name: str, first: int, n: int, seed: int, size: Size, out: Path) -> None:
    """Write one completion of each of ``n`` problems; ``first`` tells their seeds from those of other completions."""
    settings = {"data": data(size, first + seed, n_train=n), "split": "train", "problems_per_shard": 512}
    run_verb(
        "generate", _sampled(seed, out) | settings | {"sampling": {"n": 1, **SAMPLING}}, completions_of(name, seed, out)
    )


def label(name: str, completions: str, n_rollouts: int, rounds: Mapping[str, object], seed: int, out: Path) -> None:
    """Write completions again, with values of their prefixes from at most ``n_rollouts`` rollouts of each."""
    given = {"completions": str(completions_of(completions, seed, out)), "sampling": {"n": n_rollouts, **SAMPLING}}
    settings = {**_sampled(seed, out), **given, **rounds, "problems_per_shard": 128}
    run_verb("label", settings, completions_of(name, seed, out))


def _sampled(seed: int, out: Path) -> dict[str, Any]:
    return {"model": model_of(f"policy_seed{seed}", out), "engine": ENGINE}


def write_exact(seed: int, out: Path) -> None:
    """Write labelled completions again, with 1 as the value of each prefix whose steps are all right, 0 of others."""
    _write_again("labels", "exact", seed, out, lambda t: [1.0, *map(float, on_track(t))])


def write_outcomes(seed: int, out: Path) -> None:
    """Write completions again, with 1 as the value of each prefix of those with a right answer, and 0 of others."""
    _write_again("sampled", "outcomes", seed, out, lambda t: [float(_is_right(t))] * (1 + len(t.spans)))


def _is_right(trajectory: Trajectory) -> bool:
    return trajectory.grade is not None and trajectory.grade.correct


def _write_again(name: str, written: str, seed: int, out: Path, values: Callable[[Trajectory], list[float]]) -> None:
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
    """Return how well a verifier predicts held-out values and advantages, which many rollouts have given."""
    held_out = list(read_trajectories(completions_of("held_out", seed, out)))
    true_values = torch.tensor([v for t in held_out for v in t.values])
    true_steps = torch.tensor([a for t in held_out for a in progress(t)])
    right = torch.tensor([float(r) for t in held_out for r in [True, *on_track(t)]])
    if name == ORACLE:
        ExactChainValues(tolerance=1.0).compute(_loaded_policy(seed, out), held_out)
    else:
        LearnedValues(folder_of(f"{name}_seed{seed}", out)).predict(held_out)
    values = torch.tensor([v for t in held_out for v in t.values])
    steps = torch.tensor([a for t in held_out for a in progress(t)])
    ends = torch.tensor([t.values[-1] for t in held_out])
    return [
        {
            "seed": seed,
            "verifier": name,
            "correlation_of_values": _correlation(values, true_values),
            "correlation_of_advantages": _correlation(steps, true_steps),
            "auroc_right_so_far": ranking(values, right),
            "auroc_right_answer": ranking(ends, torch.tensor([float(_is_right(t)) for t in held_out])),
            "rollouts": 0 if name == ORACLE else _rollouts(VERIFIERS[name], seed, out),
        }
    ]


def _loaded_policy(seed: int, out: Path) -> PretrainedLanguageModel:
    return PretrainedLanguageModel(str(folder_of(f"policy_seed{seed}", out) / "model"))


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


def _rollouts(name: str, seed: int, out: Path) -> int:
    """Return how many completions the labels of a verifier took, those of prefixes included."""
    return sum(1 + sum(t.value_counts) for t in read_trajectories(completions_of(name, seed, out)))


def measure_search(size: Size, out: Path, seeds: Sequence[int]) -> Measured:
    """Search with every verifier; accuracy against candidates and tokens.

    The weight of the advantage in a beam search is, for each seed, the best on held-out problems.
    """
    tuning = {(s, f"alpha {a:g}"): (_beam("process", a, K, [size.width]), "val") for s in seeds for a in size.alphas}
    tuned = _measure_searches(tuning, size, out)
    best = {s: max(size.alphas, key=lambda a: _accuracy(tuned, s, f"alpha {a:g}")) for s in seeds}
    searches = {(s, name): (search, "test") for s in seeds for name, search in _searches(size, best[s]).items()}
    found = _measure_searches(searches, size, out)
    rows = [row | {"alpha": best[row["seed"]]} for row in found.tables["arithmetic_search"]]
    seconds = sum(m.seconds["arithmetic_search"] for m in (tuned, found))
    return Measured({"arithmetic_search": rows}, {"arithmetic_search": seconds})


class ComparedSearch(NamedTuple):
    """A search, and the verifier that guides it."""

    verifier: str
    component: Mapping[str, Any]  # without the verifier
    widths: Sequence[int]
    columns: Mapping[str, int] = {}  # of its rows, beside those that all have


def _searches(size: Size, alpha: float) -> dict[str, ComparedSearch]:
    """Return the searches that are compared, by name."""
    score = {"alpha": ALPHA, "k": K}
    return {
        "best of N, outcome": ComparedSearch("outcome", component("BestOfN"), size.samples),
        "best of N, process": ComparedSearch("process", component("BestOfN", score=score), size.samples),
        "best of N, control": ComparedSearch("control", component("BestOfN"), size.samples),
        "beam, Q": _beam("process", 0, K, size.widths),
        "beam, control": _beam("control", 0, K, size.widths),
        **({"beam, oracle": _beam(ORACLE, 0, K, size.widths)} if ORACLE in size.verifiers else {}),
        "beam, PAV": _beam("process", alpha, K, size.widths),
        **{f"beam, PAV, K {k}": _beam("process", ALPHA, k, [size.width])._replace(columns={"k": k}) for k in size.ks},
    }


def _beam(verifier: str, alpha: float, k: int, widths: Sequence[int]) -> ComparedSearch:
    return ComparedSearch(verifier, component("BeamSearch", score={"alpha": alpha, "k": k}, n_children=3), widths)


def _measure_searches(
    searches: Mapping[tuple[int, str], tuple[ComparedSearch, str]], size: Size, out: Path
) -> Measured:
    arguments = {(s, name): (s, name, search, split, size, out) for (s, name), (search, split) in searches.items()}
    return measure_rows("arithmetic_search", search_rows, arguments)


def search_rows(seed: int, name: str, search: ComparedSearch, split: str, size: Size, out: Path) -> Rows:
    """Return the accuracies of a search of a policy's problems, for each number of candidates and selection."""
    folder = out / "searches" / f"{slug(name)}_{split}_seed{seed}"
    problems = data(size, 4000 + seed, n_train=0, n_val=size.n_problems, n_test=size.n_problems)
    settings = {**_sampled(seed, out), "sampling": dict(SAMPLING)}
    verifier = EXACT if search.verifier == ORACLE else values_of(f"{search.verifier}_seed{seed}", out)
    settings["search"] = changed(search.component, verifier=verifier)
    settings |= {"data": problems, "split": split, "n": list(search.widths), "seed": seed}
    run_verb("search", settings | {"problems_per_shard": size.n_problems}, folder)
    return [{"seed": seed, "search": name, **_point_row(point), **search.columns} for point in read_points(folder)]


def _accuracy(tuned: Measured, seed: int, search: str) -> float:
    table = Results(tuned.tables)["arithmetic_search"]
    [row] = table.where(seed=seed, search=search, selection="best")
    return float(row["accuracy"])


def _point_row(point: SearchPoint) -> dict[str, Any]:
    low, high, n_problems = point.accuracy.low, point.accuracy.high, point.accuracy.n
    return {
        "selection": point.selection,
        "n": point.n,
        "accuracy": point.accuracy.mean,
        "low": low,
        "high": high,
        "problems": n_problems,
        "generated_tokens": point.generated_tokens,
        "scored_tokens": point.scored_tokens,
    }


def measure_reinforcement(size: Size, out: Path, seeds: Sequence[int]) -> Measured:
    """Reinforce weak policies by outcomes alone and by effective rewards; learning curves, and Pass@N at the end.

    What it begins with is made first, unless the folder has it: policies and the verifier of the prover's steps.
    """
    needed = size._replace(verifiers=(JUDGE,), n_held_out=0)
    for prepare in (_train_policies, _sample_and_label, _train_verifiers):
        prepare(needed, out, seeds)
    jobs = {
        (s, reward): reinforcement(s, size, reward, f"{JUDGE}_seed{s}", out, LEARNING_RATE)
        for s in seeds
        for reward in size.rewards
    }
    results = run_named_jobs(jobs, out)
    curves = [row for (s, reward), result in results.items() for row in _curve(s, reward, result)]
    arguments = {(s, reward.name): (s, size, reward.name, job.name, out) for (s, reward), job in jobs.items()}
    arguments |= {(s, BASE): (s, size, BASE, f"weak_seed{s}", out) for s in seeds}
    passed = measure_rows("arithmetic_pass", pass_rows, arguments)
    seconds = {"arithmetic_reinforcement": seconds_of(results.values())} | dict(passed.seconds)
    return Measured({"arithmetic_reinforcement": curves, **passed.tables}, seconds)


def _curve(seed: int, reward: RewardSetting, result: Result) -> Rows:
    accuracy = result.history["val/accuracy"]
    every = round((result.last["step"] + 1) / len(accuracy))
    return [
        {"seed": seed, "method": reward.name, "iteration": every * (i + 1), "accuracy": value}
        for i, value in enumerate(accuracy)
    ]


def pass_rows(seed: int, size: Size, method: str, job: str, out: Path) -> Rows:
    """Return Pass@N of a policy on test problems, for powers of two up to the number of samples."""
    settings = {"model": model_of(job, out), "engine": ENGINE, "sampling": {"n": size.n_pass, **SAMPLING}}
    problems = data(size, 4000 + seed, n_train=0, n_val=0, n_test=size.n_problems)
    folder = completions_of(f"pass_{job}", seed, out)
    run_verb("generate", settings | {"data": problems, "split": "test", "problems_per_shard": 64}, folder)
    correct: dict[str, list[bool]] = {}
    for t in read_trajectories(folder):
        correct.setdefault(t.problem.id, []).append(_is_right(t))
    counts = [2**i for i in range(size.n_pass.bit_length()) if 2**i <= size.n_pass]
    return [
        {
            "seed": seed,
            "method": method,
            "n": n,
            "value": sum(pass_at_k(len(own), sum(own), n) for own in correct.values()) / len(correct),
        }
        for n in counts
    ]
