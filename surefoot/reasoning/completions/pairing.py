"""Preference pairs of stored completions, with the continuations that a builder wants, sampled shard by shard."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.pair_files import PAIRS_FILE, write_pairs
from surefoot.reasoning.completions.pairs import PairBuilder, PreferencePair
from surefoot.reasoning.completions.policies import check_prompt, describe_policy, differing_settings
from surefoot.reasoning.completions.sharded import Progress, ShardedFolder
from surefoot.reasoning.completions.store import read_shard, read_trajectories
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.seeds import derive_seed

__all__ = ("Pairing", "pair_completions")


@dataclass(frozen=True)
class Pairing:
    """What is drawn, and in what portions continuations are written.

    Args:
        seed: Seed of the sampling, each prefix' own derives from it, and of what the builder draws.
        prefixes_per_shard: Prefixes whose continuations make a shard.

    Raises:
        ConfigError: If there are no prefixes in a shard.
    """

    seed: int
    prefixes_per_shard: int = 256

    def __post_init__(self) -> None:
        """Check the number."""
        if self.prefixes_per_shard < 1:
            raise ConfigError(f"prefixes_per_shard must be at least 1, got {self.prefixes_per_shard}.")


def pair_completions(
    source: Path,
    builder: PairBuilder,
    policy: Policy,
    sampling: Sampling,
    out: Path,
    identity: Mapping[str, object],
    pairing: Pairing,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Sample the continuations that a builder wants of stored completions, and write its pairs to a folder.

    The same call again goes on after the last complete shard; a finished one returns at once. Pairs do not depend on
    where a run was interrupted, nor on the size of shards.

    Args:
        source: Folder of completions.
        builder: Makes the pairs; it gets the completions, and the continuations that end right.
        policy: The one that sampled the completions; it is made ready when continuations are wanted, and closed.
        sampling: How it goes on, ``n`` times from each prefix; ``max_tokens`` bounds the whole completion.
        out: Folder to write to: ``pairs.jsonl``, the continuations and ``summary.json``.
        identity: Settings that must not change between the parts of one folder, as in `generate_completions`.
        pairing: What is drawn, and the portions.
        progress: Called with the number of prefixes that are done, and that of all.

    Returns:
        Counts of problems, completions and pairs, of wrong completions that are in none by reason, of pits by step;
        mean values around pits; what was sampled.

    Raises:
        ConfigError: If the folder holds something else, or the policy is not that of the completions.
        DataError: If the completions cannot be read or paired, or there are no pairs.
    """
    completions, described = list(read_trajectories(source)), describe_policy(identity)
    starts = builder.starts(completions, pairing.seed)
    if starts:
        _check_policy(completions, policy, described)
    samplings, size = [_what_is_left(sampling, start) for start in starts], pairing.prefixes_per_shard
    seeds = [derive_seed(pairing.seed, s.problem.id, "continuation", derive_seed(*s.given)) for s in starts]
    parts = [slice(i, i + size) for i in range(0, len(starts), size)]
    sizes = [len(starts[part]) for part in parts]
    folder = ShardedFolder(out, "pairs", {**identity, **asdict(pairing)}, sizes, [n * sampling.n for n in sizes])

    def sample(i: int) -> list[Trajectory]:
        sampled = policy.sample(starts[parts[i]], samplings[parts[i]], seeds[parts[i]])
        return [replace(t, policy=described) for t in sampled]

    def pair(shards: Sequence[Path]) -> dict[str, float]:
        continuations = [t for shard in shards for t in read_shard(shard)]
        given = [*completions, *(t for t in continuations if t.is_correct)]
        pairs, left_out = builder(given, pairing.seed), builder.left_out(given, pairing.seed)
        if not pairs:
            raise DataError(f"{source} gives no pairs: {_reasons(completions, left_out)}.")
        write_pairs(pairs, out / PAIRS_FILE)
        return _summary(completions, continuations, pairs, left_out)

    try:
        return folder.write(sample, policy.grade, policy.ready, pair, progress)
    finally:
        policy.close()


def _check_policy(completions: Sequence[Trajectory], policy: Policy, described: str) -> None:
    """Refuse a policy that did not sample the completions, as far as they say what did.

    Raises:
        ConfigError: If it is another one, or has another prompt.
    """
    for recorded in dict.fromkeys(t.policy or t.prover for t in completions):
        if differing := differing_settings(described, recorded):
            raise ConfigError(
                f"the completions are of a policy with another {' and '.join(differing)}: what is preferred must be"
                " sampled by the policy that wrote what is rejected. Give the model and the sampling of surefoot"
                " generate."
            )
    check_prompt(completions[0], policy)


def _what_is_left(sampling: Sampling, start: Start) -> Sampling:
    """Return the sampling with the tokens that a completion may have after those that are given.

    Raises:
        ConfigError: If there are none.
    """
    left = sampling.max_tokens - len(start.given)
    if left < 1:
        raise ConfigError(
            f"a prefix of {len(start.given)} tokens leaves nothing of max_tokens {sampling.max_tokens}: give as many as"
            " the completions had."
        )
    return replace(sampling, max_tokens=left)


def _statuses(completions: Sequence[Trajectory]) -> Counter[str]:
    return Counter(t.grade.status for t in completions if t.grade is not None)


def _reasons(completions: Sequence[Trajectory], left_out: Mapping[str, int]) -> str:
    """Return why there are no pairs."""
    found = _statuses(completions)
    reasons = "".join(f", {n} {reason.replace('_', ' ')}" for reason, n in left_out.items() if n)
    return f"{found['correct']} completions are correct and {found['wrong']} wrong{reasons}"


def _summary(
    completions: Sequence[Trajectory],
    continuations: Sequence[Trajectory],
    pairs: Sequence[PreferencePair],
    left_out: Mapping[str, int],
) -> dict[str, float]:
    n, found = len(pairs), _statuses(completions)
    pits = [pair.record.pit for pair in pairs if pair.record is not None and pair.record.pit is not None]
    summary: dict[str, float] = {
        "problems": len({t.problem.id for t in completions}),
        "correct": found["correct"],
        "wrong": found["wrong"],
        "pairs": n,
        "paired_problems": len({pair.record.problem for pair in pairs if pair.record is not None}),
        **{f"left_out_{reason}": count for reason, count in left_out.items()},
        "chosen_tokens": sum(len(pair.chosen) for pair in pairs) / n,
        "rejected_tokens": sum(len(pair.rejected) for pair in pairs) / n,
        "continuations": len(continuations),
        "continuations_correct": _statuses(continuations)["correct"],
        "generated_tokens": sum(t.n_sampled for t in continuations),
    }
    for i, when in enumerate(("before", "after") if pits else ()):
        summary[f"value_{when}_pit"] = sum(pit.values[i] for pit in pits) / len(pits)
        summary[f"best_of_k_{when}_pit"] = sum(pit.best_of_k[i] for pit in pits) / len(pits)
    steps = Counter(pit.step for pit in pits)
    return summary | {f"pit_at_step_{step}": steps[step] for step in sorted(steps)}
