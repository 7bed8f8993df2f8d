"""A process that compares answers with math-verify; started, fed and killed by `surefoot.reasoning.answers.pool`.

One line of JSON in, one out. Memory is limited, files cannot be written, and the process dies with its parent.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from surefoot.reasoning.answers.equality import answers_equal, is_unreadable

__all__ = ("compare", "main")

_MEMORY_BYTES = 2 * 2**30


def compare(gold: str, answer: str) -> str:
    """Return ``correct``, ``wrong`` or ``unparsable``.

    Args:
        gold: Reference answer, LaTeX or plain.
        answer: Extracted answer.
    """
    if answers_equal(gold, answer):
        return "correct"
    return "unparsable" if is_unreadable(answer) else "wrong"


class _OutOfTime(BaseException):
    """The time limit of a comparison has passed; no handler of exceptions takes it for its own."""


def _give_up(signum: int, frame: object) -> None:
    raise _OutOfTime


def _limited(gold: str, answer: str, limit: float, by_clock: bool) -> str:
    """Return a comparison's status, ``timeout`` after so many seconds of processor time, whatever else runs.

    ``by_clock`` counts the clock's seconds instead. What does not stop is killed by the pool.
    """
    timer = signal.ITIMER_REAL if by_clock else signal.ITIMER_PROF
    try:
        signal.setitimer(timer, limit)
        try:
            return compare(gold, answer)
        except RecursionError:
            return "unparsable"
        except MemoryError:
            os._exit(1)  # whatever is left of the process cannot be relied on
        except Exception:  # noqa: BLE001 -- whatever sympy raises becomes a status that is counted
            return "error"
        finally:
            signal.setitimer(timer, 0)
    except _OutOfTime:
        return "timeout"


def _confine() -> None:
    """Limit what a hostile expression can do to this process and the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # no forks (has no effect for root)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    sys.setrecursionlimit(2000)


def main() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what sympy prints is not a reply
    logging.disable(logging.CRITICAL)
    compare("\\pi", "3")  # imports what it needs, before memory is limited
    _confine()
    signal.signal(signal.SIGPROF, _give_up)
    signal.signal(signal.SIGALRM, _give_up)
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        status = _limited(**request)
        print(json.dumps({"status": status}), file=replies, flush=True)


if __name__ == "__main__":
    main()
