from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from surefoot.errors import ConfigError
from surefoot.training.loading import EpochSampler, ResumableDataLoader, ShardSampler


class Numbers(Dataset[int]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:
        return index


def ranks(n: int, n_ranks: int, epoch: int = 0) -> list[list[int]]:
    out = []
    for rank in range(n_ranks):
        sampler = EpochSampler(Numbers(n), seed=5)
        sampler.num_replicas, sampler.rank = n_ranks, rank
        sampler.num_samples = -(-n // n_ranks)
        sampler.total_size = sampler.num_samples * n_ranks
        sampler.set_epoch(epoch)
        out.append(list(sampler))
    return out


def test_an_epoch_is_a_permutation_and_the_next_one_differs() -> None:
    (first,), (second,) = ranks(50, 1, 0), ranks(50, 1, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert ranks(50, 1, 0)[0] == first


def test_ranks_batches_together_are_the_one_rank_batch() -> None:
    (alone,) = ranks(40, 1)
    a, b = ranks(40, 2)
    for k in range(0, 20, 5):
        assert set(a[k : k + 5]) | set(b[k : k + 5]) == set(alone[2 * k : 2 * k + 10])


def test_weights_draw_in_proportion() -> None:
    sampler = EpochSampler(Numbers(2000), 0, torch.cat([torch.ones(1000), 9 * torch.ones(1000)]))
    share = sum(i >= 1000 for i in sampler) / 2000
    assert share == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(3), "expected 4"),
        (torch.zeros(4), "not all zero"),
        (torch.tensor([1.0, -1, 1, 1]), "at least 0"),
    ],
)
def test_bad_weights_are_refused(weights: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EpochSampler(Numbers(4), 0, weights)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_resumed_loader_goes_on_where_it_stopped(n_workers: int) -> None:
    def loader() -> ResumableDataLoader:
        data: Any = Numbers(23)
        return ResumableDataLoader(data, EpochSampler(data, 0), batch_size=4, num_workers=n_workers)

    whole = [b.tolist() for b in loader()]
    part = loader()
    batches = iter(part)
    assert [next(batches).tolist() for _ in range(2)] == whole[:2]
    resumed = loader()
    resumed.load_state_dict(part.state_dict())
    assert [b.tolist() for b in resumed] == whole[2:]
    assert [b.tolist() for b in resumed] == whole, "the epoch after is whole again"


def loader_of(rank: int, n_ranks: int, batch_size: int, n: int = 48) -> ResumableDataLoader:
    data: Any = Numbers(n)
    sampler = EpochSampler(data, 0)
    sampler.num_replicas, sampler.rank = n_ranks, rank
    sampler.num_samples = -(-n // n_ranks)
    return ResumableDataLoader(data, sampler, batch_size=batch_size)


@pytest.mark.parametrize(("n_ranks", "batch_size"), [(1, 4), (1, 5), (2, 4), (2, 3), (3, 7)])
@pytest.mark.parametrize(("n_ranks_after", "batch_size_after"), [(1, 4), (1, 9), (2, 4), (4, 2)])
def test_an_epoch_resumed_on_other_ranks_with_other_batches_shows_every_example_once(
    n_ranks: int, batch_size: int, n_ranks_after: int, batch_size_after: int
) -> None:
    before = [loader_of(r, n_ranks, batch_size) for r in range(n_ranks)]
    batches = [iter(loader) for loader in before]
    seen = [i for _ in range(2) for b in batches for i in next(b).tolist()]
    states = [loader.state_dict() for loader in before]
    assert states == [states[0]] * n_ranks, "the position is that of all ranks"
    after = [loader_of(r, n_ranks_after, batch_size_after) for r in range(n_ranks_after)]
    left = []
    for loader in after:
        loader.load_state_dict(states[0])
        assert loader.state_dict() == states[0], "saved again before its first batch"
        expected = len(loader) - loader.n_resumed_batches
        batches = [b.tolist() for b in loader]
        assert len(batches) == expected
        left += [i for batch in batches for i in batch]
        assert len(list(loader)) == len(loader), "the epoch after is whole"
    n_repeated = -(48 - len(seen)) % n_ranks_after
    assert sorted(set(seen + left)) == list(range(48))
    assert len(seen + left) == 48 + n_repeated


def test_another_epoch_is_not_resumed() -> None:
    first = loader_of(0, 1, 4)
    batches = iter(first)
    next(batches)
    second = loader_of(0, 1, 4)
    second.load_state_dict(first.state_dict())
    second.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert sorted(i for b in second for i in b.tolist()) == list(range(48))


def test_a_finished_epoch_starts_anew() -> None:
    data: Any = Numbers(8)
    loader = ResumableDataLoader(data, EpochSampler(data, 0), batch_size=4)
    assert len(list(loader)) == 2
    again = ResumableDataLoader(data, EpochSampler(data, 0), batch_size=4)
    again.load_state_dict(loader.state_dict())
    assert len(list(again)) == 2


def test_loading_leaves_the_global_generator_alone() -> None:
    data: Any = Numbers(8)
    before = torch.get_rng_state()
    list(ResumableDataLoader(data, EpochSampler(data, 0, torch.ones(8)), batch_size=4))
    assert torch.get_rng_state().equal(before)


def test_shards_hold_every_example_exactly_once() -> None:
    shards = []
    for rank in range(3):
        sampler = ShardSampler(Numbers(10))
        sampler.num_replicas, sampler.rank = 3, rank
        assert len(sampler) == len(list(sampler))
        shards += list(sampler)
    assert sorted(shards) == list(range(10))


def test_a_position_of_another_version_is_refused_in_one_line() -> None:
    numbers = Numbers(8)
    loader = ResumableDataLoader(numbers, EpochSampler(numbers, seed=0), batch_size=2)
    with pytest.raises(ConfigError, match=r"how many examples .* --fresh"):
        loader.load_state_dict({"epoch": 1, "n_batches": 2})
