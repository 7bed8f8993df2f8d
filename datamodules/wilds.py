"""WILDS: distribution shifts in the wild, through WILDS' own loaders, groupers and evaluators."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.classification import ClassificationDataModule
from datamodules.group_folder import check_metadata
from datamodules.images import UNREADABLE, ImagePipeline, scaled_conversion
from datamodules.splits import Batch, ChosenExamples, Split
from datamodules.texts import TextPipeline
from surefoot.compatibility.wilds import import_wilds, object_strings, torch_scatter_available
from surefoot.errors import ConfigError, DataError

__all__ = ("WILDSDataModule", "WILDSSplits")

#: Dataset -> fields of the training grouping; others take the fields of WILDS' own evaluation grouper.
GROUPINGS: Mapping[str, tuple[str, ...]] = {
    "waterbirds": ("background", "y"),
    "celebA": ("male", "y"),
    "civilcomments": ("identity_any", "y"),  # four disjoint groups, as JTT and Group DRO train on
    "camelyon17": ("hospital",),
    "fmow": ("region",),
    "amazon": ("user",),
    "iwildcam": ("location",),
}
IMAGE_SIZES: Mapping[str, int] = {"camelyon17": 96, "iwildcam": 448, "rxrx1": 256}  # others 224
TEXT = ("civilcomments", "amazon", "yelp", "sqf")


class _WILDSExamples(Dataset[Batch]):
    """Examples of one WILDS subset."""

    def __init__(self, subset: Any, pipeline: ImagePipeline | None, group: Tensor | None) -> None:
        self.subset, self.pipeline, self.group = subset, pipeline, group

    def __len__(self) -> int:
        return len(self.subset)

    def __getitem__(self, index: int) -> Batch:
        position = int(self.subset.indices[index])
        try:
            with scaled_conversion():
                value = self.subset.dataset.get_input(position)
        except UNREADABLE as error:
            raise DataError(
                f"example {position} of {self.subset.dataset.dataset_name} cannot be read: {error}"
            ) from error
        example: Batch = {"index": index}
        if self.group is not None:  # labelled
            example |= {"target": self.subset.dataset.y_array[position], "group": self.group[index]}
        if isinstance(value, Image.Image):
            assert self.pipeline is not None
            value = self.pipeline.load(value)
        return example | {"input": value}


@dataclass(frozen=True)
class WILDSSplits:
    """Which of a WILDS dataset's official splits are val, test and held out; ``train`` is trained on.

    Args:
        val: Split used as val (``id_val`` for example).
        test: Split used as test (``id_test`` for example).
        held_out: Further splits that the shift ``HeldOut`` evaluates (``test`` for example), as sets
            ``held_out_<split>``.
        held_out_field: Metadata field by whose values those sets are taken apart (``hospital`` for example), as sets
            ``held_out_<split>_<value>``.

    Raises:
        ConfigError: If there is a field and nothing is held out.
    """

    val: str = "val"
    test: str = "test"
    held_out: tuple[str, ...] = ()
    held_out_field: str | None = None

    def __post_init__(self) -> None:
        """Check that what is taken apart exists."""
        if self.held_out_field is not None and not self.held_out:
            raise ConfigError(
                f"official_splits.held_out_field {self.held_out_field} needs splits to take apart: set"
                " official_splits.held_out."
            )


class WILDSDataModule(ClassificationDataModule):
    """Any classification dataset of WILDS, from ``root/<dataset>_v<version>/`` in WILDS' own format.

    Images become ``(batch, 3, size, size)``; texts become a dict of ``input_ids`` and ``attention_mask``
    ``(batch, seq)``, padded to the batch's longest. Evaluation groups are the training grouping's, but
    CivilComments' 16 overlapping ones (identity x toxicity). Nothing is downloaded unless asked for.

    Reference: Koh et al., ICML 2021, arXiv 2012.07421; Sagawa et al., ICLR 2022, arXiv 2112.05090 (unlabeled data).
    """

    def __init__(
        self,
        dataset: str,
        root: Path = Path("data"),
        groupby_fields: Sequence[str] | None = None,
        official_splits: WILDSSplits = WILDSSplits(),
        image_size: int | None = None,
        tokenizer: str | None = None,
        max_length: int = 300,
        download: bool = False,
        **loading: Any,
    ) -> None:
        """Initialize WILDS.

        Args:
            dataset: Name, such as ``waterbirds``, ``celebA``, ``civilcomments``, ``camelyon17``, ``fmow``, ``amazon``
                or ``iwildcam``.
            root: Folder that holds the datasets' folders.
            groupby_fields: Metadata fields that form the training groups; the usual ones by default.
            official_splits: Splits of WILDS that are val, test and held out.
            image_size: Height and width that images are resized to, pixels; the dataset's usual one by default. Not
                for texts.
            tokenizer: Hub name or folder of the tokenizer, for texts only.
            max_length: Longest text, tokens.
            download: Whether to download a missing dataset.
            loading: Arguments of `ClassificationDataModule`.

        Raises:
            ConfigError: If WILDS has no such dataset, a text dataset has no tokenizer, or texts have an image size or
                images a tokenizer.
        """
        super().__init__(**loading)
        wilds = import_wilds()
        if dataset not in wilds.supported_datasets:
            raise ConfigError(f"WILDS has no dataset {dataset!r}; it has {', '.join(wilds.supported_datasets)}.")
        if dataset in TEXT and tokenizer is None:
            raise ConfigError(f"{dataset} is text: set data.init_args.tokenizer, for example distilbert-base-uncased.")
        if dataset in TEXT and image_size is not None:
            raise ConfigError(f"{dataset} is text: leave data.init_args.image_size out, got {image_size}.")
        if dataset not in TEXT and tokenizer is not None:
            raise ConfigError(f"{dataset} has no texts: leave data.init_args.tokenizer out, got {tokenizer}.")
        self.dataset, self.root, self.download = dataset, Path(root), download
        self.groupby_fields = tuple(groupby_fields) if groupby_fields else GROUPINGS.get(dataset)
        self.wilds_splits = {"train": "train", "val": official_splits.val, "test": official_splits.test}
        self.official_splits = official_splits
        self.texts = TextPipeline(tokenizer, max_length)
        size = image_size or IMAGE_SIZES.get(dataset, 224)
        self.pipeline = None if dataset in TEXT else ImagePipeline(size)

    def prepare_data(self, unlabeled: bool = False) -> None:
        """Download the dataset, or its unlabeled part, if that was asked for."""
        if self.download:
            self._open(download=True, unlabeled=unlabeled)

    def _open(self, download: bool = False, unlabeled: bool = False) -> Any:
        try:
            with object_strings():
                return import_wilds().get_dataset(
                    self.dataset, root_dir=str(self.root), download=download, unlabeled=unlabeled
                )
        except FileNotFoundError as error:
            kind = "unlabeled part of " if unlabeled else ""
            raise DataError(
                f"the {kind}WILDS dataset {self.dataset} is not in {self.root} ({str(error).split('. ')[0]}). Expected"
                f" layout: {self.root}/{self.dataset}{'_unlabeled' if unlabeled else ''}_v<version>/ as WILDS"
                " distributes it, with its RELEASE file; set data.init_args.root, or data.init_args.download to true"
                " where there is a network."
            ) from error
        except (KeyError, UnicodeDecodeError, ValueError, AssertionError) as error:
            raise DataError(f"the metadata of {self.dataset} in {self.root} cannot be read: {error}.") from error

    @cached_property
    def wilds(self) -> Any:
        """WILDS' own dataset object; reads the metadata, no example.

        Raises:
            DataError: If it cannot be read; of Waterbirds also if labels are cut off or splits left out in reading.
        """
        dataset = self._open()
        if self.dataset == "waterbirds":
            path = Path(dataset.data_dir) / "metadata.csv"
            try:
                check_metadata(pd.read_csv(path), ("img_filename", "y", "place", "split"))
            except ValueError as error:
                raise DataError(f"{path} cannot be read: {error}.") from error
        return dataset

    @cached_property
    def grouper(self) -> Any:
        """WILDS' grouper of the training groups.

        Raises:
            ConfigError: If a field does not exist.
        """
        from wilds.common.grouper import CombinatorialGrouper

        fields = self.groupby_fields
        if fields is None:
            fields = tuple(self.wilds._eval_grouper.groupby_fields)
        unknown = sorted(set(fields) - set(self.wilds.metadata_fields))
        if unknown:
            raise ConfigError(
                f"{self.dataset} has no metadata field {unknown[0]!r}; it has {self.wilds.metadata_fields}."
            )
        return CombinatorialGrouper(self.wilds, list(fields))

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        """Number of classes.

        Raises:
            ConfigError: If the dataset is not a classification dataset.
        """
        if self.wilds.n_classes is None or self.wilds.y_size != 1:
            raise ConfigError(f"{self.dataset} is not a classification dataset.")
        return int(self.wilds.n_classes)

    @property
    def group_names(self) -> list[str]:  # type: ignore[override]
        """Names of the training groups, for example ``y=landbird,background=water``."""
        names = (self.grouper.group_str(g) for g in range(self.grouper.n_groups))
        return [re.sub(r"\s*([=,])\s*", r"\1", name).strip() for name in names]

    @property
    def eval_group_names(self) -> list[str]:  # type: ignore[override]
        """Names of the evaluation groups."""
        if self.dataset != "civilcomments":
            return self.group_names
        return [f"{identity},y={y}" for identity in self.wilds._identity_vars for y in (0, 1)]

    def _eval_group(self, metadata: Tensor) -> Tensor:
        """Return evaluation groups of rows of metadata: ``(examples,)``, or membership ``(examples, 16)``."""
        if self.dataset != "civilcomments":
            group: Tensor = self.grouper.metadata_to_group(metadata).long()
            return group
        y = metadata[:, self.wilds.metadata_fields.index("y")]
        columns = []
        for identity in self.wilds._identity_vars:
            mentioned = metadata[:, self.wilds.metadata_fields.index(identity)] == 1
            columns += [mentioned & (y == 0), mentioned & (y == 1)]
        return torch.stack(columns, 1)

    def build(self) -> dict[str, Split]:
        """Take WILDS' official splits."""
        return {name: self._official(w) for name, w in self.wilds_splits.items()}

    def _official(self, wilds_name: str) -> Split:
        """Return an official split by WILDS' name."""
        if wilds_name not in self.wilds.split_dict:
            raise ConfigError(f"{self.dataset} has no split {wilds_name!r}; it has {list(self.wilds.split_dict)}.")
        subset = self.wilds.get_subset(wilds_name)
        if len(subset) == 0:
            raise DataError(f"the split {wilds_name!r} of {self.dataset} is empty.")
        metadata = subset.metadata_array
        group = self._eval_group(metadata)
        return Split(
            _WILDSExamples(subset, self.pipeline, group),
            subset.y_array.long().reshape(-1),
            self.grouper.metadata_to_group(metadata).long(),
            group,
        )

    def held_out(self, split: str) -> dict[str, Split]:
        """Return the held-out official splits, by domain where a field is named; the same for val and test."""
        sets = {}
        for wilds_name in self.official_splits.held_out:
            official = self._official(wilds_name)
            for suffix, positions in self._domains(wilds_name).items():
                target, group = official.target[positions], official.group[positions]
                assert official.eval_group is not None
                evaluated = official.eval_group[positions]
                examples = ChosenExamples(official.examples, positions, target, evaluated)
                sets[f"held_out_{wilds_name}{suffix}"] = Split(examples, target, group, evaluated)
        return sets

    def _domains(self, wilds_name: str) -> dict[str, Tensor]:
        """Return the positions of a split's examples by domain, all in one where no field is named."""
        metadata = self.wilds.get_subset(wilds_name).metadata_array
        field = self.official_splits.held_out_field
        if field is None:
            return {"": torch.arange(len(metadata))}
        if field not in self.wilds.metadata_fields:
            raise ConfigError(f"{self.dataset} has no metadata field {field!r}; it has {self.wilds.metadata_fields}.")
        values = metadata[:, self.wilds.metadata_fields.index(field)]
        return {f"_{int(v)}": (values == v).nonzero()[:, 0] for v in values.unique()}

    def collate(self, examples: Any) -> Batch:
        """Make a batch; texts are tokenised and padded to the longest."""
        return super().collate(examples) if self.pipeline else self.texts.collate(examples)

    def scale(self, images: Any) -> object:
        """Return normalised images; texts as they are."""
        return images if self.pipeline is None else self.pipeline.scale(images)

    def unlabeled_examples(self, split: str) -> Dataset[Batch]:
        """Return an unlabeled split, examples of ``input`` and ``index``.

        Args:
            split: For example ``train_unlabeled``, ``val_unlabeled``, ``test_unlabeled`` or ``extra_unlabeled``.

        Raises:
            ConfigError: If the dataset has no unlabeled data or no such split.
            DataError: If the split is empty.
        """
        wilds = import_wilds()
        if self.dataset not in wilds.unlabeled_datasets:
            raise ConfigError(
                f"{self.dataset} has no unlabeled data; these have: {', '.join(wilds.unlabeled_datasets)}."
            )
        dataset = self._open(unlabeled=True)
        if split not in dataset.split_dict:
            raise ConfigError(f"{self.dataset} has no unlabeled split {split!r}; it has {list(dataset.split_dict)}.")
        examples = _WILDSExamples(dataset.get_subset(split), self.pipeline, None)
        if len(examples) == 0:
            raise DataError(f"the unlabeled split {split!r} of {self.dataset} is empty.")
        return examples

    def official_evaluation(self, split: str, predictions: Tensor, seen: Tensor | None = None) -> dict[str, float]:
        """Score predictions with the dataset's own evaluator.

        Args:
            split: ``val`` or ``test``.
            predictions: Predicted class per example, in the split's order, ``(examples,)``.
            seen: True for the examples that are scored, ``(examples,)``; all by default.

        Returns:
            The evaluator's numbers by its own names (``acc_wg``, ``F1-macro_all``, ``10th_percentile_acc``, ...).
        """
        subset = self.wilds.get_subset(self.wilds_splits[split])
        chosen = torch.ones(len(predictions), dtype=torch.bool) if seen is None else seen
        with torch_scatter_available():
            results, _ = self.wilds.eval(predictions[chosen], subset.y_array[chosen], subset.metadata_array[chosen])
        return {name: float(value) for name, value in results.items()}

    def submission_name(self, split: str) -> str:
        """Return the start of the leaderboard's file name for predictions on a split."""
        return f"{self.dataset}_split:{self.wilds_splits[split]}"
