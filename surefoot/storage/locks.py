"""One process at a time in a folder: a lock of the operating system, which ends with its process."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from surefoot.errors import SurefootError

__all__ = ("LOCK_FILE", "hold", "is_held_by_this_launch", "one_at_a_time")

#: In the folder that is held; names its holder.
LOCK_FILE = "running.json"
#: Seconds between two signs of life of a holder, which are the file's times of change.
HEARTBEAT = 30.0
#: Seconds without one after which another host's holder counts as dead.
DEAD_AFTER = 120.0
#: Seconds by which the ranks of one launch may begin at different times, or hosts' clocks differ.
APART = 60.0
#: Variables that torchrun and SLURM set alike for all ranks of a launch.
_LAUNCH = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")
_BEGAN = time.time()
#: Errors of filesystems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: set[int] = set()  # descriptors, which a forked child must not keep open


def _let_go() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def hold(folder: Path, otherwise: str = "") -> Iterator[None]:
    """Keep two living processes from writing to one folder; `LOCK_FILE` in it says who holds it.

    What counts is the lock on the file, which the operating system takes away from a dead process: a file that was left
    behind holds nothing, whatever process number it names. Where a filesystem keeps locks to each host (some network
    filesystems do), a file that names another host holds the folder for `DEAD_AFTER` seconds after its last sign of
    life; where it has no locks at all, so does a file that names a living process of this host.

    Args:
        folder: Folder that exists.
        otherwise: What a user may do instead of waiting, as an end of the message.

    Raises:
        SurefootError: If another process holds it.
    """
    path = folder / LOCK_FILE
    descriptor = _lock(path, otherwise)
    stop = threading.Event()
    alive = threading.Thread(target=_live, args=(descriptor, stop), daemon=True)
    _held.add(descriptor)
    try:
        holder = {
            "pid": os.getpid(),
            "host": platform.node(),
            "process_start": _process_start(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "time": time.time(),
            "launch": _launch(),
        }
        alive.start()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)
        yield
    finally:
        stop.set()
        alive.join()
        with contextlib.suppress(OSError):  # the folder may have been removed
            if _is_at(descriptor, path):
                path.unlink()
        _held.discard(descriptor)
        os.close(descriptor)


def is_held_by_this_launch(folder: Path) -> bool:
    """Return whether a process that was launched together with this one, by torchrun or SLURM, holds a folder.

    A file that an earlier launch has left behind, or that another living launch holds, is none of ours.

    Args:
        folder: Folder that rank zero may hold.
    """
    holder = _holder(folder / LOCK_FILE)
    if holder.get("launch") != _launch() or float(str(holder.get("time", 0))) < _BEGAN - APART:
        return False
    if holder.get("host") != platform.node():
        return True
    start = _process_start(holder.get("pid", 0))
    return start == holder.get("process_start")


def _launch() -> dict[str, str]:
    return {name: os.environ[name] for name in _LAUNCH if name in os.environ}


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let processes enter one after another; on a filesystem without locks they all enter.

    Args:
        folder: Folder that exists; the lock is a hidden file in it, which stays.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _lock(path: Path, otherwise: str) -> int:
    """Open and lock the file; return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            age = _age(path)
            locks = _try_lock(descriptor, path, otherwise)
            removed = not _is_at(descriptor, path)  # by its last holder, in the meantime
            holder = _holder(path)
            if not removed and _may_live(holder, age, locks):
                raise _refusal(path, holder, otherwise, age)
        except BaseException:
            os.close(descriptor)
            raise
        if not removed:
            return descriptor
        os.close(descriptor)


def _try_lock(descriptor: int, path: Path, otherwise: str) -> bool:
    """Lock the file; return whether its filesystem has locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(path, _holder(path), otherwise) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _may_live(holder: dict[str, object], age: float, locks: bool) -> bool:
    """Return whether a holder that the lock does not rule out may still be writing."""
    if holder.get("host") in (None, platform.node()):
        start = _process_start(holder.get("pid", 0))
        return not locks and start is not None and start == holder.get("process_start")
    return age < DEAD_AFTER


def _refusal(path: Path, holder: dict[str, object], otherwise: str, age: float | None = None) -> SurefootError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    since = f", since {holder['since']}" if "since" in holder else ""
    seen = (
        ""
        if age is None
        else f"; its last sign of life is {max(0.0, age):.0f} s old, and {DEAD_AFTER:.0f} s without one count as its"
        " end"
    )
    return SurefootError(f"{path.parent} is being written by {who}{since}{seen}: wait for it{otherwise}.")


def _holder(path: Path) -> dict[str, object]:
    """Return what a lock file says; nothing where it is empty or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _age(path: Path) -> float:
    """Return the seconds since the file's last change, by the clock of its filesystem."""
    probe = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino)


def _process_start(pid: object) -> str | None:
    """Return when a living process of this host began, in a form that no other one shares; none if there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{int(str(pid))}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, ValueError, IndexError):
        return None
    return f"{boot}:{fields[19]}"


def _live(descriptor: int, stop: threading.Event) -> None:
    """Change the file's time until it is stopped."""
    while not stop.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
