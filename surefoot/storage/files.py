"""Files that are whole or not there: written beside their path, flushed to the disk, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ("move", "partial_path", "remove_partials", "replacing", "sync", "sync_entry", "write_text")

_PARTIAL = ".part"


def partial_path(path: Path) -> Path:
    """Return where the new contents of a file or folder are written: beside it, on the same filesystem."""
    return path.with_name(f".{path.name}{_PARTIAL}")


def remove_partials(folder: Path) -> None:
    """Remove what processes that died while writing have left in a folder.

    Args:
        folder: Folder that no other process writes to; it need not exist.
    """
    for path in folder.glob(f".*{_PARTIAL}"):
        _remove(path)


@contextlib.contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Yield where to write a file or folder that replaces ``path`` when it is whole.

    Args:
        path: The file or folder to write; its folder exists.
        keep: Where what was at ``path`` is kept, beside it; what is there is removed first, so that no more space is
            needed than for the old and the new one.

    Raises:
        OSError: If it cannot be written, with the path in ``filename``; what was at ``path`` is still there.
    """
    partial = partial_path(path)
    _remove(partial)
    if keep is not None and path.exists():
        _remove(keep)
    try:
        yield partial
        if partial.is_file():
            with contextlib.suppress(OSError):  # of a filesystem without permissions
                partial.chmod(_mode())  # safetensors makes files that nobody else can read
        sync(partial)
        if keep is not None and path.exists():
            _keep(path, keep)
        move(partial, path)
    except OSError as error:
        _remove(partial)
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
    except BaseException:
        _remove(partial)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; a reader sees the old or the new one, never half of it."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def move(source: Path, path: Path) -> None:
    """Rename over a file or a folder and wait until it is on the disk; one of the two names is always there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif source.is_dir():
        path.unlink(missing_ok=True)
    source.replace(path)
    sync_entry(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or everything in a folder, is on the disk."""
    for inside in [*path.rglob("*")] if path.is_dir() else []:
        sync_entry(inside)
    sync_entry(path)


def _keep(path: Path, keep: Path) -> None:
    """Give what is at ``path`` another name, without taking its own away where the filesystem can do that."""
    try:
        if path.is_dir():
            path.rename(keep)
        else:
            os.link(path, keep)
    except OSError:
        path.rename(keep)


def _mode() -> int:
    """Return the permissions of a new file of this process."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def sync_entry(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
