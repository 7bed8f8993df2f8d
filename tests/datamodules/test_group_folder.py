from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datamodules import GroupFolderDataModule
from surefoot.errors import DataError


def write_folder(root: Path, n: int = 24) -> Path:
    """Write a small folder in Waterbirds' layout."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        name = f"images/{i}.png"
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(root / name)
        rows.append(
            {
                "img_id": i,
                "img_filename": name,
                "y": i % 2,
                "split": (i // 2) % 3,
                "place": (i // 6) % 2,
            }
        )
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root


def test_loads_as_it_is(tmp_path: Path) -> None:
    data = GroupFolderDataModule(write_folder(tmp_path), image_size=16, batch_size=4)
    assert (data.n_classes, data.n_groups) == (2, 4)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["input"].shape == (4, 3, 16, 16)
    assert batch["input"].dtype.is_floating_point
    assert data.train_set.group.equal(data.train_set.target * 2 + (data.train_set.group % 2))


@pytest.mark.parametrize("augmentation", ["flip", "crop_flip"])
def test_augmentation_is_for_training_alone(tmp_path: Path, augmentation: str) -> None:
    data = GroupFolderDataModule(write_folder(tmp_path), image_size=16, augmentation=augmentation)  # type: ignore[arg-type]
    data.setup("fit")
    pixels = next(iter(data.train_dataloader()))["input"]
    assert data.pipeline.finish(pixels, training=False).equal(
        data.pipeline.finish(pixels, training=False)
    )
    assert not data.pipeline.finish(pixels, training=True).equal(
        data.pipeline.finish(pixels, training=False)
    )


def test_missing_or_bad_metadata_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"metadata.csv is missing. Expected layout: a folder with metadata.csv"
    ):
        GroupFolderDataModule(tmp_path / "none").n_groups  # noqa: B018
    root = write_folder(tmp_path)
    with pytest.raises(DataError, match=r"column 'weather' is missing"):
        GroupFolderDataModule(root, attribute="weather").n_groups  # noqa: B018
    (root / "metadata.csv").write_text("img_filename,y,place,split\na.png,one,0,0\n")
    with pytest.raises(DataError, match=r"metadata.csv cannot be read"):
        GroupFolderDataModule(root).n_groups  # noqa: B018


def test_corrupt_and_missing_images_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "images/0.png").write_bytes(b"not an image")
    (root / "images/1.png").unlink()
    data = GroupFolderDataModule(root, image_size=8)
    data.setup("fit")
    examples = data.train_set.examples
    with pytest.raises(DataError, match=r"images/0.png cannot be read"):
        examples[0]
    with pytest.raises(DataError, match=r"images/1.png is missing"):
        examples[1]
