"""Reinforcement in arithmetic, measured: by outcomes alone, and by a prover's progress as well."""

from collections.abc import Sequence
from pathlib import Path

from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.metrics import pass_at_k
from surefoot.reproduce.jobs import Result, measure_rows, run_named_jobs, seconds_of
from surefoot.reproduce.language_models import ENGINE, completions_of, model_of, run_verb
from surefoot.reproduce.pav.arithmetic import prepare_reinforcement
from surefoot.reproduce.pav.studies import SAMPLING, Size, data, reinforcement
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured

__all__ = ("LEARNING_RATE", "measure_reinforcement")

#: Of reinforcement, for all methods.
LEARNING_RATE = 3e-4
BASE = "base"  # the weak policy, which is reinforced


def measure_reinforcement(size: Size, out: Path, seeds: Sequence[int]) -> Measured:
    """Reinforce weak policies by outcomes alone and by effective rewards; learning curves, and Pass@N at the end.

    What it begins with is made first, unless the folder has it: policies and the verifier of the prover's steps.
    """
    prepare_reinforcement(size, out, seeds)
    jobs = {
        (s, reward.name, run): reinforcement(s, size, reward, run, out, LEARNING_RATE)
        for s in seeds
        for reward in size.rewards
        for run in range(reward.n_runs)
    }
    results = run_named_jobs(jobs, out)
    curves = [row for (s, method, run), result in results.items() for row in _curve(s, method, run, result)]
    arguments = {(s, method, run): (s, size, method, run, job.name, out) for (s, method, run), job in jobs.items()}
    arguments |= {(s, BASE, 0): (s, size, BASE, 0, f"weak_seed{s}", out) for s in seeds}
    passed = measure_rows("arithmetic_pass", pass_rows, arguments)
    seconds = {"arithmetic_reinforcement": seconds_of(results.values())} | dict(passed.seconds)
    return Measured({"arithmetic_reinforcement": curves, **passed.tables}, seconds)


def _curve(seed: int, method: str, run: int, result: Result) -> Rows:
    accuracy = result.history["val/accuracy"]
    every = round((result.last["step"] + 1) / len(accuracy))
    return [
        {"seed": seed, "method": method, "run": run, "iteration": every * (i + 1), "accuracy": value}
        for i, value in enumerate(accuracy)
    ]


def pass_rows(seed: int, size: Size, method: str, run: int, job: str, out: Path) -> Rows:
    """Return Pass@N of a policy on test problems, for powers of two up to the number of samples."""
    settings = {"model": model_of(job, out), "engine": ENGINE, "sampling": {"n": size.n_pass, **SAMPLING}}
    problems = data(size, 4000 + seed, n_train=0, n_val=0, n_test=size.n_problems)
    folder = completions_of(f"pass_{job}", seed, out)
    run_verb("generate", settings | {"data": problems, "split": "test", "problems_per_shard": 64}, folder)
    correct: dict[str, list[bool]] = {}
    for t in read_trajectories(folder):
        correct.setdefault(t.problem.id, []).append(t.is_correct)
    counts = [2**i for i in range(size.n_pass.bit_length()) if 2**i <= size.n_pass]
    return [
        {
            "seed": seed,
            "method": method,
            "run": run,
            "n": n,
            "value": sum(pass_at_k(len(own), sum(own), n) for own in correct.values()) / len(correct),
        }
        for n in counts
    ]
