"""Search for many problems, its candidates stored shard by shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surefoot.errors import ConfigError
from surefoot.reasoning.completions.sharded import Progress, ShardedFolder, counts_file
from surefoot.reasoning.completions.store import RECORD, read_trajectories
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.search.base import Search, SearchCounts
from surefoot.reasoning.search.selection import Candidate
from surefoot.reasoning.trajectories import Trajectory
from surefoot.storage.json_files import fingerprint, read_json, write_json
from surefoot.training.seeds import derive_seed

__all__ = ("Found", "Searching", "check_same_problems", "read_candidates", "search_completions")


@dataclass(frozen=True)
class Searching:
    """How candidates are found, and in what portions they are written.

    Args:
        search: How.
        sampling: How completions are sampled; ``n`` is the search's width.
        seed: Seed of the sampling; each draw's own derives from it.
        problems_per_shard: Problems that are searched together and make a shard.

    Raises:
        ConfigError: If a shard holds no problem.
    """

    search: Search
    sampling: Sampling
    seed: int
    problems_per_shard: int = 32

    def __post_init__(self) -> None:
        """Check the number."""
        if self.problems_per_shard < 1:
            raise ConfigError(f"problems_per_shard must be positive, got {self.problems_per_shard}.")


@dataclass(frozen=True)
class Found:
    """Where the candidates of a search lie, and what it took."""

    folder: Path
    counts: SearchCounts


def search_completions(
    problems: Sequence[Problem],
    policy: Policy,
    searching: Searching,
    out: Path,
    identity: Mapping[str, object],
    progress: Progress | None = None,
) -> Found:
    """Search for each problem's answer, and write all candidates to a folder.

    The same call again goes on after the last complete shard; a finished one returns at once. Candidates do not depend
    on where a run was interrupted.

    Args:
        problems: What is to be solved.
        policy: What solves them; made ready when the first shard is needed. It stays ready.
        searching: How, and in what portions.
        out: Folder to write to.
        identity: Settings that must not change between the parts of one folder, as in `generate_completions`.
        progress: Called with the number of problems that are done, and that of all.

    Raises:
        ConfigError: If there is nothing to do, or the folder holds something else.
    """
    search, sampling, size = searching.search, searching.sampling, searching.problems_per_shard
    if not problems:
        raise ConfigError("there are no problems to search for answers to.")
    parts = [problems[i : i + size] for i in range(0, len(problems), size)]
    wanted = {
        **identity,
        "n": sampling.n,
        "seed": searching.seed,
        "problems_per_shard": size,
        "problems": _fingerprint(problems),
    }
    folder = ShardedFolder(out, "search", wanted, [len(part) for part in parts], [None] * len(parts))

    def find(i: int) -> list[Trajectory]:
        before = replace(search.counts)
        found = search(policy, parts[i], sampling, lambda *of: derive_seed(searching.seed, *of))
        first = i * size
        found = [replace(t, group=first + t.group) for t in found]
        write_json(counts_file(folder.shards[i]), vars(search.counts.since(before)))
        return found

    folder.write(find, lambda _: None, policy.ready, _summarise, progress)
    return Found(out, SearchCounts(**{name: int(n) for name, n in read_json(out / "summary.json").items()}))


def check_same_problems(problems: Sequence[Problem], other: Path, n_other: int) -> None:
    """Refuse to compare a search with one of other problems.

    Args:
        problems: Of the search.
        other: Folder of the other one's candidates, a folder for each width.
        n_other: Problems that its accuracies are of.

    Raises:
        ConfigError: If it has searched for answers to others, or to another number of them.
    """
    known = {read_json(record).get("problems") for record in sorted(other.glob(f"n-*/{RECORD}"))} - {None}
    if n_other != len(problems) or known - {_fingerprint(problems)}:
        raise ConfigError(
            f"{other} is a search of {n_other} other problems than these {len(problems)}: a baseline needs the same"
            " --data, --split and --limit."
        )


def _fingerprint(problems: Sequence[Problem]) -> str:
    return fingerprint({"problems": [(p.id, p.question, p.answer) for p in problems]})


def read_candidates(folder: Path, policy: Policy, search: Search, scored: bool) -> list[list[Candidate]]:
    """Return each problem's candidates; the score is the value of the last step.

    Args:
        folder: What `search_completions` wrote.
        policy: Its grader says which answers are equal.
        search: What found them, and says what their steps are worth together.
        scored: Whether they have values.
    """
    problems: dict[int, list[Trajectory]] = {}
    for t in read_trajectories(folder):
        problems.setdefault(t.group, []).append(t)
    grades = [[t.grade for t in own] for own in problems.values()]
    votes = policy.grader.classes(
        [[g.answer if g else None for g in own] for own in grades],
        [[bool(g and g.correct) for g in own] for own in grades],
    )
    return [
        [
            Candidate(
                bool(t.grade and t.grade.correct),
                vote,
                float(t.values[-1]) if scored else 0.0,
                search.progress_of(t),
            )
            for t, vote in zip(own, answers, strict=True)
        ]
        for own, answers in zip(problems.values(), votes, strict=True)
    ]


def _summarise(shards: Sequence[Path]) -> dict[str, float]:
    """Return what the search of all shards took."""
    totals = SearchCounts()
    for shard in shards:
        for name, n in read_json(counts_file(shard)).items():
            setattr(totals, name, getattr(totals, name) + n)
    return {name: float(n) for name, n in vars(totals).items()}
