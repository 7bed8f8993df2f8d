"""Processes and folders that end with the process that made them, however it ends, SIGKILL included.

A guardian, a small process of its own, watches this one through the kernel. When this one is gone, the guardian kills
every process that carries the mark of a `ProcessTree` in its environment (what was started, its children and their
children, in whatever group or session), and removes every `OwnedFolder`. Should the guardian be killed too,
`remove_abandoned` removes the folders later: their owner holds a lock on each as long as it lives, and the kernel lets
go of a dead process's locks.
"""

import atexit
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = (
    "MARK",
    "OwnedFolder",
    "ProcessTree",
    "die_with_parent",
    "end_process",
    "marked_processes",
    "n_cores",
    "remove_abandoned",
    "run_to_the_end",
)

#: Environment variable that marks a tree's processes.
MARK = "SUREFOOT_PROCESS_TREE"
_PR_SET_PDEATHSIG = 1


def n_cores() -> int:
    """Return the number of cores that this process may use, its share where several ranks are on one machine."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; to be called in the child. Linux only.

    It follows the parent's thread that started this process, and is not passed on to this process's own children.
    """
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended between the two calls
        os.kill(os.getpid(), signal.SIGKILL)


class ProcessTree:
    """Processes that are started together, and all their descendants."""

    def __init__(self) -> None:
        """Make an empty tree."""
        self.mark = ""
        self._owner: int | None = None  # a copy in another process is another tree

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return an environment for a process of this tree.

        Args:
            base: Variables to add to; this process's own by default.
        """
        if self._owner != os.getpid():
            self._owner, self.mark = os.getpid(), secrets.token_hex(16)
            _tell("mark", self.mark)
        # setproctitle (vLLM's and Ray's processes use it) would write its title over the mark.
        return {**(os.environ if base is None else base), MARK: self.mark, "SPT_NOENV": "1"}

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Let all processes that this one starts meanwhile belong to the tree."""
        names = (MARK, "SPT_NOENV")
        before = {n: os.environ.get(n) for n in names}
        os.environ.update({n: v for n, v in self.environment({}).items() if n in names})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def kill(self) -> None:
        """Kill what is left of the tree."""
        if self._owner == os.getpid():
            _kill_marked([self.mark])


class OwnedFolder:
    """A folder for data in memory or on a disk, removed when it is closed or when this process ends."""

    def __init__(self, prefix: str, parent: str | Path | None = None) -> None:
        """Make the folder, after removing those of the same kind that dead processes have left.

        Args:
            prefix: Start of its name, and of its kind's.
            parent: Folder to make it in; the system's folder of temporary files by default.
        """
        root = Path(parent or tempfile.gettempdir())
        remove_abandoned(root, prefix)
        while True:
            name = root / f"{prefix}{secrets.token_hex(6)}"
            self._lock = _locked(name.with_suffix(".lock"))
            if self._lock is not None:
                break
        self.path = name
        _tell("folder", str(self.path))
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_abandoned(root: Path, prefix: str) -> None:
    """Remove the folders of dead processes; those of living ones, of other users and without a lock stay.

    Args:
        root: Where they are.
        prefix: Start of their names.
    """
    for path in root.glob(f"{prefix}*.lock"):
        lock = _locked(path, create=False)
        if lock is not None:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            os.close(lock)


def _locked(path: Path, create: bool = True) -> int | None:
    """Return a descriptor of a file that this process holds locked; None if it cannot be locked."""
    try:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        if create:
            raise
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor
    except OSError as error:
        if create and not isinstance(error, BlockingIOError | FileNotFoundError):
            return descriptor  # a file system without locks: nobody can take this one for abandoned
    os.close(descriptor)
    return None


def run_to_the_end(command: Sequence[str], environment: Mapping[str, str], patience: float = 60.0) -> int:
    """Run a command in a session of its own and return its exit code; it never outlives this process.

    Args:
        command: Program and arguments.
        environment: Its environment.
        patience: Seconds that it has to end after SIGTERM, if this process is interrupted.
    """
    tree = ProcessTree()
    process = subprocess.Popen(command, env=tree.environment(environment), start_new_session=True)
    try:
        return process.wait()
    finally:
        end_process(process, tree, patience)


def end_process(process: "subprocess.Popen[bytes]", tree: ProcessTree, patience: float) -> None:
    """End a process that leads a session of its own, and all of its tree.

    Args:
        process: Its first process; asked to end before it is killed.
        tree: The tree that it belongs to.
        patience: Seconds that it has to end by itself.
    """
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        tree.kill()
        process.wait()


# The guardian's side of the pipe and ours

_guardian: tuple[int, "subprocess.Popen[bytes]", int] | None = None  # owner, process, pipe


def _tell(kind: str, value: str) -> None:
    """Name to this process's guardian, started if there is none, what is to end with this process."""
    global _guardian
    if _guardian is None or _guardian[0] != os.getpid():  # none yet, or that of the process that forked
        reader, writer = os.pipe()
        environment = {k: v for k, v in os.environ.items() if k != MARK}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid())],
            stdin=reader,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        os.close(reader)
        _guardian = (os.getpid(), process, writer)
        atexit.register(_dismiss, *_guardian)
    with suppress(BrokenPipeError):  # it was killed: locks and groups are left
        os.write(_guardian[2], (json.dumps([kind, value]) + "\n").encode())


def _dismiss(owner: int, process: "subprocess.Popen[bytes]", writer: int) -> None:
    """Wait at the end of this process until its guardian has cleaned up."""
    if owner == os.getpid():
        os.close(writer)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _guard(owner: int) -> None:
    """Read what is to end with the owner, wait for its end, and end it all."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    watched = [0]
    if hasattr(os, "pidfd_open"):
        # A forked child of the owner may hold the pipe open; the kernel reports the end of the owner itself.
        with suppress(OSError):
            watched.append(os.pidfd_open(owner))
    alive, told = os.getppid() == owner, b""
    while alive:
        ready, _, _ = select.select(watched, [], [])
        received = os.read(0, 65536) if 0 in ready else b""
        told += received
        alive = not ((0 in ready and not received) or set(ready) - {0})
    os.set_blocking(0, False)
    with suppress(BlockingIOError):
        while received := os.read(0, 65536):
            told += received
    entries = [json.loads(line) for line in told.split(b"\n")[:-1]]
    _kill_marked([value for kind, value in entries if kind == "mark"])
    for folder in (Path(value) for kind, value in entries if kind == "folder"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)


def _kill_marked(marks: Sequence[str]) -> None:
    """Kill all processes that carry one of these marks, and those that they start meanwhile."""
    deadline = time.monotonic() + 10
    while marks and time.monotonic() < deadline:
        found = marked_processes(marks)
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked_processes(marks: Sequence[str]) -> list[int]:
    """Return the processes but this one that carry one of these marks, `ProcessTree.mark`."""
    wanted = {f"{MARK}={m}".encode() for m in marks}
    return [pid for pid in _processes() if wanted & _environment_of(pid)]


def _processes() -> list[int]:
    """Return all processes but this one; none where the system has no /proc."""
    root = Path("/proc")
    names = os.listdir(root) if root.is_dir() else []
    return [int(n) for n in names if n.isdecimal() and int(n) != os.getpid()]


def _environment_of(pid: int) -> set[bytes]:
    """Return a process's variables as they were when it started; nothing of one that is gone or another user's."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


if __name__ == "__main__":
    _guard(int(sys.argv[1]))
