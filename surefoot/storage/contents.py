"""What a path that settings name holds: a hash of its content, so that other weights under the same name are seen.

What is hashed, in a few milliseconds for a model of many GB:

- of safetensors the whole header (names, types, shapes) and, of every tensor, its first, middle and last KiB;
- of zip files (checkpoints of torch) the checksums of their tensors, which their directory holds;
- of other files size, first and last 64 KiB and 64 pieces of 4 KiB between them: files up to 384 KiB whole;
- of a folder all of this for its files of models and tables and for up to 64 others, and the names and sizes of all;
- of a name on the hub the commit that its cache holds.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from surefoot.errors import DataError

__all__ = ("content_of", "contents_read", "differing_contents", "named_contents")

_PIECE, _EDGE, _N_PIECES, _TENSOR_PIECE = 4096, 65536, 64, 1024
#: Kinds of files of which a folder's hash samples every one.
_SAMPLED = (
    *(".arrow", ".bin", ".ckpt", ".csv", ".json", ".jsonl", ".model", ".npy", ".npz", ".parquet"),
    *(".pt", ".pth", ".safetensors", ".tsv", ".txt", ".yaml"),
)
_MAX_OTHERS = 64
#: Settings that name where something is written to, not what is read.
_WRITTEN = frozenset({"exchange", "out", "dirpath", "save_dir", "default_root_dir", "runs_root"})
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def content_of(path: Path, leave_out: Collection[Path] = ()) -> str:
    """Return a hash of a file's or folder's content; names and times outside of it do not matter.

    Args:
        path: An existing file or folder.
        leave_out: Resolved folders that are passed over.

    Raises:
        DataError: If a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for name, file in _chosen(path, leave_out):
                digest.update(f"{name}\0{file.stat().st_size}\0".encode())
                if name.endswith("\0"):
                    digest.update(_hash_file(file))
        else:
            digest.update(_hash_file(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()[:16]


def _chosen(folder: Path, leave_out: Collection[Path]) -> Iterator[tuple[str, Path]]:
    """Yield every file below a folder with its name in it, which ends in a null where its bytes count."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(f for f in folders if (here / f).resolve() not in leave_out)
        found += [here / n for n in names if not n.endswith((".lock", ".part"))]
    found = sorted(p for p in found if p.is_file())
    others = [p for p in found if p.suffix.lower() not in _SAMPLED]
    step = -(-len(others) // _MAX_OTHERS) or 1
    sampled = set(others[::step]) | {p for p in found if p.suffix.lower() in _SAMPLED}
    for path in found:
        name = path.relative_to(folder).as_posix()
        yield (f"{name}\0" if path in sampled else name), path


def _hash_file(path: Path) -> bytes:
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        if path.suffix == ".safetensors" and _hash_safetensors(file, size, digest):
            return digest.digest()
        if file.read(4) == b"PK\x03\x04" and _hash_zip(file, digest):
            return digest.digest()
        digest.update(str(size).encode())
        if size <= 2 * _EDGE + _N_PIECES * _PIECE:
            places = [(0, size)]
        else:
            span = size - 2 * _EDGE - _PIECE
            inner = [_EDGE + span * i // (_N_PIECES - 1) for i in range(_N_PIECES)]
            places = [(0, _EDGE), *((p, _PIECE) for p in inner), (size - _EDGE, _EDGE)]
        for place, n in places:
            digest.update(os.pread(file.fileno(), n, place))
    return digest.digest()


@runtime_checkable  # for checked signatures
class _Digest(Protocol):
    """A hash under way, of any kind of `hashlib`."""

    def update(self, data: bytes, /) -> None: ...


def _hash_safetensors(file: BinaryIO, size: int, digest: _Digest) -> bool:
    """Add a safetensors file's header and pieces of each tensor; return whether it is one."""
    length = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
    if not 0 < length <= size - 8:
        return False
    header = os.pread(file.fileno(), length, 8)
    try:
        spans = [v["data_offsets"] for k, v in json.loads(header).items() if k != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    digest.update(header)
    for begin, end in spans:
        middle = max(begin, (begin + end - _TENSOR_PIECE) // 2)
        for place in (begin, middle, max(begin, end - _TENSOR_PIECE)):
            n = min(_TENSOR_PIECE, end - place)
            digest.update(os.pread(file.fileno(), n, 8 + length + place))
    return True


def _hash_zip(file: BinaryIO, digest: _Digest) -> bool:
    """Add the checksums of a zip file's members; return whether it is one.

    Of torch's checkpoints the tensors alone count: what else they hold may be times.
    """
    try:
        members = zipfile.ZipFile(file).infolist()
    except zipfile.BadZipFile:
        return False
    tensors = [m for m in members if re.search(r"(^|/)data/\d+$", m.filename)]
    for member in tensors or members:
        name = member.filename.split("/", 1)[-1]  # torch puts the file's own name before it
        digest.update(f"{name}\0{member.file_size}\0{member.CRC}\0".encode())
    return True


def named_contents(settings: object, leave_out: Collection[Path] = (), key: str = "") -> dict[str, str]:
    """Return, by dotted key, the content of every file, folder and cached hub name that settings name.

    Args:
        settings: Mappings, lists and plain values; paths may be `Path`.
        leave_out: Folders that are passed over, such as that of the runs.
        key: Dotted key of the settings.
    """
    last = key.rsplit(".", 1)[-1]
    if last in _WRITTEN or last == "class_path":
        return {}
    if isinstance(settings, Mapping):
        if settings.get("download"):  # what is downloaded into it would change it
            settings = {k: v for k, v in settings.items() if "root" not in str(k)}
        items = [(f"{key}.{k}" if key else str(k), v) for k, v in settings.items()]
    elif isinstance(settings, list | tuple):
        items = [(f"{key}.{i}", v) for i, v in enumerate(settings)]
    else:
        content = _content_of_value(settings, leave_out)
        return {} if content is None else {key: content}
    return {k: c for name, value in items for k, c in named_contents(value, leave_out, name).items()}


def contents_read(settings: Mapping[str, Any], leave_out: Collection[Path] = ()) -> dict[str, str]:
    """Return, by dotted key, the contents that a verb reads: all but the trainer's, and its callbacks' data.

    Of a datamodule of private examples (one with a ``source`` of samples) only what is public counts: a hash of the
    others in a record would not be private.
    """
    named = {k: v for k, v in settings.items() if k != "trainer"}
    data = named.get("data")
    arguments = data.get("init_args") if isinstance(data, Mapping) else None
    if isinstance(arguments, Mapping) and "source" in arguments:
        public = {k: v for k, v in arguments.items() if k in ("encoder", "checkpoint")}
        named["data"] = {"init_args": public}
    found = named_contents(named, leave_out)
    callbacks = (settings.get("trainer") or {}).get("callbacks") or []
    for i, callback in enumerate(callbacks if isinstance(callbacks, list) else []):
        arguments = callback.get("init_args") if isinstance(callback, Mapping) else None
        key = f"trainer.callbacks.{i}.init_args.data"
        found |= named_contents((arguments or {}).get("data"), leave_out, key)
    return found


def _content_of_value(value: object, leave_out: Collection[Path]) -> str | None:
    if not isinstance(value, str | os.PathLike) or len(str(value)) > 4096:
        return None
    if not str(value).strip("/"):  # nothing, or an operator or a separator, which is the root of all files too
        return None
    path = Path(value).expanduser()
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a text, no path
        return None
    if exists:
        # A word such as "val" that happens to be a folder's name, too, is no path.
        is_path = not isinstance(value, str) or "/" in value or path.is_file()
        return content_of(path, leave_out) if is_path or (path / "config.json").is_file() else None
    return _cached_commit(str(value)) if _HUB_NAME.fullmatch(str(value)) else None


def _cached_commit(name: str) -> str | None:
    """Return the commit of a model on the hub that lies in its cache, none if none does."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a text, no name
        return None
    return f"commit {Path(found).parent.name}" if isinstance(found, str) else None


def differing_contents(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the keys whose content was known before, is known now, and is another; in order."""
    return sorted(k for k in before.keys() & now.keys() if before[k] != now[k])
