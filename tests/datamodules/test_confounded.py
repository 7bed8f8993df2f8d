from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_datasets import write_idx

from datamodules import DigitsDataModule, FashionMNISTDataModule, TrainingSet
from datamodules.splits import Split, TensorExamples, check_split
from datamodules.training_set import SamplingRule
from surefoot.classification.confounders import Confounding, LabelNoise
from surefoot.cli import main
from surefoot.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def parsed(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return a function that parses a shipped config with flags and returns the settings of its data."""

    def parse(config: str, *flags: str) -> dict[str, Any]:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *flags, "--print_config"])
        settings: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
        return settings

    return parse


def test_facts_hold_before_setup() -> None:
    assert (DigitsDataModule().n_classes, DigitsDataModule().n_groups) == (2, 4)
    digits = DigitsDataModule("digit", confounding=Confounding(("colour", "patch")))
    assert (digits.n_classes, digits.n_groups) == (10, 40)


def test_splits_are_disjoint_seeded_and_confounded_as_told() -> None:
    data = DigitsDataModule(confounding=Confounding(minority_fraction=0.1), seed=4)
    data.setup("fit")
    assert [len(data.splits[s].target) for s in ("train", "val", "test")] == [1079, 359, 359]
    shares = {n: float(s.annotations["minority"].float().mean()) for n, s in data.splits.items()}
    assert shares["train"] == pytest.approx(0.1, abs=0.002)
    assert (shares["val"], shares["test"]) == pytest.approx((0.5, 0.5), abs=0.005)
    again = DigitsDataModule(confounding=Confounding(minority_fraction=0.1), seed=4)
    again.setup("fit")
    assert again.train_set.group.equal(data.train_set.group)
    other = DigitsDataModule(confounding=Confounding(minority_fraction=0.1), seed=5)
    other.setup("fit")
    assert not other.train_set.group.equal(data.train_set.group)


def test_batches_have_the_contract() -> None:
    data = DigitsDataModule(batch_size=16)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["input"].shape == (16, 3, 8, 8)
    assert {k: v.shape for k, v in batch.items() if k != "input"} == dict.fromkeys(("target", "group", "index"), (16,))
    assert data.train_set.target[batch["index"]].equal(batch["target"])
    hidden = DigitsDataModule(training=TrainingSet(group_labels="hidden"))
    hidden.setup("fit")
    assert "group" not in next(iter(hidden.train_dataloader()))
    assert "group" in next(iter(hidden.test_dataloader()[0]))


def test_noise_touches_training_targets_of_the_chosen_share_alone() -> None:
    data = DigitsDataModule(label_noise=LabelNoise(0.2, "minority"), confounding=Confounding(minority_fraction=0.2))
    data.setup("fit")
    flags = data.train_annotations()
    assert not bool((flags["noisy"] & ~flags["minority"]).any())
    assert float(flags["noisy"][flags["minority"]].float().mean()) == pytest.approx(0.2, abs=0.01)
    assert not bool(data.splits["test"].annotations["noisy"].any())


@pytest.mark.parametrize("sampling", ["class_balanced", "group_balanced"])
def test_balanced_sampling_balances(sampling: SamplingRule) -> None:
    data = DigitsDataModule(training=TrainingSet(sampling=sampling), batch_size=1079)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    key, n = (batch["target"], 2) if sampling.startswith("class") else (batch["group"], 4)
    counts = torch.bincount(key, minlength=n).float()
    assert float(counts.max() / counts.min()) < 1.4


def test_subsampling_keeps_the_smallest_groups_size_and_the_indices() -> None:
    data = DigitsDataModule(training=TrainingSet(sampling="group_subsampled"), batch_size=500)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    smallest = int(data.train_group_counts().min())
    assert torch.bincount(batch["group"]).tolist() == [smallest] * 4
    assert data.train_set.target[batch["index"]].equal(batch["target"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: Confounding(("patch", "patch")), "confounders must be distinct"),
        (lambda: Confounding(()), "got none. To paint nothing, set confounding to null"),
        (lambda: Confounding(minority_fraction=1.2), r"confounding.minority_fraction must be in \[0, 1\], got 1.2"),
        (lambda: Confounding(eval_minority_fraction=-1), r"confounding.eval_minority_fraction must be in"),
        (lambda: Confounding(strength=float("nan")), r"confounding.strength must be in \[0, 1\], got nan"),
        (lambda: LabelNoise(1.5), r"label_noise.share must be in \[0, 1\], got 1.5"),
        (lambda: TrainingSet(sampling="group_balanced", group_labels="hidden"), "balances groups .* hides them"),
        (lambda: TrainingSet(sampling="group_subsampled", group_labels="hidden"), "balances groups .* hides them"),
        (lambda: DigitsDataModule(batch_size=0), "batch_size"),
        (
            lambda: DigitsDataModule(confounding=None, label_noise=LabelNoise(0.2, "minority")),
            "label_noise.among minority needs confounders",
        ),
    ],
)
def test_bad_settings_are_refused(settings: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings()


def test_labels_are_flipped_without_confounders_too() -> None:
    data = DigitsDataModule(confounding=None, label_noise=LabelNoise(0.2), seed=3)
    data.setup("fit")
    assert float(data.splits["train"].annotations["noisy"].float().mean()) == pytest.approx(0.2, abs=0.001)
    assert not bool(data.splits["train"].annotations["minority"].any())


def test_groups_of_settings_keep_what_is_not_given(parsed: Callable[..., dict[str, Any]]) -> None:
    """A setting inside a group, from a file or on the command line, leaves the others of its group as they are."""
    training = asdict(TrainingSet(group_labels="hidden", drop_last=True))
    digits = parsed("erm_digits", "--data.init_args.training.drop_last", "true", "--data.init_args.batch_size", "32")
    assert (digits["batch_size"], digits["training"]) == (32, training)
    painted = {"confounders": ["colour"], "minority_fraction": 0.2, "eval_minority_fraction": 0.5, "strength": 0.3}
    flags = ("--data.init_args.confounding.minority_fraction", "0.2", "--data.init_args.label_noise.share", "0.1")
    digits = parsed("erm_digits", *flags)
    assert (digits["confounding"], digits["label_noise"]) == (painted, {"share": 0.1, "among": "all"})
    assert parsed("erm_digits", "--data.init_args.confounding", "null")["confounding"] is None
    mnist = parsed("erm_constant_solution_mnist5k", "--data.init_args.training.sampling", "class_balanced")
    assert (mnist["confounding"], mnist["label_noise"]) == (None, None)
    assert mnist["training"] == asdict(TrainingSet(sampling="class_balanced"))
    mnist = parsed("erm_constant_solution_mnist5k", "--data.init_args.confounding.strength", "0.3")
    assert mnist["confounding"] == painted | {"minority_fraction": 0.05}


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
