from pathlib import Path

import pytest
import torch
from small_datasets import write_idx

from datamodules import DigitsDataModule, FashionMNISTDataModule
from datamodules.splits import Split, TensorExamples, check_split
from surefoot.errors import ConfigError, DataError


def test_facts_hold_before_setup() -> None:
    assert (DigitsDataModule().n_classes, DigitsDataModule().n_groups) == (2, 4)
    digits = DigitsDataModule("digit", confounders=("colour", "patch"))
    assert (digits.n_classes, digits.n_groups) == (10, 40)


def test_splits_are_disjoint_seeded_and_confounded_as_told() -> None:
    data = DigitsDataModule(minority_fraction=0.1, seed=4)
    data.setup("fit")
    assert [len(data.splits[s].target) for s in ("train", "val", "test")] == [1079, 359, 359]
    shares = {n: float(s.annotations["minority"].float().mean()) for n, s in data.splits.items()}
    assert shares["train"] == pytest.approx(0.1, abs=0.002)
    assert (shares["val"], shares["test"]) == pytest.approx((0.5, 0.5), abs=0.005)
    again = DigitsDataModule(minority_fraction=0.1, seed=4)
    again.setup("fit")
    assert again.train_set.group.equal(data.train_set.group)
    other = DigitsDataModule(minority_fraction=0.1, seed=5)
    other.setup("fit")
    assert not other.train_set.group.equal(data.train_set.group)


def test_batches_have_the_contract() -> None:
    data = DigitsDataModule(batch_size=16)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["input"].shape == (16, 3, 8, 8)
    assert {k: v.shape for k, v in batch.items() if k != "input"} == dict.fromkeys(("target", "group", "index"), (16,))
    assert data.train_set.target[batch["index"]].equal(batch["target"])
    hidden = DigitsDataModule(group_labels="hidden")
    hidden.setup("fit")
    assert "group" not in next(iter(hidden.train_dataloader()))
    assert "group" in next(iter(hidden.test_dataloader()[0]))


def test_noise_touches_training_targets_of_the_chosen_share_alone() -> None:
    data = DigitsDataModule(label_noise=0.2, noise_on="minority", minority_fraction=0.2)
    data.setup("fit")
    flags = data.train_annotations()
    assert not bool((flags["noisy"] & ~flags["minority"]).any())
    assert float(flags["noisy"][flags["minority"]].float().mean()) == pytest.approx(0.2, abs=0.01)
    assert not bool(data.splits["test"].annotations["noisy"].any())


@pytest.mark.parametrize("sampling", ["class_balanced", "group_balanced"])
def test_balanced_sampling_balances(sampling: str) -> None:
    data = DigitsDataModule(sampling=sampling, batch_size=1079)  # type: ignore[arg-type]
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    key, n = (batch["target"], 2) if sampling.startswith("class") else (batch["group"], 4)
    counts = torch.bincount(key, minlength=n).float()
    assert float(counts.max() / counts.min()) < 1.4


def test_subsampling_keeps_the_smallest_groups_size_and_the_indices() -> None:
    data = DigitsDataModule(sampling="group_subsampled", batch_size=500)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    smallest = int(data.train_group_counts().min())
    assert torch.bincount(batch["group"]).tolist() == [smallest] * 4
    assert data.train_set.target[batch["index"]].equal(batch["target"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confounders": ("smell",)}, "confounders must be distinct"),
        ({"confounders": ("patch", "patch")}, "confounders must be distinct"),
        ({"minority_fraction": 1.2}, "minority_fraction must be in"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DigitsDataModule(**settings)  # type: ignore[arg-type]


def test_targets_outside_the_range_and_empty_splits_are_named() -> None:
    target = torch.tensor([0, 1, 7])
    split = Split(TensorExamples(target=target), target, target, target)
    with pytest.raises(DataError, match=r"target 7 of example 2 in split 'val' is outside \[0, 2\)"):
        check_split("val", split, 2, 8)
    unknown = Split(TensorExamples(target=target), target % 2, target, target)
    with pytest.raises(DataError, match=r"group 7 of example 2 in split 'val' is outside \[0, 4\)"):
        check_split("val", unknown, 2, 4)
    empty = torch.zeros(0, dtype=torch.long)
    with pytest.raises(DataError, match="'val' is empty"):
        check_split("val", Split(TensorExamples(target=empty), empty, empty, empty), 2, 2)


class OneClass(DigitsDataModule):
    def load(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        parts = super().load()
        images, target = parts["train"]
        return parts | {"train": (images[target == 0], target[target == 0])}


class NaNImages(DigitsDataModule):
    def load(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        parts = super().load()
        parts["train"][0][3, 0, 0] = torch.nan
        return parts


class MissingDigit(DigitsDataModule):
    def load(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        parts = super().load()
        images, target = parts["train"]
        return parts | {"train": (images[target != 3], target[target != 3])}


def test_missing_classes_and_nan_inputs() -> None:
    with pytest.raises(DataError, match="at least two are needed"):
        OneClass().setup("fit")
    with pytest.raises(DataError, match="images of split 'train' hold NaN"):
        NaNImages().setup("fit")
    with pytest.warns(UserWarning, match=r"classes \[3\] have no training example"):
        MissingDigit("digit").setup("fit")


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for stem, n in (("train", 120), ("t10k", 30)):
        images = torch.randint(0, 256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte", images, compress=stem == "train")
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte", (torch.arange(n) % 10).to(torch.uint8))
    return tmp_path


def test_idx_files_plain_and_gzipped(idx_folder: Path) -> None:
    data = FashionMNISTDataModule(idx_folder, classes=[5, 7], n_train=15, batch_size=4)
    data.setup("fit")
    assert len(data.train_set.target) == 15
    assert len(data.splits["test"].target) == 6
    batch = next(iter(data.train_dataloader()))
    assert batch["input"].shape == (4, 3, 28, 28)
    assert data.n_classes == 2


def test_missing_and_damaged_idx_files_are_named(idx_folder: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/train-images-idx3-ubyte .* is missing. Expected layout"):
        FashionMNISTDataModule(idx_folder / "nowhere").setup("fit")
    target = idx_folder / "t10k-images-idx3-ubyte"
    target.write_bytes(target.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as an IDX file"):
        FashionMNISTDataModule(idx_folder).setup("fit")
    (idx_folder / "train-images-idx3-ubyte.gz").write_bytes(b"not a gzip file")
    with pytest.raises(DataError, match="cannot be read as an IDX file"):
        FashionMNISTDataModule(idx_folder).setup("fit")


def test_real_fashion_mnist(data_root: Path) -> None:
    data = FashionMNISTDataModule(data_root / "fashion_mnist")
    data.setup("fit")
    assert [len(data.splits[s].target) for s in ("train", "val", "test")] == [
        50_000,
        10_000,
        10_000,
    ]
    assert float(data.train_annotations()["minority"].float().mean()) == pytest.approx(0.05, abs=0.001)
