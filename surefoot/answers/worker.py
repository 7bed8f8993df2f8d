"""A process that compares answers with math-verify; started, fed and killed by `surefoot.answers.pool`.

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

__all__ = ("compare", "main")

_MEMORY_BYTES = 2 * 2**30


def compare(gold: str, answer: str) -> str:
    """Return ``correct``, ``wrong`` or ``unparsable``.

    An answer is correct if math-verify says so of both in a box, or if both are the same text.

    Args:
        gold: Reference answer, LaTeX or plain.
        answer: Extracted answer.
    """
    from math_verify import parse, verify

    if gold.strip() == answer.strip():
        return "correct"
    parsed = parse(rf"\boxed{{{answer}}}", parsing_timeout=None)
    if not parsed:
        return "unparsable"
    reference = parse(rf"\boxed{{{gold}}}", parsing_timeout=None)
    return "correct" if verify(reference, parsed, timeout_seconds=None) else "wrong"


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
    from math_verify import parse

    logging.disable(logging.CRITICAL)  # it warns, for every call, that it sets no time limit
    parse(r"\boxed{1}", parsing_timeout=None)  # imports what it needs, before memory is limited
    _confine()
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            status = compare(request["gold"], request["answer"])
        except RecursionError:
            status = "unparsable"
        except MemoryError:
            os._exit(1)  # whatever is left of the process cannot be relied on
        except Exception:  # noqa: BLE001 -- whatever sympy raises becomes a status that is counted
            status = "error"
        print(json.dumps({"status": status}), file=replies, flush=True)


if __name__ == "__main__":
    main()
