"""A pool of processes that compare answers and are killed when they take too long."""

import atexit
import json
import math
import os
import selectors
import subprocess
import sys
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import n_cores
from surefoot.reasoning.answers.equality import plain_verdict

__all__ = ("STATUSES", "BudgetWarning", "GraderPool", "Status")

Status = Literal["correct", "wrong", "unparsable", "timeout", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)

_STARTUP_SECONDS = 120.0
_CACHE_SIZE = 100_000
#: Seconds that each comparison gets before any gets its whole limit: slow ones wait for the others.
_FIRST_SECONDS = 0.5
#: Seconds that a process may be late with its own time limit before it is killed.
_GRACE_SECONDS = 0.3
#: Multiples of the limit for which a process may wait for its processor time.
_PATIENCE = 4.0
#: Waiting comparisons for which another process is started.
_JOBS_PER_START = 16


class BudgetWarning(UserWarning):
    """Comparisons did not fit into a batch's budget."""


@dataclass
class _Worker:
    """One process and the comparison it is busy with."""

    process: "subprocess.Popen[bytes]"
    deadline: float  # monotonic seconds
    parent: int = field(default_factory=os.getpid)
    ready: bool = False
    job: int | None = None
    #: Seconds of the processor that the process had used when it got its job.
    used: float = 0.0
    #: When the job is given up however little of the processor the process got; monotonic seconds.
    latest: float = 0.0
    buffer: bytes = field(default=b"")

    def send(self, gold: str, answer: str, limit: float, by_clock: bool) -> bool:
        """Send a comparison; return whether the process was there to take it."""
        assert self.process.stdin is not None
        line = json.dumps({"gold": gold, "answer": answer, "limit": limit, "by_clock": by_clock}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except OSError:
            return False
        return True

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used, infinite where the system does not say."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return math.inf
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End the process, whatever it is doing; one that was inherited by a fork is its parent's to end."""
        if self.parent != os.getpid():
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a request that the dead process never read
                    continue


class _Round:
    """Comparisons under one time limit, and what became of them."""

    def __init__(self, jobs: Sequence[tuple[str, str]], limit: float, end: float, by_clock: bool) -> None:
        self.jobs, self.limit = jobs, limit
        self.end = end  # monotonic seconds
        self.by_clock = by_clock  # whether a comparison's seconds are those of the clock, not of the processor
        self.results: list[Status | None] = [None] * len(jobs)
        self.waiting = list(range(len(jobs)))[::-1]
        self.began: float | None = None  # since when no process has started yet; none once one has
        self.n_failed_starts = 0


def _start() -> _Worker:
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "surefoot.reasoning.answers.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C reaches us, and we end them
    )
    return _Worker(process, time.monotonic() + _STARTUP_SECONDS)


#: Idle processes of closed pools: the next pool of this program need not wait for imports.
_spare: list[_Worker] = []


def _take() -> _Worker:
    """Return a process that another pool has left, or a new one."""
    while _spare:
        worker = _spare.pop()
        is_ours = worker.parent == os.getpid()  # not that of a process that we were forked from
        if is_ours and worker.process.poll() is None:
            worker.deadline = time.monotonic() + _STARTUP_SECONDS
            return worker
        worker.kill()
    return _start()


def _leave(workers: list[_Worker]) -> None:
    """Keep idle processes for the next pool, the latest of each core, and end the others."""
    while workers:
        worker = workers.pop()
        if worker.job is None and worker.parent == os.getpid():
            _spare.append(worker)
        else:
            worker.kill()
    while len(_spare) > n_cores():
        _spare.pop(0).kill()


def _kill_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.kill()
    workers.clear()


atexit.register(_kill_all, _spare)  # after the pools, which begin later


