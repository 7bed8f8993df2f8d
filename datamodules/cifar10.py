"""CIFAR-10 from the hub's parquet files or from the binary version of its authors."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.classification import ClassificationDataModule
from datamodules.images import UNREADABLE, to_rgb
from datamodules.splits import Split, TensorExamples, whole_numbers
from surefoot.errors import ConfigError, DataError

__all__ = ("CIFAR10DataModule",)

#: Names of the classes, in the order of their labels.
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pixels
_RECORD = 1 + 3 * 32 * 32  # bytes of the binary version: label and pixels


class CIFAR10DataModule(ClassificationDataModule):
    """CIFAR-10, standardised ``(batch, 3, 32, 32)``; val is the last tenth of the training images, groups are classes.

    Source: Krizhevsky, 2009.
    """

    def __init__(
        self,
        root: Path | None = None,
        classes: Sequence[int] | None = None,
        n_train: int | None = None,
        n_eval: int | None = None,
        **loading: Any,
    ) -> None:
        """Initialize CIFAR-10.

        Args:
            root: Folder of ``train.parquet`` and ``test.parquet`` (columns ``img``, ``label``), or of
                ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``; by default ``cifar10`` in the
                folder that ``SUREFOOT_DATA`` names.
            classes: Classes to keep, renumbered in this order; all ten by default.
            n_train: Training images to keep, drawn with the seed; all by default.
            n_eval: Images to keep of val and test each; all by default.
            loading: Arguments of `ClassificationDataModule`.

        Raises:
            ConfigError: If fewer than two classes are kept, or one outside 0 to 9.
        """
        super().__init__(**loading)
        self.classes = tuple(range(10)) if classes is None else tuple(classes)
        if len(set(self.classes)) < 2 or not set(self.classes) <= set(range(10)):
            raise ConfigError(f"classes must hold at least two of 0 to 9, got {list(self.classes)}.")
        self.root = root
        self.sizes = {"train": n_train, "val": n_eval, "test": n_eval}
        self.n_classes = len(self.classes)
        self.group_names = self.eval_group_names = [f"y={CLASSES[c]}" for c in self.classes]

    def build(self) -> dict[str, Split]:
        """Read the files and keep the chosen classes and sizes."""
        root = Path(self.root or Path(os.environ.get("SUREFOOT_DATA", "data")) / "cifar10")
        stored, test = _read(root, "train"), _read(root, "test")
        n_train = len(stored.labels) - len(stored.labels) // 10
        order = torch.arange(len(stored.labels))
        return {
            "train": self._keep("train", stored, order[:n_train]),
            "val": self._keep("val", stored, order[n_train:]),
            "test": self._keep("test", test, torch.arange(len(test.labels))),
        }

    def _keep(self, name: str, stored: "_Stored", positions: Tensor) -> Split:
        renumbered = torch.full((256,), -1)
        renumbered[list(self.classes)] = torch.arange(self.n_classes)
        target = renumbered[stored.labels[positions]]
        kept = (target >= 0).nonzero()[:, 0]
        if self.sizes[name] is not None:
            generator = torch.Generator().manual_seed(self.seed)
            kept = kept[torch.randperm(len(kept), generator=generator)[: self.sizes[name]]]
        target = target[kept]
        examples = TensorExamples(input=stored.images(positions[kept]), target=target, group=target)
        return Split(examples, target, target, target)

    def scale(self, images: Tensor) -> Tensor:
        """Return standardised images; pixels arrive in [0, 255]."""
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (_MEAN, _STD))
        return (images.float() / 255 - mean) / std


class _Stored(NamedTuple):
    """A file's labels, and its images for those positions that are asked for."""

    labels: Tensor
    images: Callable[[Tensor], Tensor]  # positions (n,) -> uint8 (n, 3, 32, 32)


def _read(root: Path, split: str) -> _Stored:
    parquet = root / f"{split}.parquet"
    if parquet.is_file():
        return _read_parquet(parquet)
    stems = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    files = [root / f"{stem}.bin" for stem in stems]
    missing = next((f for f in files if not f.is_file()), None)
    if missing is not None:
        raise DataError(
            f"{parquet} and {missing} are missing. Expected layout: train.parquet and test.parquet (columns img with"
            " bytes, label), or the binary version's data_batch_1.bin to data_batch_5.bin and test_batch.bin, in"
            " data.init_args.root or in cifar10 under the folder that SUREFOOT_DATA names."
        )
    content = b"".join(f.read_bytes() for f in files)
    if len(content) % _RECORD or not content:
        raise DataError(
            f"the .bin files in {root} hold {len(content)} bytes, not a multiple of {_RECORD}: fetch them again."
        )
    records = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, _RECORD).copy())
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    return _Stored(_checked(records[:, 0].long(), root), lambda positions: pixels[positions])


def _read_parquet(path: Path) -> _Stored:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=["img", "label"])
        stored = table["img"].combine_chunks().field("bytes")
        labels = whole_numbers(table["label"].to_pylist(), "label")
    except (OSError, pyarrow.ArrowException, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error

    def images(positions: Tensor) -> Tensor:
        try:
            decoded = [np.asarray(to_rgb(Image.open(io.BytesIO(stored[i].as_py())))) for i in positions.tolist()]
            pixels = np.stack(decoded) if decoded else np.zeros((0, 32, 32, 3), np.uint8)
        except (*UNREADABLE, TypeError) as error:
            raise _unreadable(path, error) from error
        if pixels.shape[1:] != (32, 32, 3):
            raise DataError(f"{path} holds images of shape {pixels.shape[1:]}, not (32, 32, 3).")
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    return _Stored(_checked(labels, path), images)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read as CIFAR-10 in parquet (columns img with bytes, label):"
        f" {str(error).splitlines()[0]}. Fetch it again."
    )


def _checked(labels: Tensor, path: Path) -> Tensor:
    if len(labels) == 0 or int(labels.min()) < 0 or int(labels.max()) > 9:
        raise DataError(f"{path} must hold labels 0 to 9, got {labels.unique().tolist()[:20]}.")
    return labels
