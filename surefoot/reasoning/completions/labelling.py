"""Values of every step of stored completions, into a dataset of the same rows, shard by shard."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.policies import check_prompt, describe_policy
from surefoot.reasoning.completions.sharded import Progress, ShardedFolder, counts_file
from surefoot.reasoning.completions.store import read_column, read_columns, read_completions, read_trajectories
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.sequences import split_spans
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import MonteCarloValues, prefixes_of, steps_of
from surefoot.statistics import proportion_interval
from surefoot.storage.json_files import read_json, write_json
from surefoot.training.seeds import derive_seed

__all__ = ("Labelling", "label_completions")


#: What is counted of the engine.
_TAKEN = ("prefix_queries", "prefix_hits", "prefill_computed", "generated_tokens")
#: What is counted of completions whose grading took too long or failed.
_UNGRADED = "sampled_ungraded"


@dataclass(frozen=True)
class Labelling:
    """Which completions are labelled, where they are cut, and in what portions they are written.

    Args:
        seed: Seed of the sampling; each prefix' own derives from it.
        separator: What ends a step, where the completions are not cut already.
        per_problem: Label only the first completions of each problem; all by default.
        problems_per_shard: Problems of a shard.

    Raises:
        ConfigError: If a number is below one, or the separator is empty.
    """

    seed: int
    separator: str = "\n"
    per_problem: int | None = None
    problems_per_shard: int = 32

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.problems_per_shard < 1 or (self.per_problem is not None and self.per_problem < 1):
            raise ConfigError(
                f"problems_per_shard and per_problem must be at least 1, got {self.problems_per_shard} and"
                f" {self.per_problem}."
            )
        if not self.separator:
            raise ConfigError("separator must not be empty: name the text that ends a step.")


def label_completions(
    source: Path,
    prover: Policy,
    estimator: MonteCarloValues,
    out: Path,
    identity: Mapping[str, object],
    labelling: Labelling,
    progress: Progress | None = None,
    decode: Callable[[Sequence[int]], str] | None = None,
) -> dict[str, float]:
    """Estimate the values of stored completions' prefixes under a prover, and write all to a folder.

    The same call again goes on after the last complete shard; a finished one returns at once. Values do not depend on
    where a run was interrupted, nor on the size of shards.

    Args:
        source: Folder of completions.
        prover: What samples from their prefixes; made ready when the first shard is needed, and closed.
        estimator: How many completions of each prefix it samples, and how.
        out: Folder to write to.
        identity: Settings that must not change between the parts of one dataset, as in `generate_completions`.
        labelling: Which completions are labelled, and how they are cut and portioned.
        progress: Called with the number of problems that are done, and that of all.
        decode: Returns the text of the completions' tokens, where the prover has another tokenizer than they have and
            the estimator retokenises; by default the prover's.

    Returns:
        Counts of prefixes, completions and tokens that were read of both; the mean value by the number of finished
        steps, with intervals over problems.

    Raises:
        ConfigError: If the folder holds something else, or the prover cannot go on from the completions, or would be
            given another prompt than theirs.
        DataError: If the completions cannot be read, are not graded, or none has the separator.
    """
    problems, separator = _rows_by_problem(source, labelling.per_problem), labelling.separator
    _check_separator(source, separator)
    size = labelling.problems_per_shard
    parts = [problems[i : i + size] for i in range(0, len(problems), size)]
    rows = [[row for problem in part for row in problem] for part in parts]
    folder = ShardedFolder(
        out, "label", {**identity, **asdict(labelling)}, [len(p) for p in parts], [len(r) for r in rows]
    )
    described = describe_policy(identity)

    def ready() -> None:
        prover.ready()
        if decode is None:  # nothing is sampled where a later shard would be refused
            _check_lengths(source, [row for own in rows for row in own], prover, estimator, separator)

    def label(i: int) -> list[Trajectory]:
        found = list(read_trajectories(source, rows[i]))
        _cut(found, decode or prover, separator)
        write_json(counts_file(folder.shards[i]), _estimate(estimator, prover, found, labelling.seed))
        return [replace(t, prover=described) for t in found]

    try:
        return folder.write(label, lambda _: None, ready, _summarise, progress)
    finally:
        prover.close()


def _estimate(estimator: MonteCarloValues, prover: Policy, found: Sequence[Trajectory], seed: int) -> dict[str, int]:
    """Fill in values, and return what reading prompts and prefixes, and sampling from them, took."""
    before, naive, ungraded = prover.engine.statistics(), estimator.n_prefix_tokens, estimator.n_ungraded
    estimator(prover, found, lambda *parts: derive_seed(seed, *parts))
    took = prover.engine.statistics().since(before)
    counts = {name: getattr(took, name) for name in _TAKEN}
    return counts | {"prefill_naive": estimator.n_prefix_tokens - naive, _UNGRADED: estimator.n_ungraded - ungraded}


def _check_separator(source: Path, separator: str) -> None:
    """Raise a `DataError` if no completion has steps: neither cut ones nor text around a separator."""
    texts = read_column(source, "text")
    has_spans = "span_ends" in read_completions(source).column_names
    ends = read_column(source, "span_ends") if has_spans else [()] * len(texts)
    if not any(cut or separator in _inside(text, separator) for cut, text in zip(ends, texts, strict=True)):
        raise DataError(
            f"no completion in {source} has the separator {separator!r} between two steps: they are of one step each."
        )


def _inside(text: str, separator: str) -> str:
    """Return a text without the separators that it begins and ends with, which end no step."""
    while text.startswith(separator):
        text = text.removeprefix(separator)
    while text.endswith(separator):
        text = text.removesuffix(separator)
    return text


def _check_lengths(
    source: Path, rows: Sequence[int], prover: Policy, estimator: MonteCarloValues, separator: str
) -> None:
    """Refuse completions of which a prefix leaves the prover no tokens.

    Raises:
        ConfigError: If one does.
    """
    lengths = list(map(len, read_column(source, "completion_ids")))
    long = list(read_trajectories(source, [row for row in rows if lengths[row] > estimator.sampling.max_tokens]))
    _cut(long, prover, separator)
    estimator.check_lengths([len(p.tokens) for t in long for p in prefixes_of(t)])


def _rows_by_problem(source: Path, per_problem: int | None) -> list[list[int]]:
    """Return the rows of each problem's completions, or of the first few of each."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, problem in enumerate(read_column(source, "problem_index")):
        if per_problem is None or len(rows_of[problem]) < per_problem:
            rows_of[problem].append(row)
    if not rows_of:
        raise ConfigError(f"{source} holds no completions.")
    return list(rows_of.values())


