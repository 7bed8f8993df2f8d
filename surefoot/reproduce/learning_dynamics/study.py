"""The study's own runs as tables: what predicts test accuracy, and what fails when an answer is started."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.reasoning.learning_dynamics import TrackedRun, read_record, write_recorded_runs
from surefoot.reasoning.metrics.generalization import atc_accuracy, atc_threshold
from surefoot.reasoning.metrics.memorization import (
    ThresholdSweep,
    pre_memorization_accuracies,
    quality_of_train_accuracy,
)
from surefoot.reproduce.jobs import Result, run_jobs, run_named_jobs, seconds_of
from surefoot.reproduce.learning_dynamics.recorded import Record, notes_on, tabulate
from surefoot.reproduce.learning_dynamics.sweep import (
    EPOCHS,
    MIDDLE_RATE,
    FineTuning,
    StudySize,
    fine_tuning,
    pretraining,
    sizes,
)
from surefoot.reproduce.learning_dynamics.tables import GAPS_TABLE, OWN_RUNS, PREFIXES_TABLE, SEEDS_TABLE
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured, Run
from surefoot.storage.json_files import read_json

__all__ = ("measure_study",)


class Seed(NamedTuple):
    """The fine-tuning runs of one seed."""

    number: int
    runs: Mapping[FineTuning, TrackedRun]
    results: Mapping[FineTuning, Result]
    folders: Mapping[FineTuning, Path]  # of the tracker's records
    threshold: float  # log(log(perplexity)) that all of the seed's runs choose

    @property
    def sweep(self) -> ThresholdSweep:
        """The predictions of the seed's runs at every threshold."""
        return ThresholdSweep([run.curves() for run in self.runs.values()])


def measure_study(run: Run) -> Measured:
    """Pretrain a tiny model per seed, fine-tune it in many ways, and tabulate these runs.

    ``arithmetic.npz`` in the folder of results holds the recorded runs.
    """
    size, seeds, out = sizes(run.scale), range(run.n_seeds), run.out
    pretrained = run_jobs([pretraining(s, size) for s in seeds], out)
    jobs = {
        (s, t): fine_tuning(s, size, t, out, t == prefixed_fine_tuning(size)) for s in seeds for t in size.fine_tunings
    }
    results = run_named_jobs(jobs, out)
    found = []
    for s in seeds:
        folders = {t: out / "runs" / jobs[s, t].name / "latest" / "memorization" for t in size.fine_tunings}
        runs = {t: read_record(folders[t], jobs[s, t].name) for t in size.fine_tunings}
        threshold = ThresholdSweep([r.curves() for r in runs.values()]).best()
        found.append(Seed(s, runs, {t: results[s, t] for t in size.fine_tunings}, folders, threshold))
    every = [r for seed in found for r in seed.runs.values()]
    write_recorded_runs(every, out / f"{OWN_RUNS}.npz")
    record = Record.of(every, OWN_RUNS, own=True)
    run.notes += [*_protocol(size, run.n_seeds), *notes_on(record)]
    tables = {
        SEEDS_TABLE: [_seed_row(seed) for seed in found],
        GAPS_TABLE: [row for seed in found for row in _gap_rows(seed, size)],
        PREFIXES_TABLE: [row for seed in found for row in _prefix_rows(seed, size)],
    }
    seconds = seconds_of([*pretrained.values(), *results.values()])
    timed = [f"{OWN_RUNS}_checkpoints", *tables]
    return Measured(tabulate(record) | tables, dict.fromkeys(timed, seconds / len(timed)))


def prefixed_fine_tuning(size: StudySize) -> FineTuning:
    """Return the run whose answers are started: the longest at the middle rate, which memorizes and generalises."""
    full = [t for t in size.fine_tunings if t.share == "full"]
    longest = [t for t in full if t.epochs == max(other.epochs for other in full)]
    return next((t for t in longest if t.rate == MIDDLE_RATE), longest[0])


