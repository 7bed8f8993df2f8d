"""Building the model of a checkpoint again from what the checkpoint holds, without a network and without another file.

A checkpoint holds all weights, and beside them the files that describe pretrained models: configuration, tokenizer,
chat template. While the model of a checkpoint is built, whatever would load pretrained weights is made with random
ones, which the checkpoint's replace.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from surefoot.errors import SurefootError

__all__ = (
    "Described",
    "Description",
    "check_weights",
    "describe",
    "described_folder",
    "descriptions",
    "weights_follow",
    "weights_will_follow",
)

#: By file name a text, or the bytes of a file that is none.
Description = Mapping[str, str | Tensor]

_stored: ContextVar[Mapping[str, Description] | None] = ContextVar("descriptions", default=None)
_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


@runtime_checkable
class Described(Protocol):
    """Something that is built from a model folder or a hub name, and can be built from a few of its files."""

    @property
    def source(self) -> str | None:
        """What it is built from, equal for two of which one description does; none if from its settings alone."""

    def save_description(self, folder: Path) -> None:
        """Write the files that it is built from again, weights apart."""


def describe(parts: Iterable[object]) -> dict[str, Description]:
    """Return the descriptions of those parts that have one, by their source; plain types and tensors only."""
    found: dict[str, Description] = {}
    for part in parts:
        if isinstance(part, Described) and part.source is not None and part.source not in found:
            with tempfile.TemporaryDirectory() as name:
                part.save_description(Path(name))
                found[part.source] = _read(Path(name))
    return found


def _read(folder: Path) -> Description:
    files: dict[str, str | Tensor] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        try:
            value: str | Tensor = content.decode()
        except UnicodeDecodeError:
            value = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        files[path.relative_to(folder).as_posix()] = value
    return files


@contextlib.contextmanager
def descriptions(stored: Mapping[str, Description]) -> Iterator[None]:
    """Let what is built in here take its description from a checkpoint's."""
    token = _stored.set(stored)
    try:
        yield
    finally:
        _stored.reset(token)


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """Let what is built in here start with random weights where it would load some: a checkpoint brings them."""
    token = _follow.set(True)
    try:
        yield
    finally:
        _follow.reset(token)


def weights_will_follow() -> bool:
    """Return whether a checkpoint brings the weights of what is being built."""
    return _follow.get()


@contextlib.contextmanager
def described_folder(source: str | None) -> Iterator[str | None]:
    """Yield a temporary folder with the files that a checkpoint holds of a source, none if it holds none.

    Raises:
        SurefootError: If a file's name leads out of the folder.
    """
    files = None if source is None else (_stored.get() or {}).get(source)
    if files is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file, content in files.items():
            path = (folder / file).resolve()
            if not path.is_relative_to(folder):
                raise SurefootError(
                    f"the checkpoint's description of {source} names the file {file!r}, which lies outside of it."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else bytes(content.tolist()))
        yield str(folder)


def check_weights(module: torch.nn.Module, names: Iterable[str], checkpoint: Path | str) -> None:
    """Raise if a checkpoint lacks tensors of a module, which would keep random weights.

    Args:
        module: The module as it was built.
        names: Of the checkpoint's tensors.
        checkpoint: For the message.

    Raises:
        SurefootError: If one is missing.
    """
    missing = sorted(set(module.state_dict()) - set(names))
    if missing:
        parts = sorted({".".join(name.split(".")[:2]) for name in missing})
        raise SurefootError(
            f"checkpoint {checkpoint} holds no weights of {', '.join(parts)} ({len(missing)} tensors, such as"
            f" {missing[0]}): it does not fit these settings of the model; give those that it was trained with."
        )
