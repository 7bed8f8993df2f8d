"""Fashion-MNIST from its IDX files, with painted confounders."""

import gzip
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.confounded_images import ConfoundedImagesDataModule
from surefoot.errors import ConfigError, DataError

__all__ = ("FashionMNISTDataModule", "read_idx")

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
_FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes, plain or gzipped.

    Args:
        path: The file; ``path.gz`` is tried where it does not exist.

    Returns:
        The array, ``uint8``.

    Raises:
        DataError: If the file is missing, truncated or of another format.
    """
    found = next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)
    if found is None:
        raise DataError(
            f"{path} (or {path.name}.gz) is missing. Expected layout: train-images-idx3-ubyte, train-labels-idx1-ubyte,"
            " t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, plain or .gz, in data.init_args.root. Debian's package"
            f" dataset-fashion-mnist puts them into {_DEBIAN}, which is found by itself."
        )
    try:
        stored = found.read_bytes()
        content = gzip.decompress(stored) if found.suffix == ".gz" else stored
        zero, kind, n_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{n_axes}I", content[4 : 4 + 4 * n_axes])
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * n_axes)
        if zero != 0 or kind != 8:
            raise ValueError("not an IDX file of unsigned bytes")
        return torch.from_numpy(values.reshape(shape).copy())
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{found} cannot be read as an IDX file: {error}. Fetch it again.") from error


def _default_root() -> Path:
    """Return ``fashion_mnist`` in the folder that SUREFOOT_DATA names, or Debian's folder where that is not set."""
    data = os.environ.get("SUREFOOT_DATA")
    if data is None and _DEBIAN.is_dir():
        return _DEBIAN
    return Path(data or "data") / "fashion_mnist"


class FashionMNISTDataModule(ConfoundedImagesDataModule):
    """Fashion-MNIST, 28x28 pixels, RGB ``(batch, 3, 28, 28)``; val is the last 10,000 of the training images.

    Source: Xiao et al., arXiv 1708.07747.
    """

    def __init__(
        self,
        root: Path | None = None,
        classes: Sequence[int] | None = None,
        n_train: int | None = None,
        n_eval: int | None = None,
        **images: Any,
    ) -> None:
        """Initialize Fashion-MNIST.

        Args:
            root: Folder of the IDX files; by default ``fashion_mnist`` in the folder that the environment variable
                ``SUREFOOT_DATA`` names, or Debian's folder where that is not set.
            classes: Classes to keep, renumbered in this order; all ten by default. (0 T-shirt, 1 trouser, 2 pullover,
                3 dress, 4 coat, 5 sandal, 6 shirt, 7 sneaker, 8 bag, 9 ankle boot.)
            n_train: Training images to keep, drawn with the seed; all by default.
            n_eval: Images to keep of val and test each; all by default.
            images: Arguments of `ConfoundedImagesDataModule`.

        Raises:
            ConfigError: If fewer than two classes are kept, or one outside 0 to 9.
        """
        self.classes = tuple(range(10)) if classes is None else tuple(classes)
        if len(set(self.classes)) < 2 or not set(self.classes) <= set(range(10)):
            raise ConfigError(f"classes must hold at least two of 0 to 9, got {list(self.classes)}.")
        super().__init__("class", len(self.classes), **images)
        self.root, self.sizes = root, {"train": n_train, "val": n_eval, "test": n_eval}

    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Read the files and keep the chosen classes and sizes."""
        root = self.root or _default_root()
        read = {
            split: tuple(read_idx(Path(root) / f"{stem}-{part}") for part in ("images-idx3-ubyte", "labels-idx1-ubyte"))
            for split, stem in _FILES.items()
        }
        images, labels = read["train"]
        n_val = len(labels) // 6
        parts = {
            "train": (images[:-n_val], labels[:-n_val]),
            "val": (images[-n_val:], labels[-n_val:]),
            "test": read["test"],
        }
        return {name: self._keep(name, *pair) for name, pair in parts.items()}

    def _keep(self, name: str, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if len(images) != len(labels):
            raise DataError(f"split {name!r} has {len(images)} images but {len(labels)} labels.")
        if len(labels) == 0 or int(labels.max()) > 9:
            raise DataError(f"split {name!r} must hold labels 0 to 9, got {labels.unique().tolist()[:20]}.")
        renumbered = torch.full((256,), -1)
        renumbered[list(self.classes)] = torch.arange(len(self.classes))
        target = renumbered[labels.long()]
        kept = (target >= 0).nonzero()[:, 0]
        if self.sizes[name] is not None:
            generator = torch.Generator().manual_seed(self.seed)
            kept = kept[torch.randperm(len(kept), generator=generator)[: self.sizes[name]]]
        return images[kept].float() / 255, target[kept]