def _cut(completions: Sequence[Trajectory], reader: Policy | Callable[[Sequence[int]], str], separator: str) -> None:
    """Fill in spans and steps where they are missing.

    Args:
        completions: What is cut.
        reader: The prover; or what returns the text of token ids, where the prover has another tokenizer.
        separator: What ends a step.

    Raises:
        ConfigError: If the prover has another prompt than the completions, or texts are read otherwise than they were
            written.
    """
    if isinstance(reader, Policy):
        if completions:
            check_prompt(completions[0], reader)
        reader.cut_into_steps([t for t in completions if not t.spans], separator)
        return
    for t in completions:
        written = reader(t.completion)
        if not written.startswith(t.text):
            raise ConfigError(
                f"the tokenizer reads {written[:40]!r} from a completion of problem {t.problem.id}, which is"
                f" {t.text[:40]!r}: give the one that the completions were sampled with."
            )
        if not t.spans:
            t.spans, t.steps = split_spans(t.completion, reader, separator, t.text)
        elif len(t.steps) != len(t.spans):
            t.steps = steps_of(t, reader)


def _summarise(shards: Sequence[Path]) -> dict[str, float]:
    """Return counts, and the mean value after each number of steps, with 95% intervals over problems.

    Completions of a problem are no independent draws, for they share prefixes: each problem's mean counts once.
    """
    totals: Counter[str] = Counter()
    after: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in shards:
        table = read_columns(path, ("problem_index", "values", "value_counts")).to_pydict()
        for problem, values, counts in zip(*table.values(), strict=True):
            totals.update(completions=1, values=len(values), one_step=len(values) == 2)
            totals["sampled_behind_values"] += sum(counts)
            for n_steps, value in enumerate(values[:-1]):
                after[n_steps][problem].append(value)
    summary: dict[str, float] = {name: float(n) for name, n in totals.items()} | _prefill(shards)
    for n_steps in sorted(after)[:10]:
        interval = proportion_interval([math.fsum(own) / len(own) for own in after[n_steps].values()])
        name = f"value_after_{n_steps}_steps"
        summary |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return summary


def _prefill(shards: Sequence[Path]) -> dict[str, float]:
    """Return what reading prompts and prefixes took, and what was sampled; nothing where a shard does not say so."""
    files = [counts_file(shard) for shard in shards]
    if not all(file.is_file() for file in files):  # an earlier version has written some
        return {}
    totals: Counter[str] = Counter()
    for file in files:
        totals.update(read_json(file))
    queries = totals["prefix_queries"]
    return {
        "prefix_hit_rate": totals["prefix_hits"] / queries if queries else 0.0,
        "prefill_computed": float(totals["prefill_computed"]),
        "prefill_naive": float(totals["prefill_naive"]),
        "generated_tokens": float(totals["generated_tokens"]),
        _UNGRADED: float(totals[_UNGRADED]),
    }
