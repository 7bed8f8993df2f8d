"""Signals that end a run: one exit code and one line for every verb, and a checkpoint first where one trains."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ("Interrupted", "interruptible", "pending_signal", "postpone", "take_signals")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds that training has to reach the end of its step before it is stopped in the middle of it.
PATIENCE_SECONDS = 20.0
#: Seconds within which signals are one: a terminal, a scheduler and a parent may each send theirs.
_ONE_SIGNAL_SECONDS = 1.0


class Interrupted(SystemExit):
    """The process was asked to end; its exit code is 128 and the signal's number, as a shell would report."""

    def __init__(self, signum: int) -> None:
        """Initialize the exception.

        Args:
            signum: Number of the signal.
        """
        super().__init__(128 + signum)
        self.signum = signum


class _State:
    """What the handlers know; there is one process, so there is one state."""

    signum: int | None = None
    received_at = 0.0  # monotonic seconds
    postponed = False
    reminder: threading.Timer | None = None


_state = _State()


def _receive(signum: int, frame: FrameType | None) -> None:
    """Interrupt what runs, at once or, while that is postponed, at the end of its step."""
    now = time.monotonic()
    first = _state.signum is None
    if not first and now - _state.received_at < _ONE_SIGNAL_SECONDS:
        return
    if first:
        _state.signum, _state.received_at = signum, now
        if _state.postponed:
            os.write(2, b"\nsurefoot: stopping after this step; once more to stop at once\n")
            _remind(signum)
            return
    raise Interrupted(signum)


def _remind(signum: int) -> None:
    """Send the signal again when patience is over."""
    _state.reminder = threading.Timer(PATIENCE_SECONDS, os.kill, (os.getpid(), signum))
    _state.reminder.daemon = True
    _state.reminder.start()


def postpone(postponed: bool) -> None:
    """Let the next signal wait until `pending_signal` is asked for, `PATIENCE_SECONDS` at most, or no longer."""
    _state.postponed = postponed


def pending_signal() -> int | None:
    """Return the signal that waits, if one does."""
    return _state.signum


def take_signals(*signums: int) -> None:
    """Put our handlers back where another library has put its own.

    Args:
        signums: Those of `interruptible`'s signals that are not to be ignored.
    """
    for signum in signums:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _receive)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted`; ignored ones (nohup) stay ignored.

    Raises:
        Interrupted: At the end, too, if a signal came when there was nothing left to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.signum, _state.postponed = None, False
    before = {s: signal.getsignal(s) for s in _SIGNALS}
    take_signals(*_SIGNALS)
    try:
        yield
        if _state.signum is not None:
            raise Interrupted(_state.signum)
    finally:
        _state.postponed = False
        if _state.reminder is not None:
            _state.reminder.cancel()
            _state.reminder = None
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
