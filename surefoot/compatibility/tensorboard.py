"""Let tensorboard's writing thread end without a traceback; its error is raised again where the run writes next."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("quiet_writer",)

_MODULE = "tensorboard.summary.writer.event_file_writer"


@contextmanager
def quiet_writer() -> Iterator[None]:
    """Say in one line why the thread has failed, such as on a full disk; other threads are left alone."""
    before = threading.excepthook

    def in_one_line(failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__module__ == _MODULE and isinstance(failure.exc_value, OSError):
            print(f"surefoot: note: tensorboard's file cannot be written: {failure.exc_value}", file=sys.stderr)
        else:
            before(failure)

    threading.excepthook = in_one_line
    try:
        yield
    finally:
        threading.excepthook = before
