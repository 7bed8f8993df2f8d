"""The arithmetic study, measured: errors by the number of synthetic problems, of SFT and of learning from negatives."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from surefoot.reasoning.arithmetic import judge_steps
from surefoot.reasoning.completions.first_pit_pairs import FirstPitPairs
from surefoot.reasoning.completions.selection import group_by_problem
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.credit.progress import progress
from surefoot.reasoning.language_models import PretrainedLanguageModel
from surefoot.reasoning.metrics import pass_at_k
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reproduce.incorrect_synthetic_data.multipliers import multiplier_rows
from surefoot.reproduce.incorrect_synthetic_data.studies import (
    EDIT_DPO,
    FEW_ATTEMPTS,
    LABELS,
    LABELS_ONCE,
    PAIRS,
    PER_STEP_DPO,
    RANDOM_DPO,
    SAMPLES,
    SFT,
    SHARED_PREFIX,
    ScalingSize,
    SyntheticData,
    fine_tuning,
    folder,
    learning,
    pits,
    policy,
    problems,
    rft,
    sampling,
    weighted,
)
from surefoot.reproduce.jobs import Job, measure_rows, run_calls, run_jobs, seconds_of
from surefoot.reproduce.language_models import ENGINE, completions_of, model_of, run_verb
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured
from surefoot.storage.json_files import read_json

__all__ = ("measure_arithmetic",)

#: Samples of a test problem at temperature 1, and attempts of pass@5.
N_TESTED, ATTEMPTS = 10, 5
#: How often the teacher of the last part writes a true line that does not advance its solution.
SPURIOUS_RATE = 0.3


class Arm(NamedTuple):
    """A method on one data set, and the run that it is."""

    given: SyntheticData
    method: str
    job: Job
    beta: float | None = None
    part: str = "scaling"  # of the study


def measure_arithmetic(size: ScalingSize, out: Path, seeds: Sequence[int]) -> Iterator[Measured]:
    """Train policies, learn from their solutions in all ways, and yield errors, what steps are worth, and costs.

    Args:
        size: Of the study.
        out: Folder of runs.
        seeds: Of the data sets.
    """
    taught = [SyntheticData(s, n) for s in seeds for n in size.epochs]
    digressing = [SyntheticData(s, size.n_fixed, SPURIOUS_RATE) for s in seeds]
    starts = [Arm(given, SFT, fine_tuning(given, size), part="scaling") for given in taught]
    starts += [Arm(given, SFT, fine_tuning(given, size), part="spurious") for given in digressing]
    seconds = {"training": seconds_of(run_jobs([arm.job for arm in starts], out).values())}
    sampled = [given for given in (*taught, *digressing) if given.n in size.n_problems]
    seconds |= _sample_and_label(sampled, size, out)
    arms = [*starts, *(arm for given in sampled for arm in _arms(given, size, out))]
    jobs = {arm.job.name: arm for arm in arms}  # an arm may stand in several parts
    seconds["training"] += seconds_of(run_jobs([arm.job for arm in jobs.values()], out).values())
    errors, seconds["testing"] = run_calls(errors_of, {name: (arm, size, out) for name, arm in jobs.items()})
    rows = [_described(arm) | errors[arm.job.name] for arm in arms]
    tables = {"arithmetic_errors": rows, "arithmetic_multipliers": multiplier_rows(rows)}
    yield Measured(tables, {"arithmetic_errors": sum(seconds.values())})
    fixed = {given.seed: (given, out) for given in sampled if given.n == size.n_fixed and not given.spurious_rate}
    yield measure_rows("arithmetic_steps", step_rows, fixed)
    yield measure_rows(
        "arithmetic_pits", pit_rows, {given: (given, out) for given in sampled if not given.spurious_rate}
    )
    yield measure_rows("arithmetic_costs", cost_rows, {given: (given, size, out) for given in sampled})
    yield Measured({"arithmetic_stages": [{"stage": stage, "seconds": s} for stage, s in seconds.items()]}, {})


def _arms(given: SyntheticData, size: ScalingSize, out: Path) -> Iterator[Arm]:
    """Yield what learns from a policy's own solutions."""
    if given.spurious_rate:
        yield Arm(given, "RFT 4", rft(given, size, 4, out), part="spurious")
        yield Arm(given, PER_STEP_DPO, learning(PER_STEP_DPO, given, size, out), part="spurious")
        return
    for kept in size.kept:
        yield Arm(given, f"RFT {kept}", rft(given, size, kept, out))
    for method in (RANDOM_DPO, EDIT_DPO, PER_STEP_DPO):
        yield Arm(given, method, learning(method, given, size, out))
    for k in size.ks:
        yield Arm(given, f"weighted SFT, K {k}", weighted(given, size, k, out))
    if given.n != size.n_fixed:
        return
    for method in (FEW_ATTEMPTS, SHARED_PREFIX):
        yield Arm(given, method, learning(method, given, size, out), part="variants")
    for method in (RANDOM_DPO, PER_STEP_DPO):
        for beta in size.betas:
            yield Arm(given, method, learning(method, given, size, out, beta), beta, part="betas")


