"""Data curation: for which training problems new ones like them are made.

A round trains on originals and what was added so far, measures the originals, chooses parents among them, and draws
variants of the chosen ones at random.

Reference: Kang et al. 2024, arXiv 2411.07681, data curation; Li et al. 2024 (instruction-following difficulty, IFD).
"""

import json
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models import LanguageModel, perplexities
from surefoot.reasoning.learning_dynamics import TrackedRun
from surefoot.reasoning.metrics.memorization import pre_memorization_accuracies
from surefoot.reasoning.problems import Problem, checked_reference, read_jsonl
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.sequences import PromptCompletion

__all__ = (
    "CURATED",
    "CURATION_METHODS",
    "CurationMethod",
    "choose_parents",
    "draw_variants",
    "instruction_following_difficulties",
    "read_curated",
    "write_curated",
)

CurationMethod = Literal["pre_memorization", "iid", "ifd", "heuristic"]
CURATION_METHODS: tuple[CurationMethod, ...] = get_args(CurationMethod)
#: Name of the file of curated problems.
CURATED = "curated.jsonl"


def choose_parents(
    method: CurationMethod,
    problems: Sequence[Problem],
    record: TrackedRun | None = None,
    log_log_threshold: float = -2.3,
    accuracy_threshold: float = 0.75,
    difficulties: Mapping[str, float] | None = None,
    percentile: float = 50.0,
) -> list[Problem]:
    """Return the original problems of which new ones are made.

    Args:
        method: ``pre_memorization``: those whose pre-memorization accuracy at the last checkpoint is at most
            ``accuracy_threshold``; ``iid``: all; ``ifd``: those whose difficulty is above the percentile;
            ``heuristic``: those whose solution has more lines than the percentile.
        problems: The originals.
        record: Record of a run that tracked them, for ``pre_memorization``.
        log_log_threshold: log(log()) of the perplexity below which an example is memorized.
        accuracy_threshold: In [0, 1].
        difficulties: By problem id, for ``ifd``.
        percentile: In [0, 100].

    Raises:
        ConfigError: If the method lacks what it chooses by, or a number is out of range.
        DataError: If the record lacks an original, or no parent is left.
    """
    if not (math.isfinite(log_log_threshold) and 0 <= accuracy_threshold <= 1 and 0 <= percentile <= 100):
        raise ConfigError(
            "expected a finite log_log_threshold, accuracy_threshold in [0, 1] and percentile in [0, 100], got"
            f" {log_log_threshold}, {accuracy_threshold} and {percentile}."
        )
    chosen = list(problems)
    if method == "pre_memorization":
        if record is None:
            raise ConfigError("the method pre_memorization needs the record of a tracked run.")
        last = pre_memorization_accuracies(record.train_accuracies, record.train_perplexities, log_log_threshold)[-1]
        values = dict(zip(record.train_ids, last.tolist(), strict=True))
        missing = [p.id for p in problems if p.id not in values]
        if missing:
            raise DataError(
                f"the record of {record.name} lacks {len(missing)} of {len(problems)} original problems, such as"
                f" {missing[0]}: was it made with other data, or with a smaller budget of samples?"
            )
        chosen = [p for p in problems if values[p.id] <= accuracy_threshold]
    elif method == "ifd":
        if difficulties is None:
            raise ConfigError("the method ifd needs the difficulty of each problem: give a model.")
        chosen = _above(problems, [difficulties[p.id] for p in problems], percentile)
    elif method == "heuristic":
        n_lines = [float(len(p.solution.strip().split("\n"))) for p in problems]
        chosen = _above(problems, n_lines, percentile)
    if not chosen:
        raise DataError(f"the method {method} leaves no parent among {len(problems)} problems.")
    return chosen


def _above(problems: Sequence[Problem], values: Sequence[float], percentile: float) -> list[Problem]:
    """Return the hardest problems, as many as lie above the percentile; ties by their order."""
    n = round(len(problems) * (1 - percentile / 100))
    order = sorted(range(len(problems)), key=lambda i: -values[i])
    return [problems[i] for i in sorted(order[:n])]


def instruction_following_difficulties(
    problems: Sequence[Problem], model: LanguageModel, prompt: Prompt, max_tokens_per_pack: int
) -> dict[str, float]:
    """Return, by id, the perplexity of the solution given the question over that of the solution alone.

    Args:
        problems: Problems with solutions.
        model: The model that judges.
        prompt: How problems become token ids.
        max_tokens_per_pack: Most tokens that are put through the model at once.
    """
    start = model.tokenizer.bos_token_id
    start = model.eos_token_id if start is None else int(start)
    targets = [prompt.target_ids(p, model) for p in problems]
    asked = [PromptCompletion(prompt.prompt_ids(p, model), t) for p, t in zip(problems, targets, strict=True)]
    alone = [PromptCompletion([start], t) for t in targets]
    ratio = perplexities(model, asked, max_tokens_per_pack) / perplexities(model, alone, max_tokens_per_pack)
    return dict(zip((p.id for p in problems), ratio.tolist(), strict=True))


def draw_variants(
    parents: Sequence[Problem],
    n: int,
    make_variant: Callable[[Problem, int], Problem],
    known: Collection[str] = (),
    seed: int = 0,
) -> list[Problem]:
    """Return new problems, each a variant of a parent that is drawn uniformly.

    Args:
        parents: At least one.
        n: New problems.
        make_variant: Returns variant number i of a problem, the same in every call.
        known: Questions that exist already; none of them, and none twice, is returned.
        seed: Seed of the draw.

    Raises:
        DataError: If there are not as many distinct variants.
    """
    draw, seen = random.Random(seed), set(known)
    variants: list[Problem] = []
    for _ in range(200 * n):
        if len(variants) == n:
            break
        parent = draw.choice(parents)
        variant = make_variant(parent, draw.randrange(2**32))
        if variant.question not in seen:
            seen.add(variant.question)
            details = {**variant.details, "parent": parent.id}
            variants.append(variant._replace(details=details))
    if len(variants) < n:
        raise DataError(f"only {len(variants)} of {n} distinct variants of {len(parents)} parents were found.")
    return variants


def write_curated(folder: Path, problems: Sequence[Problem]) -> None:
    """Write problems, one JSON object a line, so that a reader never sees half of them."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (CURATED + ".part")
    rows = [json.dumps(p._asdict(), ensure_ascii=False) + "\n" for p in problems]
    temporary.write_text("".join(rows), encoding="utf-8")
    temporary.replace(folder / CURATED)


def read_curated(folder: Path) -> list[Problem]:
    """Return what `write_curated` wrote.

    Raises:
        DataError: If the file is missing or a line is damaged.
    """
    problems = []
    for i, row in enumerate(read_jsonl(folder / CURATED), 1):
        if set(row) != set(Problem._fields):
            raise DataError(
                f"{folder / CURATED}, line {i} has the fields {', '.join(row)}, expected {', '.join(Problem._fields)}."
            )
        problem = Problem(**row)
        checked_reference(problem.answer, f"{folder / CURATED}, line {i}")
        problems.append(problem)
    return problems
