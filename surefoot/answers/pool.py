"""A pool of processes that compare answers and are killed when they take too long."""

import json
import os
import selectors
import subprocess
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from surefoot.errors import ConfigError, SurefootError

__all__ = ("STATUSES", "GraderPool", "Status")

Status = Literal["correct", "wrong", "unparsable", "timeout", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)

_STARTUP_SECONDS = 120.0
_CACHE_SIZE = 100_000


@dataclass
class _Worker:
    """One process and the comparison it is busy with."""

    process: "subprocess.Popen[bytes]"
    deadline: float  # monotonic seconds
    ready: bool = False
    job: int | None = None
    buffer: bytes = field(default=b"")

    def send(self, gold: str, answer: str) -> bool:
        """Send a comparison; tell whether the process was there to take it."""
        assert self.process.stdin is not None
        line = json.dumps({"gold": gold, "answer": answer}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a request that the dead process never read
                    continue


def _start() -> _Worker:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "surefoot.answers.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C reaches us, and we end them
    )
    return _Worker(process, time.monotonic() + _STARTUP_SECONDS)


def _kill_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.kill()
    workers.clear()


class GraderPool:
    """Compares answers with references in processes of its own.

    Processes start at the first comparison, or ahead of it by `warm_up`, live on between calls, and are replaced when killed.
    """

    def __init__(self, n_workers: int = 1, time_limit: float = 5.0) -> None:
        """Initialize the pool; no process is started yet.

        Args:
            n_workers: Number of processes.
            time_limit: Seconds after which a comparison is given up and its process killed.

        Raises:
            ConfigError: If either is not positive.
        """
        if n_workers < 1 or time_limit <= 0:
            raise ConfigError(
                f"n_workers and time_limit must be positive, got {n_workers} and {time_limit}."
            )
        self.n_workers, self.time_limit = n_workers, time_limit
        self._workers: list[_Worker] = []
        self._known: OrderedDict[tuple[str, str], Status] = OrderedDict()
        self._finalizer = weakref.finalize(self, _kill_all, self._workers)

    def warm_up(self) -> None:
        """Start the processes without waiting for them: they import math-verify while something else is done."""
        while len(self._workers) < self.n_workers:
            self._workers.append(_start())

    def close(self) -> None:
        """End all processes; the next comparison starts new ones."""
        _kill_all(self._workers)

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Status]:
        """Compare answers with references.

        Args:
            pairs: ``(reference, answer)``, each.

        Returns:
            The statuses, in order. A pair that was compared before is not compared again.

        Raises:
            SurefootError: If the processes cannot be started.
        """
        jobs = [p for p in dict.fromkeys(pairs) if p not in self._known]
        statuses = dict(zip(jobs, self._run(jobs), strict=True))
        self._known.update((p, s) for p, s in statuses.items() if s not in ("timeout", "error"))
        results = [statuses[p] if p in statuses else self._known[p] for p in pairs]
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return results

    def _run(self, jobs: Sequence[tuple[str, str]]) -> list[Status]:
        results: list[Status] = ["error"] * len(jobs)
        waiting = list(range(len(jobs)))[::-1]
        n_done = 0
        n_failed_starts = 0
        while n_done < len(jobs):
            while len(self._workers) < min(self.n_workers, len(waiting) + self._n_busy()):
                self._workers.append(_start())
            for worker in list(self._workers):
                if worker.ready and worker.job is None and waiting:
                    job = waiting.pop()
                    worker.job, worker.deadline = job, time.monotonic() + self.time_limit
                    if not worker.send(
                        *jobs[job]
                    ):  # died since its last reply: not this job's fault
                        worker.job = None
                        waiting.append(job)
                        self._drop(worker)
            for worker, reply in self._replies():
                if reply is not None and "ready" in reply:
                    worker.ready = True
                    continue
                if reply is not None and worker.job is not None:
                    results[worker.job] = reply["status"]
                    worker.job = None
                    n_done += 1
                    continue
                if worker.job is not None:
                    late = time.monotonic() >= worker.deadline
                    results[worker.job] = "timeout" if late else "error"
                    n_done += 1
                elif not worker.ready:
                    n_failed_starts += 1
                    if n_failed_starts > 3:
                        self.close()
                        raise SurefootError(
                            "the processes that compare answers do not start: is math-verify installed"
                            f" for {sys.executable}, and memory free?"
                        )
                self._drop(worker)
        return results

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
        found: list[tuple[_Worker, dict[str, Any] | None]] = []
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
