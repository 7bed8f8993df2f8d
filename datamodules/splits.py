"""What a split is, examples in memory, and views of other datasets' examples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from surefoot.errors import DataError

__all__ = (
    "Batch",
    "ChosenExamples",
    "Gathered",
    "Split",
    "TensorExamples",
    "check_split",
    "gather",
    "whole_numbers",
)

Batch = dict[str, Any]
#: Several examples: a batch of a dataset that gathers them at once, else one by one.
Gathered = Batch | list[Batch]


@dataclass(frozen=True)
class Split:
    """One split: its examples, and what is known of all of them without loading one."""

    examples: Dataset[Batch]
    target: Tensor  # (examples,); -100 where unlabelled
    group: Tensor  # group of the training grouping, (examples,)
    eval_group: Tensor | None  # group (examples,) or membership (examples, groups) of the evaluation
    # grouping; none for a set without the groups of evaluation
    annotations: Mapping[str, Tensor] = field(default_factory=dict)  # True/False per example, (examples,)


class TensorExamples(Dataset[Batch]):
    """Examples in memory; a whole batch is gathered at once."""

    def __init__(self, **tensors: Tensor) -> None:
        """Initialize the dataset from tensors of equal length."""
        self.tensors = tensors
        self.tensors["index"] = torch.arange(len(tensors["target"]))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.tensors["target"])

    def __getitem__(self, index: int) -> Batch:
        """Return one example."""
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch, which may be empty."""
        rows = torch.tensor(indices, dtype=torch.long)
        return {name: tensor[rows] for name, tensor in self.tensors.items()}


@runtime_checkable
class _AtOnce(Protocol):
    """A dataset that gathers several examples at once; torch's loaders ask for the same method."""

    def __getitems__(self, indices: list[int]) -> Gathered: ...


def gather(examples: Dataset[Batch], indices: Sequence[int]) -> Gathered:
    """Return several examples: a batch where the dataset gathers them at once, else what it gives one by one.

    Args:
        examples: A dataset.
        indices: Positions in it.
    """
    return examples.__getitems__(list(indices)) if isinstance(examples, _AtOnce) else [examples[i] for i in indices]


class ChosenExamples(Dataset[Batch]):
    """Some examples of a dataset, numbered anew, with other targets and groups, and changed inputs where asked for.

    A batch of images is changed as one tensor; texts are changed one by one.
    """

    def __init__(
        self,
        examples: Dataset[Batch],
        positions: Tensor,
        target: Tensor,
        group: Tensor | None,
        change: Callable[[Any, Tensor], Any] | None = None,
    ) -> None:
        """Initialize the view.

        Args:
            examples: Where the examples come from.
            positions: Which of them, ``(chosen,)``.
            target: Their targets, ``(chosen,)``.
            group: Their groups, ``(chosen, ...)``; none to leave groups out.
            change: From inputs ``(batch, ...)`` and positions ``(batch,)`` to inputs, or from a text and its position
                to a text.
        """
        self.examples, self.positions, self.change = examples, positions, change
        self.target, self.group = target, group

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.positions)

    def __getitem__(self, index: int) -> Batch:
        """Return one example."""
        batch = self.__getitems__([index])
        if isinstance(batch, list):
            return batch[0]
        return {k: v[0] for k, v in batch.items()}

    def __getitems__(self, indices: list[int]) -> Gathered:
        """Return a batch, or a list of examples whose inputs are texts."""
        rows = torch.tensor(indices)
        found = gather(self.examples, self.positions[rows].tolist())
        facts: Batch = {"index": rows, "target": self.target[rows]}
        if self.group is not None:
            facts["group"] = self.group[rows]
        if isinstance(found, list) and isinstance(found[0]["input"], str):
            texts = (
                e["input"] if self.change is None else self.change(e["input"], p)
                for e, p in zip(found, self.positions[rows], strict=True)
            )
            return [{"input": text} | {k: v[i] for k, v in facts.items()} for i, text in enumerate(texts)]
        batch = found if isinstance(found, dict) else default_collate(found)
        inputs = batch["input"]
        if self.change is not None:
            inputs = self.change(inputs, self.positions[rows])
        return facts | {"input": inputs}


def check_split(name: str, split: Split, n_classes: int, n_groups: int) -> None:
    """Raise a `DataError` if the split is empty, or a target or group is outside its range."""
    if len(split.target) == 0:
        raise DataError(f"the split {name!r} is empty.")
    for kind, given in (("target", split.target), ("group", split.group)):
        if given.is_floating_point() or given.is_complex():
            whole_numbers(given.tolist(), f"{kind} of split {name!r}")
    for kind, values, n in (("target", split.target, n_classes), ("group", split.group, n_groups)):
        outside = ((values < 0) | (values >= n)).nonzero()[:, 0]
        if len(outside):
            first = int(outside[0])
            raise DataError(f"{kind} {int(values[first])} of example {first} in split {name!r} is outside [0, {n}).")


def whole_numbers(values: Sequence[Any], name: str) -> Tensor:
    """Return labels or groups as integers, ``(examples,)``; none is cut off to one.

    Args:
        values: Numbers.
        name: What they are, for the message.

    Raises:
        DataError: If a value is missing or not a whole number.
    """
    wrong = [i for i, v in enumerate(values) if not isinstance(v, int | float) or not math.isfinite(v) or v != int(v)]
    if wrong:
        raise DataError(
            f"{name} must hold whole numbers; {len(wrong)} of {len(values)} are none, the first {values[wrong[0]]!r}"
            f" at position {wrong[0]}."
        )
    return torch.tensor([int(v) for v in values])