def _sample_and_label(sampled: Sequence[SyntheticData], size: ScalingSize, out: Path) -> dict[str, float]:
    """Write solutions of the training problems, with values of their steps; return the seconds of each stage."""
    fixed = [given for given in sampled if given.n == size.n_fixed and not given.spurious_rate]
    labelled = [(given, LABELS, size.n_rollouts) for given in sampled] + [(given, LABELS_ONCE, 1) for given in fixed]
    stages = {
        "sampling": (sample, {given: (given, size, out) for given in sampled}),
        "values": (label, {work: (*work, size, out) for work in labelled}),
        "pairs": (pair, {given: (given, out) for given in fixed}),
    }
    return {stage: run_calls(work, given)[1] for stage, (work, given) in stages.items()}  # type: ignore[arg-type]


def sample(given: SyntheticData, size: ScalingSize, out: Path) -> None:
    """Write solutions of a policy's training problems."""
    settings = {"data": problems(given, size), "split": "train", "sampling": sampling(size.n_samples)}
    run_verb("generate", _policy(given, out) | settings | {"problems_per_shard": 512}, folder(SAMPLES, given, out))


def label(given: SyntheticData, name: str, n_rollouts: int, size: ScalingSize, out: Path) -> None:
    """Write the first solutions of each problem again, with values of their steps."""
    completions = {"completions": str(folder(SAMPLES, given, out)), "per_problem": size.n_labelled}
    settings = _policy(given, out) | completions | {"sampling": sampling(n_rollouts), "problems_per_shard": 128}
    run_verb("label", settings, folder(name, given, out))


def pair(given: SyntheticData, out: Path) -> None:
    """Write pairs that share what comes before a pit; what goes on rightly from there is sampled."""
    settings = {"completions": str(folder(LABELS, given, out)), "sampling": sampling(8)}
    settings["builder"] = pits("shared_prefix")
    run_verb("pairs", _policy(given, out) | settings, folder(PAIRS, given, out))


def _policy(given: SyntheticData, out: Path) -> dict[str, Any]:
    return {"model": policy(given, out), "engine": ENGINE}


def _described(arm: Arm) -> dict[str, Any]:
    return {"part": arm.part, "seed": arm.given.seed, "n": arm.given.n, "method": arm.method, "beta": arm.beta}


def errors_of(arm: Arm, size: ScalingSize, out: Path) -> dict[str, float]:
    """Return a method's errors on test problems, and what its solutions are made of."""
    greedy, sampled = (list(_tested(arm, size, n, t, out)) for n, t in ((1, 0.0), (N_TESTED, 1.0)))
    solved = [sum(t.is_correct for t in own) for own in group_by_problem(sampled).values()]
    return {
        "error": fmean(not t.is_correct for t in greedy),
        "error_at_temperature_1": fmean(not t.is_correct for t in sampled),
        "error_of_5": fmean(1 - pass_at_k(N_TESTED, n, ATTEMPTS) for n in solved),
        **{f"share_{kind}": share for kind, share in shares_of_steps(sampled).items()},
    }


