"""Learning dynamics: pre-memorization train accuracy tells how well a fine-tuned model generalises.

Reference: Kang et al. 2024, What Do Learning Dynamics Reveal About Generalization in LLM Reasoning?, arXiv 2411.07681.
"""

import math
import os
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

from surefoot.errors import SurefootError
from surefoot.reasoning.learning_dynamics import read_recorded_runs
from surefoot.reproduce.claims import MAX_SEEDS, Findings, Paper, Scale, settle
from surefoot.reproduce.learning_dynamics.curation import measure_curation
from surefoot.reproduce.learning_dynamics.recorded import measure_recorded
from surefoot.reproduce.learning_dynamics.runs import measure_study

__all__ = ("PAPER",)

#: The authors' threshold on GSM8K, log(log(perplexity)).
GSM8K_THRESHOLD = -2.3
#: How many times as many seeds curation gets at most, whose differences are a point or two, where the first ones do not
#: settle it.
CURATION_SEEDS = 4


def measure(
    scale: Scale,
    n_seeds: int,
    out: Path,
    recorded: Sequence[Path] | None = None,
    log_log_threshold: float | None = None,
    max_seeds: int | None = None,
) -> Findings:
    """Measure claims on recorded runs alone, or on runs of our own and, where it is at hand, on the authors' record.

    Args:
        scale: quick, laptop or paper.
        n_seeds: Seeds of our own runs; curation goes on with twice and four times as many while it is undecided.
        out: Folder of the results.
        recorded: Files or folders of recorded runs; with them nothing is trained.
        log_log_threshold: Threshold for the recorded runs; by default chosen by leaving one run out.
        max_seeds: The budget of curation, instead of four times as many.

    Raises:
        SurefootError: If the threshold is not a number, or asked for without recorded runs.
    """
    if log_log_threshold is not None and not math.isfinite(log_log_threshold):
        raise SurefootError(f"--log-log-threshold must be a number, got {log_log_threshold}.")
    if recorded:
        return _joined([_recorded(Path(p), out, log_log_threshold) for p in recorded])
    if log_log_threshold is not None:
        raise SurefootError("--log-log-threshold goes with --recorded FILE.")
    if scale == "paper":
        raise SurefootError(
            "the paper's scale trains Llama-3-8B thirteen times on GPUs: run"
            " configs/reasoning/sft_memorization_gsm8k_llama3_8b.yaml with each learning rate and number of epochs,"
            " then surefoot reproduce learning_dynamics --recorded runs."
        )
    study = measure_study(scale, n_seeds, out)
    threshold = next(m.estimate.mean for m in study.measurements if m.id == "own_runs_threshold")
    curation = partial(measure_curation, scale, out=out, log_log_threshold=round(threshold, 1))
    most = n_seeds if scale == "quick" else max_seeds or CURATION_SEEDS * n_seeds
    findings = [study, settle(curation, attrgetter("measurements"), n_seeds, most)]
    authors = Path(os.environ.get("SUREFOOT_DATA", "")) / "learning_dynamics/gsm8k_llama3_8b.npz"
    if authors.is_file():
        findings.append(_recorded(authors, out, GSM8K_THRESHOLD))
    else:
        findings.append(Findings([], notes=["The authors' record is not at hand (SUREFOOT_DATA): not measured."]))
    return _joined(findings)


def _recorded(path: Path, out: Path, threshold: float | None) -> Findings:
    label = path.stem if path.is_file() else path.resolve().name
    return measure_recorded(read_recorded_runs(path), out, label, threshold)


def _joined(findings: Sequence[Findings]) -> Findings:
    return Findings(
        [m for f in findings for m in f.measurements],
        {name: rows for f in findings for name, rows in f.tables.items()},
        [note for f in findings for note in f.notes],
        [path for f in findings for path in f.figures],
    )


PAPER = Paper(
    "learning_dynamics",
    "What do learning dynamics reveal about generalization in LLM reasoning?",
    "Kang et al. 2024, arXiv 2411.07681",
    measure,
    {"quick": 1, "laptop": 3, "paper": 1},
    {
        "--max-seeds": MAX_SEEDS,
        "--recorded": {
            "type": Path,
            "nargs": "+",
            "help": "recorded runs (.npz, or folders of MemorizationTracker's records): claims from these alone,"
            " nothing is trained",
        },
        "--log-log-threshold": {
            "type": float,
            "help": "log(log(perplexity)) below which an example is memorized; by default chosen by leaving one run"
            " out",
        },
    },
)
