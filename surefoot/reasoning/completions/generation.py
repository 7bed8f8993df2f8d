"""Sampling and grading many problems into an Arrow dataset, shard by shard, so that a kill costs one shard at most.

A folder holds ``generation.json`` (what is being generated), one file per shard that is complete as soon as it has its
name, and, once all are there, what ``datasets.load_from_disk`` needs and ``summary.json``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.store import (
    RECORD,
    SCHEMA_VERSION,
    describe_shards,
    is_described,
    n_rows,
    read_columns,
    write_shard,
)
from surefoot.reasoning.metrics import Outcome, problem_results, summarise_results
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, derive_seed
from surefoot.reasoning.trajectories import Trajectory
from surefoot.storage.contents import differing_contents
from surefoot.storage.files import partial_path
from surefoot.storage.json_files import fingerprint, read_json, write_json
from surefoot.storage.locks import LOCK_FILE, hold

__all__ = ("generate_completions",)


def generate_completions(
    problems: Sequence[Problem],
    policy: Policy,
    sampling: Sampling,
    out: Path,
    identity: Mapping[str, Any],
    seed: int = 0,
    problems_per_shard: int = 128,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, float]:
    """Sample completions of every problem, grade them, and write them to a folder.

    Grading and writing of a shard happen while the next one is sampled. The same call again goes on after the last
    complete shard; a finished one returns at once. Completions do not depend on where a run was interrupted.

    Args:
        problems: What is to be solved.
        policy: What solves them; made ready when the first shard is needed, and closed.
        sampling: How completions are sampled.
        out: Folder to write to.
        identity: Settings that must not change between the parts of one dataset; ``contents`` among them is what their
            paths hold, see `surefoot.storage.contents.named_contents`.
        seed: Seed of the sampling; each problem's own derives from it and its id.
        problems_per_shard: Problems of a shard.
        progress: Told the problems that are done, all problems, and the engine's tokens per second.

    Returns:
        Accuracy with its interval, pass@k, maj@k and the like, over all completions.

    Raises:
        ConfigError: If there is nothing to do, or the folder holds a dataset of other settings.
    """
    if not problems or problems_per_shard < 1:
        raise ConfigError("there are no problems to generate completions for.")
    starts = [Start(problem, group=i) for i, problem in enumerate(problems)]
    parts = [starts[i : i + problems_per_shard] for i in range(0, len(starts), problems_per_shard)]
    shards = [out / f"data-{i:05d}-of-{len(parts):05d}.arrow" for i in range(len(parts))]
    _claim(out, identity, problems, seed, problems_per_shard)
    with hold(out, ", or choose another --out"):
        missing = [i for i, path in enumerate(shards) if n_rows(path) != len(parts[i]) * sampling.n]
        n_done = len(problems) - sum(len(parts[i]) for i in missing)
        try:
            if missing:
                policy.ready()
                policy.grader.pool.warm_up()
            with ThreadPoolExecutor(1) as background:
                pending: Future[None] | None = None
                for i in missing:
                    sampled = policy.sample(parts[i], sampling, [derive_seed(seed, s.problem.id) for s in parts[i]])
                    if pending is not None:
                        pending.result()
                    pending = background.submit(_finish, policy, sampled, shards[i])
                    n_done += len(parts[i])
                    if progress is not None:
                        progress(n_done, len(problems), policy.engine.statistics().tokens_per_second)
                if pending is not None:
                    pending.result()
            return _complete(out, shards, policy.grader)
        finally:
            policy.close()


def _claim(out: Path, identity: Mapping[str, Any], problems: Sequence[Problem], seed: int, per_shard: int) -> None:
    """Write what the folder is for, or check that it is for the same."""
    wanted = {
        **identity,
        "seed": seed,
        "problems_per_shard": per_shard,
        "problems": fingerprint({"problems": [(p.id, p.question, p.answer) for p in problems]}),
    }
    record = out / RECORD
    if record.is_file():
        found = read_json(record)
        changed = differing_contents(found.pop("contents", {}), wanted.pop("contents", {}))
        if changed:
            raise ConfigError(
                f"{out} holds completions of other contents: what {changed[0]} names has changed since it was begun."
                " Choose another --out."
            )
        if found.pop("schema_version", 1) != SCHEMA_VERSION and not is_described(out):
            raise ConfigError(
                f"{out} was begun by a version of Surefoot that stores other columns: finish it with that version, or"
                " choose another --out."
            )
        differing = [k for k in {*wanted, *found} if str(found.get(k)) != str(wanted.get(k))]
        if differing:
            name = min(differing)
            raise ConfigError(
                f"{out} holds completions of other settings ({', '.join(sorted(differing))} differ; {name} was"
                f" {found.get(name)!r} and is now {wanted.get(name)!r}): choose another --out."
            )
        return
    before = (LOCK_FILE, partial_path(record).name)  # what one that was killed here leaves behind
    if out.exists() and any(p.name not in before for p in out.iterdir()):
        raise ConfigError(f"{out} is not empty and not a folder of surefoot generate.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted | {"schema_version": SCHEMA_VERSION})


def _finish(policy: Policy, trajectories: Sequence[Trajectory], path: Path) -> None:
    """Grade a shard's completions and write it."""
    policy.grade(trajectories)
    write_shard(trajectories, path)


def _complete(out: Path, shards: Sequence[Path], grader: Grader) -> dict[str, float]:
    """Make the folder one that ``datasets.load_from_disk`` reads, and return its summary."""
    if (out / "summary.json").is_file() and is_described(out):
        summary: dict[str, float] = read_json(out / "summary.json")
        return summary
    summary = summarise_results(problem_results(_outcomes(shards), grader))
    describe_shards(out, shards)
    write_json(out / "summary.json", summary)  # the last one: with it the folder is complete
    return summary


def _outcomes(shards: Sequence[Path]) -> Iterator[Outcome]:
    columns = ("problem_id", "status", "answer", "completion_ids", "finish_reason")
    for path in shards:
        table = read_columns(path, columns)
        if not len(table):
            raise DataError(f"{path} is empty.")
        lengths = map(len, table["completion_ids"])
        for problem, status, answer, n_tokens, reason in zip(
            *(table[c].to_pylist() for c in columns[:3]), lengths, table["finish_reason"].to_pylist(), strict=True
        ):
            yield Outcome(problem, status, answer, n_tokens, reason == "length")
