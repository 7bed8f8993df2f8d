"""Data curation on runs of our own: are new problems near those that were not learned worth more than any new ones?"""

from dataclasses import dataclass, field
from pathlib import Path

from surefoot.reasoning.curation import (
    CURATED,
    CURATION_METHODS,
    CurationMethod,
    choose_parents,
    draw_variants,
    instruction_following_difficulties,
    read_curated,
    write_curated,
)
from surefoot.reasoning.learning_dynamics import read_record
from surefoot.reasoning.problems import Problem
from surefoot.reproduce.claims import Scale
from surefoot.reproduce.jobs import run_jobs, seconds_of
from surefoot.reproduce.learning_dynamics.sweep import (
    MIDDLE_RATE,
    StudySize,
    curation_data,
    curation_round,
    pretrained_folder,
    pretraining,
    sizes,
)
from surefoot.reproduce.learning_dynamics.tables import CURATION_TABLE
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured

__all__ = ("measure_curation", "protocol")

TEST_ACCURACY = "memorization/test_accuracy"


@dataclass
class Branch:
    """A training set that grows by one method, for one seed.

    Attributes:
        seed: Seed of the originals, the model and the sampling.
        method: How parents of new problems are chosen.
        run: Name of the latest run.
        added: Folders of the new problems so far.
        accuracies: Test accuracy after each round, the originals first.
        parents: Share of the originals that were parents, in each round.
    """

    seed: int
    method: CurationMethod
    run: str
    added: list[Path] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    parents: list[float] = field(default_factory=list)


def measure_curation(scale: Scale, out: Path, log_log_threshold: float, n_seeds: int) -> Measured:
    """Grow a training set in rounds by four methods, and tabulate test accuracies at equal numbers of examples.

    Args:
        scale: quick or laptop.
        out: Folder of runs.
        log_log_threshold: Below it an example is memorized; chosen on the sweep's runs, which are others.
        n_seeds: Number of seeds.
    """
    size, seeds = sizes(scale), range(n_seeds)
    first = {s: curation_round(s, size, out, "originals", []) for s in seeds}
    done = run_jobs([pretraining(s, size) for s in seeds], out)
    done |= run_jobs(list(first.values()), out)
    branches = [Branch(s, method, first[s].name) for s in seeds for method in CURATION_METHODS]
    for branch in branches:
        branch.accuracies.append(done[branch.run].last[TEST_ACCURACY])
    for number in range(1, size.curation_rounds + 1):
        for branch in branches:
            _add_problems(branch, number, size, out, log_log_threshold)
        jobs = [curation_round(b.seed, size, out, f"{b.method}_round{number}", b.added) for b in branches]
        done |= run_jobs(jobs, out)
        for branch, job in zip(branches, jobs, strict=True):
            branch.run = job.name
            branch.accuracies.append(done[job.name].last[TEST_ACCURACY])
    rows: Rows = [
        {
            "seed": b.seed,
            "method": b.method,
            "n_examples": size.n_curation * (1 + r),
            "test_accuracy": accuracy,
            "share_of_parents": b.parents[r - 1] if r else None,
        }
        for b in branches
        for r, accuracy in enumerate(b.accuracies)
    ]
    return Measured({CURATION_TABLE: rows}, {CURATION_TABLE: seconds_of(done.values())})


def protocol(scale: Scale, log_log_threshold: float) -> str:
    """Return how curation is done."""
    size = sizes(scale)
    return (
        f"Curation: {size.curation_rounds} rounds, each adding as many new problems as there are originals"
        f" ({size.n_curation}); a variant differs from its parent in one number or operator; chains of 2 to 4"
        f" operations; every round trains from the pretrained model at {MIDDLE_RATE:g} for equally many epochs. Parents"
        f" of low pre-memorization accuracy have at most 0.75 at log log perplexity {log_log_threshold:g}."
    )


def _add_problems(branch: Branch, number: int, size: StudySize, out: Path, log_log_threshold: float) -> None:
    """Write a round's new problems, unless they are there, and note the share of the originals that are parents."""
    data = curation_data(branch.seed, size)
    originals: list[Problem] = list(data.problems("train"))
    record, difficulties = None, None
    if branch.method == "pre_memorization":
        record = read_record(out / "runs" / branch.run / "latest" / "memorization", branch.run)
    if branch.method == "ifd":
        from surefoot.reasoning.language_models import PretrainedLanguageModel
        from surefoot.reasoning.prompts import PlainPrompt

        model = PretrainedLanguageModel(str(pretrained_folder(out, branch.seed)))
        difficulties = instruction_following_difficulties(originals, model, PlainPrompt(), 8192)
    parents = choose_parents(branch.method, originals, record, log_log_threshold, difficulties=difficulties)
    folder = out / "curated" / f"{branch.method}_seed{branch.seed}_round{number}"
    if not (folder / CURATED).is_file():
        known = [p.question for p in originals]
        known += [p.question for f in branch.added for p in read_curated(f)]
        write_curated(folder, draw_variants(parents, size.n_curation, data.variant, known, branch.seed))
    branch.parents.append(len(parents) / len(originals))
    branch.added.append(folder)
