"""Deterministic order and exact resumption of training data, for every datamodule.

The order of an epoch depends on a seed and the epoch alone; a loader's position in it is part of the
checkpoint. Nothing here draws from torch's global generator, so that loading data never changes training.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from surefoot.errors import ConfigError
from surefoot.training.seeds import numbered_seed

__all__ = ("BatchSize", "EpochSampler", "ResumableDataLoader", "ResumableLoader", "ShardSampler", "StepSampler")


#: Examples of a batch of all ranks; of each stream by its name, where there are several
BatchSize = int | dict[str, int]


class Position(NamedTuple):
    """Where an epoch was left."""

    epoch: int
    n_examples: int  # of all ranks


class EpochSampler(DistributedSampler[int]):
    """Shuffles without replacement, or draws by weight with replacement; ranks take examples in turn.

    Rank r of R takes positions r, r+R, ...: with a batch of B/R on each rank, the ranks' batches together are the
    batch of B that one rank would see. A resumed epoch distributes what is left of the same order, whatever the
    number of ranks is now. Where the shares are uneven, the first of these examples are repeated, at most one a rank.
    To subclass torch's sampler keeps Lightning from replacing this one.
    """

    def __init__(self, dataset: Sized, seed: int, weights: Tensor | None = None) -> None:
        """Initialize the sampler.

        Args:
            dataset: What is sampled from; only its length matters.
            seed: Seed of the order; the same on every rank.
            weights: Sampling weight per example ``(examples,)``, or none to shuffle.
        """
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=None if distributed else 1,
            rank=None if distributed else 0,
            seed=seed,
        )
        self.start = 0
        self.reweight(weights)

    def reweight(self, weights: Tensor | None) -> None:
        """Draw by these weights from the next epoch on; an epoch keeps its number of draws.

        Args:
            weights: Sampling weight per example, at least 0, ``(examples,)``; none to shuffle.

        Raises:
            ConfigError: If there is not one finite weight at least 0 per example, or all are zero.
        """
        if weights is not None:
            n_examples = len(self.dataset)  # type: ignore[arg-type]
            if weights.shape != (n_examples,):
                raise ConfigError(f"expected {n_examples} sampling weights, got shape {tuple(weights.shape)}.")
            if not bool((weights >= 0).all() and weights.isfinite().all() and weights.sum() > 0):
                raise ConfigError("sampling weights must be finite, at least 0 and not all zero.")
            weights = weights.double().cpu()
        self.weights = weights

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices of the current epoch, from the resumed position on."""
        start, self.start = self.start, 0
        left = self.order(self.epoch)[start:]
        share = -(-len(left) // self.num_replicas)
        even = left.repeat(self.num_replicas)[: share * self.num_replicas]  # even shares
        return iter(even[self.rank :: self.num_replicas].tolist())

    def order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch, of all ranks, in the order in which they are seen, ``(examples,)``."""
        n_examples = len(self.dataset)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(numbered_seed(self.seed, epoch))
        if self.weights is None:
            return torch.randperm(n_examples, generator=generator)
        return torch.multinomial(self.weights, n_examples, replacement=True, generator=generator)


class ShardSampler(DistributedSampler[int]):
    """Gives examples to ranks in turn, each exactly once: no rank repeats one to even out the shares."""

    def __init__(self, dataset: Sized) -> None:
        """Initialize the sampler.

        Args:
            dataset: What is sampled from; only its length matters.
        """
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=None if distributed else 1,
            rank=None if distributed else 0,
            shuffle=False,
        )

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices."""
        return iter(self._mine())

    def __len__(self) -> int:
        """Return the number of this rank's indices."""
        return len(self._mine())

    def _mine(self) -> range:
        return range(self.rank, len(self.dataset), self.num_replicas)  # type: ignore[arg-type]


class StepSampler(DistributedSampler[int]):
    """Counts the steps of training, the same on every rank: what a step sees is the dataset's matter."""

    def __init__(self, n_steps: int) -> None:
        """Initialize the sampler.

        Args:
            n_steps: Steps of an epoch.
        """
        super().__init__(range(n_steps), num_replicas=1, rank=0, shuffle=False)  # type: ignore[arg-type]
        self.n_steps, self.start = n_steps, 0

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the epoch's steps, over all epochs, from the resumed position on."""
        start, self.start = self.start, 0
        first = self.epoch * self.n_steps
        return iter(range(first + start, first + self.n_steps))


class ResumableLoader(ABC):
    """Training batches whose position goes into Lightning's checkpoints, in examples seen by all ranks.

    A position outlives a change of the batch size and of the number of ranks.
    """

    @property
    @abstractmethod
    def n_examples_per_batch(self) -> BatchSize:
        """Examples of a batch of all ranks; of each stream by its name, where there are several."""

    @property
    @abstractmethod
    def n_resumed_batches(self) -> int:
        """How many batches of the present size have gone before, of an epoch that is resumed; 0 where none is."""

    @abstractmethod
    def rewind(self, n_batches: int, n_examples_per_batch: BatchSize) -> None:
        """Go back so many batches, of that many examples, in an epoch that is resumed."""

    @abstractmethod
    def state_before(self, state: dict[str, object], n_batches: int) -> dict[str, object]:
        """Return the state in which the loader was so many batches of the present size before another state."""

    @abstractmethod
    def state_dict(self) -> dict[str, object]:
        """Return the position."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a position."""


class ResumableDataLoader(DataLoader[Any], ResumableLoader):
    """A DataLoader whose position goes into Lightning's checkpoints: epoch and examples seen by all ranks.

    What is left of that epoch is distributed to as many ranks, in batches as large, as there are now; another epoch is
    whole.
    """

    def __init__(self, dataset: Dataset[Any], sampler: EpochSampler | StepSampler, **arguments: Any) -> None:
        """Initialize the loader.

        Args:
            dataset: Map-style dataset.
            sampler: Order of the examples.
            arguments: Further arguments of torch's DataLoader.
        """
        # A generator of its own keeps the workers' seeds from drawing on the global one.
        super().__init__(dataset, sampler=sampler, generator=torch.Generator(), **arguments)
        self._epoch = self._position = 0
        self._resumed: Position | None = None

    @property
    def n_examples_per_batch(self) -> int:
        """Examples of a batch of all ranks; 1 where a batch is one step."""
        assert isinstance(self.sampler, EpochSampler | StepSampler)
        return (self.batch_size or 1) * self.sampler.num_replicas

    def n_batches_left(self, position: int) -> int:
        """Return how many batches of this size are left after so many examples of an epoch."""
        assert isinstance(self.sampler, EpochSampler | StepSampler)
        left = max(0, len(self.sampler.dataset) - position)  # type: ignore[arg-type]
        mine = -(-left // self.sampler.num_replicas)
        size = self.batch_size or 1
        return mine // size if self.drop_last else -(-mine // size)

    @property
    def n_resumed_batches(self) -> int:
        """How many of this size have gone before, of an epoch that is resumed; 0 where none is."""
        return 0 if self._resumed is None else len(self) - self.n_batches_left(self._resumed.n_examples)

    def rewind(self, n_batches: int, n_examples_per_batch: BatchSize) -> None:
        """Go back so many batches, of that many examples, in an epoch that is resumed."""
        assert isinstance(n_examples_per_batch, int)
        if self._resumed is not None:
            n_examples = max(0, self._resumed.n_examples - n_batches * n_examples_per_batch)
            self._resumed = self._resumed._replace(n_examples=n_examples)

    def state_before(self, state: dict[str, Any], n_batches: int) -> dict[str, object]:
        """Return the state in which the loader was so many batches of the present size before another state."""
        return state | {"n_examples": state["n_examples"] - n_batches * self.n_examples_per_batch}

    def __iter__(self) -> Any:
        """Yield the epoch's batches, from the resumed position on."""
        assert isinstance(self.sampler, EpochSampler | StepSampler)
        resumed, self._resumed = self._resumed, None
        self._epoch, self._position = self.sampler.epoch, 0
        if resumed is not None and resumed.epoch == self._epoch:
            self._position = resumed.n_examples
        self.sampler.start = self._position
        for batch in super().__iter__():
            self._position += self.n_examples_per_batch
            yield batch

    def state_dict(self) -> dict[str, object]:
        """Return the epoch and the number of its examples that all ranks' batches have held."""
        position = self._resumed or Position(self._epoch, self._position)
        return position._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume an epoch after that many examples; one of which no batch is left starts anew.

        Raises:
            ConfigError: If the state does not count examples, or is of several streams.
        """
        assert isinstance(self.sampler, EpochSampler | StepSampler)
        if "beside" in state:
            raise ConfigError(
                f"the checkpoint's epochs are of {state['epoch_of']} beside {', '.join(state['beside'])}, and the data"
                " are one stream: training goes on with the streams that it began with."
            )
        if not {"epoch", "n_examples"} <= state.keys():
            raise ConfigError(
                f"the checkpoint does not say how many examples of its epoch were seen (it holds {', '.join(state)}),"
                " as one of another version of Surefoot: start anew with --fresh true; it can still be tested."
            )
        position = Position(state["epoch"], state["n_examples"])
        if self.n_batches_left(position.n_examples):
            self.sampler.set_epoch(position.epoch)
            self._resumed = position