def _protocol(size: StudySize, n_seeds: int) -> list[str]:
    rates = sorted({t.rate for t in size.fine_tunings})
    return [
        (
            "Arithmetic: chains of three operations modulo 10, three styles of writing, useless lines at a rate of"
            " 0.1, so that having memorized a solution differs from solving; a Llama of 0.3 M parameters is pretrained"
            f" on other problems of the same kind until it solves {size.start_accuracy:.0%} greedily, then fine-tuned"
            f" on {size.n_train} (half, quarter) problems at learning rates {rates[0]:g} to {rates[-1]:g}; 5 samples"
            f" per problem at temperature 0.8 and top_p 0.95; {n_seeds} seeds of model, problems and sampling."
        ),
        (
            "Thresholds: per seed each run is predicted with the threshold that the seed's other runs choose; pooled,"
            " with that of all other runs. Baselines and bins use the threshold of all of a seed's runs."
        ),
    ]


def _seed_row(seed: Seed) -> dict[str, object]:
    """Return how well a seed's runs are predicted, with thresholds from other runs, and by plain train accuracy."""
    sweep = seed.sweep
    left_out, plain = sweep.leave_one_run_out().quality, quality_of_train_accuracy(sweep.runs)
    values = [q.r2_identity for q in sweep.qualities()]
    return {
        "seed": seed.number,
        "log_log_threshold": seed.threshold,
        "r2_identity": left_out.r2_identity,
        "r2_fit": left_out.r2_fit,
        "train_r2_identity": plain.r2_identity,
        "peak_drop": max(values) - max(values[0], values[-1]),
    }


def _gap_rows(seed: Seed, size: StudySize) -> Rows:
    """Return, for each checkpoint of a seed's runs of middle length, the generalisation gap and what predicts it."""
    sweep = seed.sweep
    lengths = {t.epochs for t in size.fine_tunings}
    middle = EPOCHS[1] if EPOCHS[1] in lengths else min(lengths)
    chosen = [t for t in size.fine_tunings if t.epochs == middle and t.share == "full"]
    known = seed.runs[next((t for t in chosen if t.rate == MIDDLE_RATE), chosen[0])]
    atc = atc_threshold(_confidences(known)[-1], float(known.curves().test_accuracies[-1]))
    rows = []
    for t in chosen:
        run, curves, history = seed.runs[t], seed.runs[t].curves(), seed.results[t].history
        pre, confidences = sweep.at(run.name, seed.threshold), _confidences(run)
        for m in range(len(run.steps)):
            train = float(curves.train_accuracies[m].mean())
            rows.append(
                {
                    "seed": seed.number,
                    "learning_rate": t.rate,
                    "checkpoint": m + 1,
                    "gap": train - float(curves.test_accuracies[m]),
                    "train minus pre-memorization": train - float(pre[m]),
                    "gradient variance": history["predictors/gradient_variance"][m],
                    "distance from start": history["predictors/distance_from_start"][m],
                    "ATC": train - atc_accuracy(confidences[m], atc),
                }
            )
    return rows


def _confidences(run: TrackedRun) -> Any:
    """Return the probabilities of greedy answers, ``(checkpoints, examples)``."""
    assert run.greedy_logprobs is not None  # `fine_tuning` asks the tracker for them
    return run.greedy_logprobs.exp()


def _prefix_rows(seed: Seed, size: StudySize) -> Rows:
    """Return each training example's accuracy after each start of the answer, of the run whose answers are started."""
    chosen = prefixed_fine_tuning(size)
    run = seed.runs[chosen]
    last = pre_memorization_accuracies(run.train_accuracies, run.train_perplexities, seed.threshold)[-1]
    rows = {
        i: {"seed": seed.number, "example": i, "pre_memorization_accuracy": value}
        for i, value in zip(run.train_ids, last.tolist(), strict=True)
    }
    sampled: Sequence[Mapping[str, Any]] = read_json(seed.folders[chosen] / "prefixes.json")
    for r in sampled:
        rows[r["id"]][f"accuracy/{r['prefix'].strip()}"] = r["n_correct"] / r["n_samples"]
    return list(rows.values())
