"""Shifted sets as arguments of datamodules: what they hold, what they are called, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_datasets import (
    tokenizer,
    write,
    write_cifar10,
    write_fashion_mnist,
    write_madlibs,
)

from datamodules import (
    CIFAR10DataModule,
    Corruption,
    DigitsDataModule,
    FashionMNISTDataModule,
    HeldOut,
    MadlibsDataModule,
    MNIST5kDataModule,
    OtherDataset,
    SubclassShiftDataModule,
    TextPerturbation,
    TrainingSet,
    WILDSDataModule,
    WILDSSplits,
)
from datamodules.training_set import SamplingRule
from surefoot.classification.augmentations import ShiftFlip
from surefoot.classification.shifts import CORRUPTIONS, corrupt
from surefoot.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def batches(data: Any, stage: str = "test") -> dict[str, list[dict[str, Any]]]:
    """Return all batches of all sets that a stage evaluates, as a module gets them."""
    loaders = data.test_dataloader() if stage == "test" else data.val_dataloader()
    return {
        name: [data.on_after_batch_transfer(batch, i) for batch in loader]
        for i, (name, loader) in enumerate(zip(data.evaluated(stage), loaders, strict=True))
    }


def plain_digits(**settings: Any) -> DigitsDataModule:
    return DigitsDataModule(target="digit", confounding=None, eval_batch_size=100, **settings)


def test_corruptions_follow_the_split_level_by_level() -> None:
    data = plain_digits(shifts=[Corruption("noise"), Corruption("rotation", [90])])
    data.setup("test")
    names = [f"noise_{i}" for i in range(1, 6)] + ["rotation_1"]
    assert data.evaluated("test") == ["test", *names]
    assert data.evaluated("validate") == ["val", *names]
    assert data.evaluated("fit") == ["val", "test"]
    found = batches(data)
    clean, index = found["test"][0]["input"], found["test"][0]["index"]
    assert index.equal(torch.arange(100))
    for level, strength in enumerate(CORRUPTIONS["noise"].strengths, 1):
        batch = found[f"noise_{level}"][0]
        torch.testing.assert_close(batch["input"], corrupt(clean, index, "noise", strength))
        for key in ("target", "group", "index"):
            assert batch[key].equal(found["test"][0][key])
    validated = batches(data, "validate")
    assert not validated["noise_1"][0]["input"].equal(found["noise_1"][0]["input"])


def test_pixels_are_corrupted_before_they_are_standardised() -> None:
    shifts = [Corruption("noise")]
    raw = plain_digits(shifts=shifts)
    scaled = plain_digits(shifts=shifts, standardise=True)
    for data in (raw, scaled):
        data.setup("test")
    train = raw.splits["train"].examples.tensors["input"]  # type: ignore[attr-defined]
    mean, std = (f(train, (0, 2, 3))[:, None, None] for f in (torch.mean, torch.std))
    expected = (batches(raw)["noise_3"][0]["input"] - mean) / std
    torch.testing.assert_close(batches(scaled)["noise_3"][0]["input"], expected)


def test_imbalance_makes_a_geometric_series_in_every_split() -> None:
    data = MNIST5kDataModule(imbalance=4.0)
    data.setup("fit")
    for split in data.splits.values():
        counts = split.target.bincount().double()
        assert float(counts[0] / counts[-1]) == pytest.approx(4, rel=0.25)
        assert float(counts[3] / counts[0]) == pytest.approx(4 ** (-3 / 9), rel=0.25)
    assert data.n_groups == 10
    assert data.splits["train"].group.equal(data.splits["train"].target), "groups are the classes"
    with pytest.raises(ConfigError, match="imbalance must be at least 1, got 0"):
        MNIST5kDataModule(imbalance=0.0)


RULES: tuple[SamplingRule, ...] = ("class_balanced", "class_subsampled")


def test_sampling_weights_are_what_the_loader_draws_by() -> None:
    assert plain_digits().draw_weights() is None
    for sampling in RULES:
        data = MNIST5kDataModule(imbalance=5.0, training=TrainingSet(sampling=sampling))
        data.setup("fit")
        weights = data.draw_weights()
        assert weights is not None
        per_class = torch.zeros(10, dtype=torch.float64).index_add(0, data.train_set.target, weights)
        torch.testing.assert_close(per_class / per_class.sum(), torch.full((10,), 0.1).double())


def test_another_dataset_is_fitted_and_unlabelled(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    write_cifar10(tmp_path)
    fashion = FashionMNISTDataModule(tmp_path, confounding=None, n_eval=30)
    cifar = CIFAR10DataModule(tmp_path)
    data = plain_digits(shifts=[OtherDataset(fashion, "fashion", 20), OtherDataset(cifar, "cifar")])
    data.setup("test")
    found = batches(data)
    assert found["fashion"][0]["input"].shape == (20, 3, 8, 8)
    assert set(found["fashion"][0]["target"].tolist()) == {-100}
    assert "group" not in found["fashion"][0]
    pixels = torch.cat([b["input"] for b in found["cifar"]])
    assert pixels.shape == (120, 3, 8, 8)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1, "bytes become [0, 1]"
    assert data.evaluation_set("test", "fashion").eval_group is None
    onto_bytes = CIFAR10DataModule(tmp_path, shifts=[OtherDataset(plain_digits(), "digits")])
    onto_bytes.setup("test")
    digits = batches(onto_bytes)["digits"][0]["input"]
    raw = OtherDataset(plain_digits(), "d").sets(onto_bytes, "test")["d"].examples
    assert 1 < float(raw.__getitems__([0, 1])["input"].max()) <= 255  # type: ignore[attr-defined]
    assert digits.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize("binary", [False, True])
def test_cifar10_in_both_formats(binary: bool, tmp_path: Path) -> None:
    images = write_cifar10(tmp_path, binary=binary)
    data = CIFAR10DataModule(tmp_path, augmentation=ShiftFlip(), batch_size=16)
    data.setup("fit")
    assert {n: len(s.target) for n, s in data.splits.items()} == {
        "train": 108,
        "val": 12,
        "test": 120,
    }
    batch = batches(data)["test"][0]
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    expected = (torch.from_numpy(images[:1]).float() / 255 - mean) / std
    torch.testing.assert_close(batch["input"][:1], expected.permute(0, 3, 1, 2))
    assert data.group_names[0] == "y=airplane"
    chosen = CIFAR10DataModule(tmp_path, classes=[3, 5], n_train=7, n_eval=4)
    chosen.setup("fit")
    assert [len(s.target) for s in chosen.splits.values()] == [7, 2, 4]
    assert chosen.n_classes == 2


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: (p / "test.parquet").unlink(), "test_batch.bin are missing. Expected layout"),
        (lambda p: (p / "test.parquet").write_bytes(b"PAR1 no"), "cannot be read as CIFAR-10"),
    ],
)
def test_damaged_cifar10(break_it: Any, message: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    break_it(tmp_path)
    with pytest.raises(DataError, match=message):
        CIFAR10DataModule(tmp_path).setup("fit")


def test_damaged_images_and_labels_of_cifar10(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"img": [{"bytes": b"x", "path": None}] * 20, "label": list(range(20))})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="must hold labels 0 to 9"):
        CIFAR10DataModule(tmp_path).setup("fit")
    table = table.set_column(1, "label", pyarrow.array([i % 10 for i in range(20)]))
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="cannot identify image file"):
        CIFAR10DataModule(tmp_path).setup("fit")
    short = tmp_path / "binary"
    write_cifar10(short, binary=True)
    (short / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(DataError, match="not a multiple of 3073"):
        CIFAR10DataModule(short).setup("fit")


def test_subclasses_are_held_out_under_their_superclass(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, 300)
    inner = FashionMNISTDataModule(tmp_path, confounding=None, standardise=True)
    data = SubclassShiftDataModule(inner, shifts=[HeldOut()], eval_batch_size=64)
    assert data.n_classes == 3
    assert data.group_names == ["top/0", "top/2", "shoe/5", "shoe/7", "long/1"]
    data.setup("test")
    assert data.evaluated("test") == ["test", "target_subclasses"]
    found = batches(data)
    for name, kept in (("test", {0, 2, 5, 7, 1}), ("target_subclasses", {4, 6, 9, 3})):
        split = data.evaluation_set("test", name)
        original = inner.splits["test"].target
        places = torch.tensor([c in kept for c in original.tolist()]).nonzero()[:, 0]
        top, shoe = {0, 2, 4, 6}, {5, 7, 9}
        expected = [0 if c in top else 1 if c in shoe else 2 for c in original[places].tolist()]
        assert split.target.tolist() == expected
        index = torch.cat([b["index"] for b in found[name]])
        assert index.equal(torch.arange(len(places))), "numbered anew"
        pixels = inner.splits["test"].examples.tensors["input"][places[:1]]  # type: ignore[attr-defined]
        standard = inner.on_after_batch_transfer({"input": pixels}, 0)["input"]
        torch.testing.assert_close(found[name][0]["input"][:1], standard)
    train = next(iter(data.train_dataloader()))
    assert train["group"].equal(data.train_set.group[train["index"]])
    assert data.n_train == len(data.train_set.target)


def test_wrong_hierarchies() -> None:
    with pytest.raises(ConfigError, match="no hierarchy over DigitsDataModule is known"):
        SubclassShiftDataModule(plain_digits())
    for wrong in (
        {"a": {"source": [0]}},
        {"a": {"source": [0]}, "b": {"source": [0]}},
        {"a": {"source": [0]}, "b": {"source": [10]}},
        {"a": {"source": [0]}, "b": {"target": [1]}},
    ):
        with pytest.raises(ConfigError, match="a hierarchy needs two superclasses"):
            SubclassShiftDataModule(plain_digits(), wrong)  # type: ignore[arg-type]
    data = plain_digits(shifts=[HeldOut()])
    data.setup("test")
    with pytest.raises(ConfigError, match="DigitsDataModule holds out nothing"):
        data.evaluated("test")


def test_sentences_their_templates_and_their_perturbations(tmp_path: Path) -> None:
    write_madlibs(tmp_path)
    shifts = [HeldOut(), TextPerturbation("scramble"), TextPerturbation("drop", [0.5])]
    data = MadlibsDataModule(tmp_path, shifts=shifts, batch_size=8)
    data.setup("test")
    names = ["template_you_are_adj", *(f"scramble_{i}" for i in range(1, 6)), "drop_1"]
    assert data.evaluated("test") == ["test", *names]
    found = batches(data)
    ids = found["test"][0]["input"]
    assert ids["input_ids"].shape == ids["attention_mask"].shape
    tokens = data.pipeline.tokenizer
    assert tokens.convert_ids_to_tokens(ids["input_ids"][0])[0] == "[CLS]"
    known = data.pipeline.tokenizer.decode(ids["input_ids"][0])
    assert "is a" in known
    unknown = found["scramble_5"][0]["input"]["input_ids"]
    share = float((unknown == tokens.unk_token_id).float().mean())
    assert share > 0.6, "words that training has not seen"
    short = found["drop_1"][0]["input"]["attention_mask"].sum()
    assert int(short) < int(ids["attention_mask"].sum())
    assert len(data.evaluation_set("test", names[0]).target) == 80
    assert found[names[0]][0]["target"].equal(torch.tensor([1, 0] * 40)), "0 is NOT_BAD, 1 is BAD"
    assert next(iter(data.train_dataloader()))["group"].max() <= 1


def test_wrong_sentences(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"madlibs_77k\.csv is missing\. Expected layout"):
        MadlibsDataModule(tmp_path).setup("fit")
    path = write_madlibs(tmp_path)
    with pytest.raises(ConfigError, match="no template 'x'; there are name_adj, you_are_adj"):
        MadlibsDataModule(tmp_path, templates=["x"]).setup("fit")
    path.write_text("Text,Label,Template\nhello,GOOD,name_adj\n")
    with pytest.raises(DataError, match=r"line 2 of .* is not Text, Label"):
        MadlibsDataModule(tmp_path).setup("fit")


def test_wilds_domains_and_texts(tmp_path: Path) -> None:
    write("camelyon17", tmp_path)
    write("amazon", tmp_path)
    data = WILDSDataModule(
        "camelyon17",
        tmp_path,
        official_splits=WILDSSplits("id_val", "id_val", ("val", "test"), "hospital"),
        image_size=12,
        shifts=[HeldOut(), Corruption("brightness", [0.2])],
    )
    data.setup("test")
    names = data.evaluated("test")
    assert names == ["test", "held_out_val_1", "held_out_test_2", "brightness_1"]
    for name, loaded in batches(data).items():
        assert loaded[0]["input"].shape[1:] == (3, 12, 12)
        assert loaded[0]["target"].equal(data.evaluation_set("test", name).target)
    clean, bright = (batches(data)[n][0]["input"] for n in ("test", "brightness_1"))
    assert float((bright - clean).min()) >= -1e-5, "bytes are corrupted before they are normalised"
    assert float((bright - clean).max()) == pytest.approx(0.2 / 0.224, rel=1e-4)
    with pytest.raises(ConfigError, match="no metadata field 'planet'"):
        WILDSDataModule(
            "camelyon17", tmp_path, official_splits=WILDSSplits(held_out=("val",), held_out_field="planet")
        ).held_out("test")
    texts = WILDSDataModule(
        "amazon",
        tmp_path,
        tokenizer=str(tokenizer(tmp_path)),
        official_splits=WILDSSplits("id_val", "id_test", ("test",)),
        shifts=[HeldOut(["held_out_test"]), TextPerturbation("scramble", [1.0])],
    )
    texts.setup("test")
    found = batches(texts)
    assert list(found) == ["test", "held_out_test", "scramble_1"]
    unknown = texts.texts.tokenizer.unk_token_id
    shares = {n: float((b[0]["input"]["input_ids"] == unknown).float().mean()) for n, b in found.items()}
    assert shares["scramble_1"] > shares["test"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no corruption 'fog'"):
        Corruption("fog")
    with pytest.raises(ConfigError, match="strength of contrast"):
        Corruption("contrast", [2.0])
    with pytest.raises(ConfigError, match="n_examples must be at least 1, got 0"):
        OtherDataset(plain_digits(), "x", 0)
    twice = plain_digits(shifts=[Corruption("noise"), Corruption("noise", [0.1])])
    twice.setup("test")
    with pytest.raises(ConfigError, match="two evaluated sets are called 'noise_1'"):
        twice.evaluated("test")
    write_madlibs(tmp_path)
    texts = MadlibsDataModule(tmp_path, shifts=[Corruption("noise")])
    texts.setup("test")
    with pytest.raises(ConfigError, match="a corruption needs images"):
        batches(texts)
    mixed = plain_digits(shifts=[OtherDataset(MadlibsDataModule(tmp_path), "texts")])
    mixed.setup("test")
    with pytest.raises(ConfigError, match="another kind of input"):
        mixed.evaluated("test")
    words = plain_digits(shifts=[TextPerturbation("drop")])
    words.setup("test")
    with pytest.raises(ConfigError, match="needs texts"):
        batches(words)


def test_real_cifar10(data_root: Path) -> None:
    data = CIFAR10DataModule(data_root / "cifar10", n_train=50, n_eval=20)
    data.setup("fit")
    pixels = batches(data)["test"][0]["input"]
    assert pixels.shape == (20, 3, 32, 32)
    assert 0.5 < float(pixels.std()) < 1.5


def test_real_madlibs(data_root: Path) -> None:
    data = MadlibsDataModule(data_root / "madlibs", n_examples=500, shifts=[HeldOut()])
    data.setup("test")
    assert len(data.evaluated("test")) == 6, "the test split and five other templates"
    assert len(data.pipeline.tokenizer) < 400
