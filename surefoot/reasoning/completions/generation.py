"""Sampling and grading many problems into an Arrow dataset, shard by shard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.policies import describe_policy
from surefoot.reasoning.completions.sharded import Progress, ShardedFolder
from surefoot.reasoning.completions.store import read_columns
from surefoot.reasoning.metrics import Outcome, problem_results, summarise_results
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.trajectories import Trajectory
from surefoot.storage.json_files import fingerprint
from surefoot.training.seeds import derive_seed

__all__ = ("generate_completions",)


def generate_completions(
    problems: Sequence[Problem],
    policy: Policy,
    sampling: Sampling,
    out: Path,
    identity: Mapping[str, object],
    seed: int = 0,
    problems_per_shard: int = 128,
    progress: Progress | None = None,
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
        progress: Called with the number of problems that are done, and that of all.

    Returns:
        Accuracy with its interval, pass@k, maj@k and the like, over all completions.

    Raises:
        ConfigError: If there is nothing to do, or the folder holds a dataset of other settings.
    """
    if not problems or problems_per_shard < 1:
        raise ConfigError("there are no problems to generate completions for.")
    starts = [Start(problem, group=i) for i, problem in enumerate(problems)]
    parts = [starts[i : i + problems_per_shard] for i in range(0, len(starts), problems_per_shard)]
    contents = fingerprint({"problems": [(p.id, p.question, p.answer) for p in problems]})
    wanted = {**identity, "seed": seed, "problems_per_shard": problems_per_shard, "problems": contents}
    sizes = [len(part) for part in parts]
    folder = ShardedFolder(out, "generate", wanted, sizes, [n * sampling.n for n in sizes])

    described = describe_policy(identity)

    def sample(i: int) -> list[Trajectory]:
        sampled = policy.sample(parts[i], sampling, [derive_seed(seed, s.problem.id) for s in parts[i]])
        return [replace(t, policy=described) for t in sampled]

    try:
        return folder.write(sample, policy.grade, partial(_begin, policy), partial(_summarise, policy), progress)
    finally:
        policy.close()


def _begin(policy: Policy) -> None:
    """Make the policy and its grader's processes ready."""
    policy.ready()
    policy.grader.pool.warm_up()


def _summarise(policy: Policy, shards: Sequence[Path]) -> dict[str, float]:
    return summarise_results(problem_results(_outcomes(shards), policy.grader))


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
