"""Folders of completions that are written shard by shard, so that a kill costs one shard at most.

A folder holds ``generation.json`` (what is being made), one file per shard that is complete as soon as it has its name,
and, once all are there, what ``datasets.load_from_disk`` needs and ``summary.json``.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.errors import ConfigError
from surefoot.reasoning.completions.store import (
    RECORD,
    SCHEMA_VERSION,
    describe_shards,
    is_described,
    n_rows,
    write_shard,
)
from surefoot.reasoning.trajectories import Trajectory
from surefoot.storage.contents import differing_contents
from surefoot.storage.files import partial_path
from surefoot.storage.json_files import read_json, write_json
from surefoot.storage.locks import LOCK_FILE, hold

__all__ = ("Progress", "ShardedFolder", "counts_file")

#: Called with the number of problems that are done, and that of all.
Progress = Callable[[int, int], None]


class ShardedFolder(NamedTuple):
    """What is written, and how much of it makes a shard."""

    path: Path
    verb: str  # that writes it
    identity: Mapping[str, Any]  # settings that must not change between the parts of one folder
    n_problems: Sequence[int]  # of each shard
    n_rows: Sequence[int | None]  # of each shard; none where it is not known before it is made

    @property
    def shards(self) -> list[Path]:
        """The shards' files."""
        n = len(self.n_rows)
        return [self.path / f"data-{i:05d}-of-{n:05d}.arrow" for i in range(n)]

    def write(
        self,
        make: Callable[[int], Sequence[Trajectory]],
        finish: Callable[[Sequence[Trajectory]], None],
        begin: Callable[[], None],
        summarise: Callable[[Sequence[Path]], Mapping[str, float]],
        progress: Progress | None = None,
    ) -> dict[str, float]:
        """Write the shards that are missing, and what makes them one dataset; a finished folder is left as it is.

        Args:
            make: Returns the rows of a shard.
            finish: Completes them while the next ones are made.
            begin: Called before the first shard that is missing.
            summarise: Returns numbers about all shards.
            progress: Called after every shard.

        Returns:
            The summary.

        Raises:
            ConfigError: If the folder holds something else.
        """
        self._claim()
        with hold(self.path, ", or choose another --out"):
            there = [n_rows(path) for path in self.shards]
            missing = [i for i, n in enumerate(self.n_rows) if there[i] < 0 or n not in (None, there[i])]
            done = sum(self.n_problems) - sum(self.n_problems[i] for i in missing)
            if missing:
                begin()
            with ThreadPoolExecutor(1) as background:
                pending: Future[None] | None = None
                for i in missing:
                    made = make(i)
                    if pending is not None:
                        pending.result()
                    pending = background.submit(_finish, finish, made, self.shards[i])
                    done += self.n_problems[i]
                    if progress is not None:
                        progress(done, sum(self.n_problems))
                if pending is not None:
                    pending.result()
            return self._complete(summarise)

    def _claim(self) -> None:
        """Write what the folder is for, or check that it is for the same."""
        out, wanted, record = self.path, dict(self.identity), self.path / RECORD
        if record.is_file():
            found = read_json(record)
            changed = differing_contents(found.pop("contents", {}), wanted.pop("contents", {}))
            if changed:
                raise ConfigError(
                    f"{out} holds completions of other contents: what {changed[0]} names has changed since it was"
                    " begun. Choose another --out."
                )
            if found.pop("schema_version", 1) != SCHEMA_VERSION and not is_described(out):
                raise ConfigError(
                    f"{out} was begun by a version of Surefoot that stores other columns: finish it with that version,"
                    " or choose another --out."
                )
            wanted["verb"], found["verb"] = self.verb, found.get("verb", "generate")
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
            raise ConfigError(f"{out} is not empty and not a folder of surefoot {self.verb}.")
        out.mkdir(parents=True, exist_ok=True)
        write_json(record, wanted | {"verb": self.verb, "schema_version": SCHEMA_VERSION})

    def _complete(self, summarise: Callable[[Sequence[Path]], Mapping[str, float]]) -> dict[str, float]:
        """Make the folder one that ``datasets.load_from_disk`` reads, and return its summary."""
        if (self.path / "summary.json").is_file() and is_described(self.path):
            summary: dict[str, float] = read_json(self.path / "summary.json")
            return summary
        summary = dict(summarise(self.shards))
        describe_shards(self.path, self.shards)
        write_json(self.path / "summary.json", summary)  # the last one: with it the folder is complete
        return summary


def counts_file(shard: Path) -> Path:
    """Return where it stands what a shard took; it is written before the shard is."""
    return shard.with_suffix(".counts.json")


def _finish(finish: Callable[[Sequence[Trajectory]], None], made: Sequence[Trajectory], path: Path) -> None:
    finish(made)
    write_shard(made, path)
