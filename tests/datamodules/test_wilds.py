from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_datasets import WRITERS, tokenizer, write

from datamodules import UnlabeledWILDSDataModule, WILDSDataModule, WILDSSplits
from surefoot.compatibility.wilds import torch_scatter_available
from surefoot.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TEXT = ("civilcomments", "amazon")


def make(name: str, root: Path, **settings: Any) -> WILDSDataModule:
    write(name, root)
    if name in TEXT:
        settings["tokenizer"] = str(tokenizer(root))
    else:
        settings["image_size"] = 12
    return WILDSDataModule(name, root, batch_size=4, **settings)


@pytest.mark.parametrize("name", WRITERS)
def test_wilds_own_loaders_read_it_and_its_evaluator_scores_it(name: str, tmp_path: Path) -> None:
    data = make(name, tmp_path)
    assert data.n_classes >= 2
    assert data.n_groups == len(data.group_names) >= 2
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["target"].equal(data.train_set.target[batch["index"]])
    assert batch["group"].equal(data.train_set.group[batch["index"]])
    if name in TEXT:
        assert batch["input"]["input_ids"].shape == batch["input"]["attention_mask"].shape
    else:
        assert batch["input"].shape == (4, 3, 12, 12)
    for split in ("val", "test"):
        target = data.splits[split].target
        scores = data.official_evaluation(split, target)
        subset = data.wilds.get_subset(data.wilds_splits[split])
        with torch_scatter_available():
            results, _ = data.wilds.eval(target, subset.y_array, subset.metadata_array)
        assert scores == pytest.approx({k: float(v) for k, v in results.items()}, nan_ok=True)
        accuracy = [v for k, v in scores.items() if k in ("acc_avg", "adj_acc_avg")]
        assert accuracy == pytest.approx([1.0] * len(accuracy)), "the truth scores full marks"


def test_civilcomments_trains_on_4_groups_and_is_judged_on_16_that_overlap(tmp_path: Path) -> None:
    data = make("civilcomments", tmp_path)
    data.setup("fit")
    assert data.n_groups == 4
    assert data.n_eval_groups == 16
    batch = next(iter(data.val_dataloader()[0]))
    assert batch["group"].shape[1] == 16
    assert int(batch["group"].sum(1).max()) > 1, "some comments mention two identities"
    assert batch["group"].any(1).tolist() == batch["group"].reshape(-1, 8, 2).any(2).any(1).tolist()
    y = batch["target"][:, None]
    assert not bool((batch["group"][:, 0::2] & (y == 1)).any())


def test_worst_group_equals_wilds_own(tmp_path: Path) -> None:
    """Our metrics and WILDS' evaluator agree on the same predictions."""
    from surefoot.metrics import count_groups, mean_of_worst, shares_weighted_accuracy

    data = make("waterbirds", tmp_path)
    data.setup("fit")
    split = data.splits["test"]
    predictions = torch.randint(0, 2, (len(split.target),), generator=torch.Generator().manual_seed(1))
    counts = count_groups(predictions == split.target, split.group, 4)
    official = data.official_evaluation("test", predictions)
    assert float(mean_of_worst(counts.accuracy, 1)) == pytest.approx(official["acc_wg"], rel=1e-6)
    shares = torch.tensor([3498.0, 184.0, 56.0, 1057.0]).double() / 4795
    assert data.group_names[1] == "y=landbird,background=water", "the order of the shares"
    ours = float(shares_weighted_accuracy(counts.accuracy, shares))
    assert ours == pytest.approx(official["adj_acc_avg"], rel=1e-6)


def test_unlabeled_splits(tmp_path: Path) -> None:
    labelled = make("amazon", tmp_path)
    data = UnlabeledWILDSDataModule(labelled, "test_unlabeled")
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert all(set(batch) == {"index", "input"} for batch in batches)
    assert batches[0]["input"]["input_ids"].shape[0] == 4
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == list(range(20))
    assert data.fingerprints() == {"test_unlabeled": "20 examples"}
    with pytest.raises(DataError, match=r"split 'val_unlabeled' of amazon is empty"):
        labelled.unlabeled_examples("val_unlabeled")
    with pytest.raises(ConfigError, match="no unlabeled split 'train'"):
        labelled.unlabeled_examples("train")
    with pytest.raises(ConfigError, match="waterbirds has no unlabeled data"):
        UnlabeledWILDSDataModule(make("waterbirds", tmp_path), "train_unlabeled").setup("fit")


def test_wrong_names_and_missing_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WILDS has no dataset 'waterbird'"):
        WILDSDataModule("waterbird")
    with pytest.raises(ConfigError, match=r"amazon is text: set data\.init_args\.tokenizer"):
        WILDSDataModule("amazon")
    with pytest.raises(ConfigError, match=r"amazon is text: leave data\.init_args\.image_size out, got 32"):
        WILDSDataModule("amazon", tokenizer="distilbert-base-uncased", image_size=32)
    with pytest.raises(ConfigError, match=r"waterbirds has no texts: leave data\.init_args\.tokenizer out"):
        WILDSDataModule("waterbirds", tokenizer="distilbert-base-uncased")
    with pytest.raises(ConfigError, match=r"held_out_field hospital needs splits to take apart"):
        WILDSSplits(held_out_field="hospital")
    with pytest.raises(DataError, match=r"waterbirds is not in .*Expected layout"):
        WILDSDataModule("waterbirds", tmp_path).n_groups  # noqa: B018
    data = make("waterbirds", tmp_path, groupby_fields=["weather"])
    with pytest.raises(ConfigError, match="no metadata field 'weather'"):
        data.n_groups  # noqa: B018
    with pytest.raises(ConfigError, match="no split 'holdout'"):
        make("camelyon17", tmp_path, official_splits=WILDSSplits("holdout")).setup("fit")
    (tmp_path / "waterbirds_v1.0" / "metadata.csv").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(DataError, match="metadata of waterbirds"):
        WILDSDataModule("waterbirds", tmp_path).n_groups  # noqa: B018


def test_wilds_images_are_scaled_and_its_labels_whole(tmp_path: Path) -> None:
    data = make("waterbirds", tmp_path)
    folder = tmp_path / "waterbirds_v1.0"
    Image.fromarray(np.full((16, 16), 10_000, np.uint16)).save(folder / "0.png")
    data.setup("fit")
    assert data.train_set.examples[0]["input"].unique().tolist() == [39], "10000 / 257"
    table = pd.read_csv(folder / "metadata.csv")
    table.assign(y=table["y"] + 0.5).to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"y must be whole numbers .*; 24 of 24"):
        WILDSDataModule("waterbirds", tmp_path).n_groups  # noqa: B018
    table.assign(split=3).to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"split must be 0 .*; 24 of 24"):
        WILDSDataModule("waterbirds", tmp_path).n_groups  # noqa: B018


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    data = make("waterbirds", tmp_path)
    (tmp_path / "waterbirds_v1.0" / "0.png").write_bytes(b"no image")
    data.setup("fit")
    with pytest.raises(DataError, match="example 0 of waterbirds cannot be read"):
        data.train_set.examples[0]
