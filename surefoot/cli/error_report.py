"""Which errors end in one line: all but those raised by Surefoot's own code, or the user's, without meaning to."""

import linecache
import sys
import sysconfig
import traceback
from collections.abc import Iterator

from surefoot.errors import SurefootError

__all__ = ("error_line",)

_OWN_PACKAGES = ("surefoot", "lightning_modules", "datamodules", "callbacks")
_LIBRARIES = tuple({sysconfig.get_path(p) for p in ("stdlib", "purelib", "platlib")})


def error_line(error: BaseException) -> str | None:
    """Return the line for an error that the user can mend; none for a defect of the code, which deserves its traceback.

    A defect is what Surefoot's code or a module of the user's own raised without meaning to. Errors of the system and
    of libraries that were handed the user's settings are the user's to mend, whatever their type: they name the library
    and its message.

    Args:
        error: What ended the program.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, SurefootError):
            return _original(str(cause))
    if isinstance(error, OSError) and error.strerror:
        named = [str(f) for f in (error.filename, error.filename2) if f is not None]
        return f"{error.strerror}: {' -> '.join(named)}" if named else error.strerror
    if isinstance(error, ModuleNotFoundError) and error.name and not _is_own(error.name):
        return f"the package {error.name.split('.')[0]} is not installed, and these settings need it."
    name, line = _raised_at(error)
    message = _original(str(error)) or "no message"
    if type(error).__name__ == "MisconfigurationException":
        return message
    if name.startswith("jsonargparse"):
        from surefoot.cli.settings import plain_message

        return plain_message(message)
    if _is_library(name):
        return f"{message} ({type(error).__name__} in {name.split('.')[0]}; --debug shows where)"
    said_on_purpose = isinstance(error, (ValueError, TypeError)) and line.startswith("raise ")
    return f"{message} (--debug shows where)" if said_on_purpose else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from, each once: what raises again in a handler can make a circle."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_own(module: str) -> bool:
    """Return whether a module that was not found would be one of Surefoot's."""
    return module.split(".")[0] in _OWN_PACKAGES


def _raised_at(error: BaseException) -> tuple[str, str]:
    """Return the module that raised an error and the line of its source; code without a file counts as its caller's."""
    name, line = "", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith("<"):
            name = str(frame.f_globals.get("__name__", ""))
            line = linecache.getline(file, number).strip()
    return name, line


def _is_library(module: str) -> bool:
    """Return whether a module belongs neither to Surefoot nor to the user."""
    top = module.split(".")[0]
    if _is_own(module) or top == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return top in sys.stdlib_module_names or file.startswith(_LIBRARIES)


def _original(message: str) -> str:
    """Return the message that a loading process raised, without the traceback that torch puts before it."""
    if "Original Traceback" not in message:
        return message
    return message.strip().splitlines()[-1].split(": ", 1)[-1]
