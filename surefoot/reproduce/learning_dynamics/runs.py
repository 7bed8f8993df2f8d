"""What is run: the study's own fine-tuning and curation, and the authors' record; or recorded runs alone."""

import math
from functools import partial
from pathlib import Path

from surefoot.errors import SurefootError
from surefoot.reasoning.learning_dynamics import read_recorded_runs
from surefoot.reproduce.learning_dynamics import claims
from surefoot.reproduce.learning_dynamics.curation import measure_curation, protocol
from surefoot.reproduce.learning_dynamics.recorded import Record, notes_on, tabulate
from surefoot.reproduce.learning_dynamics.study import measure_study
from surefoot.reproduce.papers import claims_in
from surefoot.reproduce.results import Table
from surefoot.reproduce.running import Measured, Run, data_folder, settle

__all__ = ("run",)

#: The authors' threshold on GSM8K, log(log(perplexity)).
GSM8K_THRESHOLD = -2.3


def run(run: Run) -> None:
    """Measure recorded runs alone, or runs of our own and, where it is available, the authors' record.

    Curation goes on with more seeds while its claims are undecided.

    Raises:
        SurefootError: If the threshold is not a number, or asked for without recorded runs.
    """
    threshold = run.options["log_log_threshold"]
    if threshold is not None and not math.isfinite(threshold):
        raise SurefootError(f"--log-log-threshold must be a number, got {threshold}.")
    if run.options["recorded"]:
        for path in run.options["recorded"]:
            _add_record(path, run, threshold)
        return
    if threshold is not None:
        raise SurefootError("--log-log-threshold goes with --recorded FILE.")
    if run.scale == "paper":
        raise SurefootError(
            "the paper's scale trains Llama-3-8B thirteen times on GPUs: run"
            " configs/reasoning/sft_memorization_gsm8k_llama3_8b.yaml with each learning rate and number of epochs,"
            " then surefoot reproduce learning_dynamics --recorded runs."
        )
    study = measure_study(run)
    run.add(study)
    chosen = Table(study.tables["arithmetic_seeds"]).estimate("log_log_threshold").mean
    curation = partial(measure_curation, run.scale, run.out, round(chosen, 1))
    run.add(settle(curation, claims_in(claims), run.n_seeds, run.most_seeds))
    run.notes.append(protocol(run.scale, round(chosen, 1)))
    authors = data_folder("learning_dynamics/gsm8k_llama3_8b.npz", run, "The authors' record is")
    if authors is not None:
        _add_record(authors, run, GSM8K_THRESHOLD)


def _add_record(path: Path, run: Run, threshold: float | None) -> None:
    label = path.stem if path.is_file() else path.resolve().name
    record = Record.of(read_recorded_runs(path), label, threshold)
    run.add(Measured(tabulate(record)))
    run.notes += notes_on(record)