class GraderPool:
    """Compares answers with references in processes of its own.

    Processes start at the first comparison, or ahead of it by `warm_up`, live on between calls, and are replaced when
    killed; of a closed pool they go to the next one. Plain numbers are compared without them. A call ends within
    ``budget + time_limit`` seconds, and the start of a process, whatever the answers are.
    """

    def __init__(self, n_workers: int | None = None, time_limit: float = 5.0, budget: float | None = None) -> None:
        """Initialize the pool; no process is started yet.

        Args:
            n_workers: Number of processes; one per core, at most 8, by default.
            time_limit: Seconds of processor time after which a comparison is given up.
            budget: Seconds for one call; what is not compared by then is graded ``timeout``, and not remembered. By
                default 30, and a tenth of a second for each comparison.

        Raises:
            ConfigError: If one is not positive.
        """
        n_workers = min(8, n_cores()) if n_workers is None else n_workers
        if n_workers < 1 or not 0 < time_limit < math.inf or (budget is not None and not 0 < budget < math.inf):
            raise ConfigError(
                f"n_workers, time_limit and budget must be positive and finite, got {n_workers}, {time_limit} and"
                f" {budget}."
            )
        self.n_workers, self.time_limit, self.budget = n_workers, time_limit, budget
        #: Comparisons that did not fit into their batch's budget, since the start.
        self.n_over_budget = 0
        self._workers: list[_Worker] = []
        #: Comparisons that are not made again, by reference and answer; the oldest first.
        self.known: OrderedDict[tuple[str, str], Status] = OrderedDict()
        self._finalizer = weakref.finalize(self, _leave, self._workers)

    @property
    def process_ids(self) -> list[int]:
        """Ids of the processes that have been started."""
        return [worker.process.pid for worker in self._workers]

    def warm_up(self) -> None:
        """Start the processes without waiting for them: they import math-verify while something else is done."""
        while len(self._workers) < self.n_workers:
            self._workers.append(_take())

    def close(self) -> None:
        """Let go of all processes: the next comparison of this or another pool takes idle ones, or starts new ones."""
        _leave(self._workers)

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Status]:
        """Compare answers with references.

        Args:
            pairs: ``(reference, answer)``, each.

        Returns:
            The statuses, in order. A pair that was compared before, or ran into the time limit, is not compared again.

        Raises:
            SurefootError: If the processes cannot be started.
        """
        jobs = [p for p in dict.fromkeys(pairs) if p not in self.known]
        statuses: dict[tuple[str, str], Status] = {}
        for pair in jobs:
            verdict = plain_verdict(*pair)
            if verdict is not None:
                statuses[pair] = "correct" if verdict else "wrong"
        over = self._run_within_budget([p for p in jobs if p not in statuses], statuses)
        self.known.update((p, s) for p, s in statuses.items() if p not in over)
        results = [statuses[p] if p in statuses else self.known[p] for p in pairs]
        while len(self.known) > _CACHE_SIZE:
            self.known.popitem(last=False)
        return results

    def _run_within_budget(
        self, jobs: Sequence[tuple[str, str]], statuses: dict[tuple[str, str], Status]
    ) -> set[tuple[str, str]]:
        """Fill in statuses, those of quick comparisons first; return what the budget did not reach."""
        if not jobs:
            return set()
        budget = 30 + 0.1 * len(jobs) if self.budget is None else self.budget
        end = time.monotonic() + budget
        first = min(_FIRST_SECONDS, self.time_limit)
        found, end = self._run(jobs, first, end)
        late = [p for p, s in zip(jobs, found, strict=True) if s in ("timeout", None)]
        statuses.update((p, s or "timeout") for p, s in zip(jobs, found, strict=True))
        if first == self.time_limit:
            over = {p for p, s in zip(jobs, found, strict=True) if s is None}
        else:
            found, _ = self._run(late, self.time_limit, end)
            statuses.update((p, s or "timeout") for p, s in zip(late, found, strict=True))
            over = {p for p, s in zip(late, found, strict=True) if s is None}
        if over and not self.n_over_budget:
            warnings.warn(
                f"{len(over)} of {len(jobs)} comparisons did not fit into {budget:.0f} s and are graded timeout:"
                " give the grader more n_workers or a larger budget.",
                BudgetWarning,
                stacklevel=4,
            )
        self.n_over_budget += len(over)
        return over

    def _run(self, jobs: Sequence[tuple[str, str]], limit: float, end: float) -> tuple[list[Status | None], float]:
        """Return the statuses, none where ``end`` (monotonic seconds) came first, and the end.

        The time in which no process had started yet is added to the end.
        """
        # the first round settles nothing but what is quick
        current = _Round(jobs, limit, end, by_clock=limit < self.time_limit)
        current.began = None if any(w.ready for w in self._workers) else time.monotonic()
        while current.waiting or self._n_busy():
            if current.began is None and time.monotonic() >= current.end:
                current.waiting.clear()
            wanted = self._n_busy() + math.ceil(len(current.waiting) / _JOBS_PER_START)
            while len(self._workers) < min(self.n_workers, wanted):
                self._workers.append(_take())
            self._assign(current)
            for worker, reply in self._replies():
                if not self._goes_on(current, worker, reply):
                    self._drop(worker)
        return current.results, current.end

    def _assign(self, current: _Round) -> None:
        """Give every idle process a waiting comparison."""
        for worker in list(self._workers):
            if worker.ready and worker.job is None and current.waiting:
                job = current.waiting.pop()
                now, limit = time.monotonic(), current.limit
                worker.job, worker.deadline = job, now + limit + _GRACE_SECONDS
                worker.latest = max(min(now + _PATIENCE * limit, current.end), now + limit) + _GRACE_SECONDS
                worker.used = worker.cpu_seconds()
                if not worker.send(*current.jobs[job], limit, current.by_clock):  # died since its last reply
                    worker.job = None  # not this job's fault
                    current.waiting.append(job)
                    self._drop(worker)

    def _goes_on(self, current: _Round, worker: _Worker, reply: Mapping[str, Any] | None) -> bool:
        """Take a reply, none of a process that is late or gone; return whether the process goes on."""
        if reply is not None and "ready" in reply:
            worker.ready = True
            if current.began is not None:
                current.end, current.began = current.end + time.monotonic() - current.began, None
            return True
        if reply is not None and worker.job is not None:
            current.results[worker.job] = reply["status"]
            worker.job = None
            return True
        if worker.job is not None:
            return self._is_given_time(current, worker, worker.job)
        if not worker.ready:
            current.n_failed_starts += 1
            if current.n_failed_starts > 3:
                self.close()
                raise SurefootError(
                    "the processes that compare answers do not start: is math-verify installed"
                    f" for {sys.executable}, and memory free?"
                )
        return False

    @staticmethod
    def _is_given_time(current: _Round, worker: _Worker, job: int) -> bool:
        """Return whether a late process goes on, because others had the processor; else note how its job ended."""
        now = time.monotonic()
        late = now >= worker.deadline
        left = current.limit + _GRACE_SECONDS - (worker.cpu_seconds() - worker.used)
        if late and not current.by_clock and left > 0.1 and now < worker.latest:
            worker.deadline = min(now + left, worker.latest)
            return True
        if not late:
            current.results[job] = "error"
        elif left <= 0.1 + _GRACE_SECONDS:
            current.results[job] = "timeout"  # else it was not compared
        return False

    def _n_busy(self) -> int:
        return sum(w.job is not None for w in self._workers)

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)

    def _replies(self) -> list[tuple[_Worker, dict[str, Any] | None]]:
        """Wait for a reply or a deadline; none stands for a process that is late or gone."""
        active = [w for w in self._workers if w.job is not None or not w.ready]
        if not active:
            return []
        found: list[tuple[_Worker, dict[str, object] | None]] = []
        with selectors.DefaultSelector() as selector:
            for worker in active:
                assert worker.process.stdout is not None
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            patience = max(0.0, min(w.deadline for w in active) - time.monotonic())
            for key, _ in selector.select(patience):
                worker = key.data
                data = os.read(key.fd, 65536)
                worker.buffer += data
                if b"\n" in worker.buffer:
                    line, worker.buffer = worker.buffer.split(b"\n", 1)
                    found.append((worker, json.loads(line)))
                elif not data:
                    found.append((worker, None))
        replied = [w for w, _ in found]
        now = time.monotonic()
        return found + [(w, None) for w in active if w not in replied and now >= w.deadline]