def _tested(arm: Arm, size: ScalingSize, n: int, temperature: float, out: Path) -> Iterator[Trajectory]:
    """Yield solutions of the test problems, which are sampled unless they are there."""
    tested = completions_of(f"test{n}_{arm.job.name.removesuffix(f'_seed{arm.given.seed}')}", arm.given.seed, out)
    settings = {"model": model_of(arm.job.name, out), "engine": ENGINE, "sampling": sampling(n, temperature)}
    run_verb("generate", settings | {"data": problems(arm.given, size), "problems_per_shard": 512}, tested)
    return read_trajectories(tested)


def shares_of_steps(solutions: Sequence[Trajectory]) -> dict[str, float]:
    """Return which shares of the steps, answers aside, do two operations at once, are spurious, and are wrong."""
    counts, n = Counter[str](), 0
    for solution in solutions:
        lines = solution.text.splitlines()
        for line, kind in zip(lines, judge_steps(solution.problem.question, lines), strict=True):
            if kind not in ("answer", "wrong answer"):
                n += 1
                counts[kind] += 1
                counts["long"] += sum(map(line.split("=")[0].lstrip("-").count, "+-*")) > 1
    return {kind: counts[kind] / max(1, n) for kind in ("long", "spurious", "wrong")}


def step_rows(given: SyntheticData, out: Path) -> Rows:
    """Return the values and advantages of steps by their number, in right and in wrong solutions."""
    found: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    for t in read_trajectories(folder(LABELS, given, out)):
        for step, worth in enumerate(zip(t.values[1:], progress(t), strict=True), 1):
            found.setdefault((t.is_correct, step), []).append(worth)
    return [
        {
            "seed": given.seed,
            "n": given.n,
            "right": right,
            "step": step,
            "value": fmean(v for v, _ in own),
            "advantage": fmean(a for _, a in own),
            "steps": len(own),
        }
        for (right, step), own in sorted(found.items())
    ]


def pit_rows(given: SyntheticData, out: Path) -> Rows:
    """Return how many pits are at each step, and how many of these are the first step that is wrong."""
    model = PretrainedLanguageModel(policy(given, out)["init_args"]["name"])
    labelled = list(read_trajectories(folder(LABELS, given, out)))
    questions = {t.problem.id: t.problem.question for t in labelled}
    pairs = FirstPitPairs(**pits()["init_args"])(labelled, seed=0)
    counts, first_wrong = Counter[int](), Counter[int]()
    for pair in pairs:
        assert pair.record is not None
        assert pair.record.pit is not None
        lines = model.decode(pair.rejected).splitlines()
        *before, last = (kind.startswith("wrong") for kind in judge_steps(questions[pair.record.problem], lines))
        counts[pair.record.pit.step] += 1
        first_wrong[pair.record.pit.step] += last and not any(before)
    return [
        {"seed": given.seed, "n": given.n, "step": step, "pits": n, "first_wrong": first_wrong[step]}
        for step, n in sorted(counts.items())
    ]


def cost_rows(given: SyntheticData, size: ScalingSize, out: Path) -> Rows:
    """Return the tokens that were sampled of a policy, by what they are for."""
    completions = list(read_trajectories(folder(SAMPLES, given, out)))
    labelled = [t for t in completions if t.sample < size.n_labelled]
    tokens = {
        "samples": sum(len(t.completion) for t in completions),
        "labelled samples": sum(len(t.completion) for t in labelled),
        "values": read_json(folder(LABELS, given, out) / "summary.json")["generated_tokens"],
    }
    return [{"seed": given.seed, "n": given.n, "what": what, "tokens": n} for what, n in tokens.items()]
