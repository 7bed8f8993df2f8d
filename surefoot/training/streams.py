"""Several streams of training batches side by side: one paces the epochs, the others have no end."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from surefoot.errors import ConfigError
from surefoot.training.loading import BatchSize, EpochSampler, ResumableDataLoader, ResumableLoader

__all__ = ("EndlessLoader", "EndlessSampler", "StreamsLoader")


class EndlessSampler(Sampler[int]):
    """The passes of an `EpochSampler` one after the other, without end; ranks take examples in turn.

    No example is repeated to even out the ranks' shares: a pass begins where the last one ends, on whatever rank.

    Attributes:
        position: Examples of all ranks, of all passes, before the next one.
    """

    def __init__(self, passes: EpochSampler) -> None:
        """Initialize the sampler.

        Args:
            passes: Order of each pass, and this rank.
        """
        self.passes, self.position = passes, 0

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices from the position on."""
        n_examples = len(self.passes.dataset)  # type: ignore[arg-type]
        begun, order = -1, torch.empty(0, dtype=torch.long)
        for position in count(self.position + self.passes.rank, self.passes.num_replicas):
            number, offset = divmod(position, n_examples)
            if number != begun:
                # Numbers that no epoch has: beside the same dataset, another order than the epoch's.
                begun, order = number, self.passes.order(-1 - number)
            yield int(order[offset])


class EndlessLoader:
    """A loader's passes one after the other, in batches of one size: one may hold a pass's end and the next's start.

    Attributes:
        position: Examples of all ranks, of all passes, that batches have held.
    """

    def __init__(self, loader: ResumableDataLoader, position: int = 0) -> None:
        """Initialize the loader.

        Args:
            loader: Loader of one pass.
            position: Where to begin, examples of all ranks.
        """
        assert isinstance(loader.sampler, EpochSampler)
        self.position, self._sampler = position, EndlessSampler(loader.sampler)
        self.n_examples_per_batch = loader.n_examples_per_batch
        self._loader: DataLoader[object] = DataLoader(
            loader.dataset,
            loader.batch_size,
            sampler=self._sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            generator=torch.Generator(),  # keeps the workers' seeds from drawing on the global one
        )
        self._batches: Iterator[object] | None = None

    def __next__(self) -> object:
        """Return the next batch."""
        if self._batches is None:
            self._sampler.position = self.position
            self._batches = iter(self._loader)
        batch = next(self._batches)
        self.position += self.n_examples_per_batch
        return batch

    def go_to(self, position: int) -> None:
        """Go on from another position.

        Args:
            position: Examples of all ranks, of all passes, before it.
        """
        self.position, self._batches = position, None


class StreamsLoader(ResumableLoader):
    """A batch of each stream under its name. An epoch is one pass of one stream; the others go on from epoch to epoch.

    Every stream but that one begins again when it is through, and is not cut off where an epoch ends: each of its
    examples is seen once a pass, whatever the length of an epoch.
    """

    def __init__(
        self, loaders: Mapping[str, ResumableDataLoader], epoch_of: str, positions: Mapping[str, int] | None = None
    ) -> None:
        """Initialize the streams.

        Args:
            loaders: Loader of one pass of each stream.
            epoch_of: Stream of which an epoch is one pass.
            positions: Where other streams begin, examples of all ranks; at the start by default.
        """
        self.names, self.epoch_of, self.epochs = tuple(loaders), epoch_of, loaders[epoch_of]
        start = positions or {}
        self.endless = {n: EndlessLoader(x, start.get(n, 0)) for n, x in loaders.items() if n != epoch_of}

    @property
    def sampler(self) -> EpochSampler:
        """Order of the stream of which an epoch is one pass; the trainer numbers its epochs."""
        assert isinstance(self.epochs.sampler, EpochSampler)
        return self.epochs.sampler

    @property
    def positions(self) -> dict[str, int]:
        """Examples of all ranks, of all passes, that batches of the other streams have held."""
        return {name: loader.position for name, loader in self.endless.items()}

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, object]]:
        """Yield the epoch's batches, from the resumed position on."""
        for batch in self.epochs:
            beside = {name: next(loader) for name, loader in self.endless.items()}
            yield {name: batch if name == self.epoch_of else beside[name] for name in self.names}

    @property
    def n_examples_per_batch(self) -> dict[str, int]:
        """Examples of each stream in a batch of all ranks."""
        beside = {name: loader.n_examples_per_batch for name, loader in self.endless.items()}
        return {self.epoch_of: self.epochs.n_examples_per_batch} | beside

    @property
    def n_resumed_batches(self) -> int:
        """How many batches of the present size have gone before, of an epoch that is resumed; 0 where none is."""
        return self.epochs.n_resumed_batches

    def rewind(self, n_batches: int, n_examples_per_batch: BatchSize) -> None:
        """Go back so many batches, of that many examples of each stream, in an epoch that is resumed."""
        assert isinstance(n_examples_per_batch, dict)
        self.epochs.rewind(n_batches, n_examples_per_batch[self.epoch_of])
        for name, loader in self.endless.items():
            loader.go_to(max(0, loader.position - n_batches * n_examples_per_batch[name]))

    def state_before(self, state: dict[str, Any], n_batches: int) -> dict[str, object]:
        """Return the state in which the loader was so many batches of the present size before another state."""
        beside = {
            name: max(0, position - n_batches * self.endless[name].n_examples_per_batch)
            for name, position in state["beside"].items()
        }
        return self.epochs.state_before(state, n_batches) | {"beside": beside}

    def state_dict(self) -> dict[str, object]:
        """Return the position in the epoch, and in the streams beside it."""
        return self.epochs.state_dict() | {"epoch_of": self.epoch_of, "beside": self.positions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position in every stream.

        Raises:
            ConfigError: If it is of other streams.
        """
        given = (state.get("epoch_of"), set(state.get("beside", ())))
        if given != (self.epoch_of, set(self.endless)):
            was = "one stream" if given[0] is None else f"{given[0]} beside {', '.join(sorted(given[1]))}"
            raise ConfigError(
                f"the checkpoint's epochs are of {was}, and these are of {self.epoch_of} beside"
                f" {', '.join(sorted(self.endless))}: training goes on with the streams that it began with"
                " (data.init_args.streams and epoch_of)."
            )
        self.epochs.load_state_dict({key: state[key] for key in state.keys() - {"epoch_of", "beside"}})
        for name, position in state["beside"].items():
            self.endless[name].go_to(position)
