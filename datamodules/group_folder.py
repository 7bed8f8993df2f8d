"""Image folders in Group DRO's layout: Waterbirds as its authors distribute it, or one's own."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from datamodules.classification import ClassificationDataModule
from datamodules.images import ImageExamples, ImagePipeline, open_image
from datamodules.splits import Split
from surefoot.classification.groups import combine_attributes, group_names
from surefoot.errors import DataError

__all__ = ("GroupFolderDataModule", "check_metadata")


class GroupFolderDataModule(ClassificationDataModule):
    """A folder with ``metadata.csv``: columns ``img_filename, y, <attribute>, split`` (0 train, 1 val, 2 test).

    Groups are (label, attribute), numbered ``y * n_attribute_values + attribute``. Images become
    ``(batch, 3, size, size)``, normalised with ImageNet's statistics.

    Reference: Sagawa et al., ICLR 2020 (``waterbird_complete95_forest2water2``).
    """

    def __init__(
        self,
        root: Path,
        attribute: str = "place",
        image_size: int = 224,
        **loading: Any,
    ) -> None:
        """Initialize the folder.

        Args:
            root: The folder.
            attribute: Column of the attribute that forms the groups with the label.
            image_size: Height and width that images are resized to, pixels.
            loading: Arguments of `ClassificationDataModule`.
        """
        super().__init__(**loading)
        self.root, self.attribute = Path(root), attribute
        self.pipeline = ImagePipeline(image_size)

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """The table of ``metadata.csv``.

        Raises:
            DataError: If it is missing, unreadable, empty or lacks a column; or a label, attribute or split is no whole
                number in its range, or an image has several rows.
        """
        path = self.root / "metadata.csv"
        columns = ["img_filename", "y", self.attribute, "split"]
        if not path.is_file():
            raise DataError(
                f"{path} is missing. Expected layout: a folder with metadata.csv (columns {', '.join(columns)}; split"
                " is 0 train, 1 val, 2 test) and the image files it names."
            )
        try:
            table = pd.read_csv(path)
            missing = [c for c in columns if c not in table]
            if missing:
                raise ValueError(f"column {missing[0]!r} is missing; found {list(table.columns)}")
            check_metadata(table, columns)
        except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
            raise DataError(f"{path} cannot be read: {error}.") from error
        table[columns[1:]] = table[columns[1:]].astype("int64")
        return table

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        """Number of classes, the largest label plus one."""
        return int(self.metadata["y"].max()) + 1

    @property
    def group_names(self) -> list[str]:  # type: ignore[override]
        """Names of the groups."""
        n_values = int(self.metadata[self.attribute].max()) + 1
        return group_names([("y", self.n_classes), (self.attribute, n_values)])

    @property
    def eval_group_names(self) -> list[str]:  # type: ignore[override]
        """Names of the groups."""
        return self.group_names

    def build(self) -> dict[str, Split]:
        """Make the three splits."""
        return {name: self._split(code) for code, name in enumerate(("train", "val", "test"))}

    def _split(self, code: int) -> Split:
        rows = self.metadata[self.metadata["split"] == code]
        target = torch.tensor(rows["y"].to_numpy().copy())
        attribute = torch.tensor(rows[self.attribute].to_numpy().copy())
        sizes = [self.n_classes, len(self.group_names) // self.n_classes]
        group = combine_attributes([target, attribute], sizes)
        paths = [self.root / name for name in rows["img_filename"]]
        examples = ImageExamples(lambda i: open_image(paths[i]), self.pipeline, target, group)
        return Split(examples, target, group, group)

    def scale(self, images: Tensor) -> Tensor:
        """Return normalised images."""
        return self.pipeline.scale(images)


def check_metadata(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise a `ValueError` unless labels, attributes and splits are numbers in range and every image has one row."""
    if len(table) == 0:
        raise ValueError("it holds no row")
    names, *numbers = columns
    for column in numbers:
        values = pd.to_numeric(table[column], errors="coerce").astype("float64")
        highest = 2 if column == "split" else len(table) - 1
        wrong = values.isna() | (values != values.round()) | (values < 0) | (values > highest)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            expected = (
                "0 (train), 1 (val) or 2 (test)"
                if column == "split"
                else "whole numbers from 0, fewer than there are rows"
            )
            raise ValueError(
                f"{column} must be {expected}; {int(wrong.sum())} of {len(table)} rows hold something else, the first"
                f" {table[column].iloc[row]} in line {row + 2}"
            )
    repeated = table[names].isna() | table[names].duplicated()
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        raise ValueError(
            f"{names} must name every image once; {int(repeated.sum())} rows repeat one or name none, the first"
            f" {table[names].iloc[row]} in line {row + 2}"
        )
