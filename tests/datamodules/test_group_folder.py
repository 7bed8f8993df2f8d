from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch import Trainer
from PIL import Image

from datamodules import GroupFolderDataModule
from datamodules.images import open_image
from surefoot.classification import Augmentation, Flip, ResizedCropFlip
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


@pytest.mark.parametrize("augmentation", [Flip(), ResizedCropFlip()])
def test_augmentation_is_for_training_alone(tmp_path: Path, augmentation: Augmentation) -> None:
    data = GroupFolderDataModule(write_folder(tmp_path), image_size=16, augmentation=augmentation)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    plain = data.on_after_batch_transfer(batch, 0)["input"]
    data.trainer = Trainer(accelerator="cpu", logger=False)
    assert data.on_after_batch_transfer(batch, 0)["input"].equal(plain)
    data.trainer.training = True
    assert not data.on_after_batch_transfer(batch, 0)["input"].equal(plain)


def test_missing_or_bad_metadata_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata.csv is missing. Expected layout: a folder with metadata.csv"):
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


def brightness(array: np.ndarray, path: Path, mode: str | None = None) -> float:
    """Write pixels, read them as a datamodule does, and return their mean, 0 to 255."""
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path)
    opened = open_image(path)
    assert opened.mode == "RGB"
    return float(np.asarray(opened).mean())


def test_images_keep_their_brightness_whatever_their_format(tmp_path: Path) -> None:
    levels = np.linspace(0.1, 0.5, 64).reshape(8, 8)  # mean 0.3, that is 76.5 of 255
    eight = np.rint(255 * levels).astype(np.uint8)
    sixteen = np.rint(65535 * levels).astype(np.uint16)
    colour = np.stack([eight] * 3, axis=-1)
    opaque = np.concatenate([colour, np.full((8, 8, 1), 255, np.uint8)], axis=-1)
    found = {
        "8 bits": brightness(eight, tmp_path / "a.png"),
        "16-bit png": brightness(sixteen, tmp_path / "b.png"),
        "16-bit tiff": brightness(sixteen, tmp_path / "c.tif"),
        "big-endian": brightness(sixteen.astype(">u2"), tmp_path / "d.tif"),
        "float": brightness(levels.astype(np.float32), tmp_path / "e.tif"),
        "rgb": brightness(colour, tmp_path / "f.png"),
        "rgba": brightness(opaque, tmp_path / "g.png"),
        "grey and alpha": brightness(opaque, tmp_path / "h.png", "LA"),
        "palette": brightness(eight, tmp_path / "i.png", "P"),
        "cmyk": brightness(colour, tmp_path / "j.tif", "CMYK"),
    }
    (tmp_path / "k.pgm").write_bytes(b"P5 8 8 65535\n" + sixteen.astype(">u2").tobytes())
    found["16-bit pgm"] = float(np.asarray(open_image(tmp_path / "k.pgm")).mean())
    assert found == pytest.approx(dict.fromkeys(found, 76.5), abs=1)
    bits = np.array([[0, 255], [0, 255]], np.uint8)
    assert brightness(bits, tmp_path / "l.png", "1") == pytest.approx(127.5)
    clear = np.zeros((2, 2, 4), np.uint8)
    assert brightness(clear, tmp_path / "m.png") == 255, "what is transparent is seen on white"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4), 116.6, np.float32), r"float pixels must be in \[0, 1\], got 116.6"),
        (np.full((4, 4), -0.5, np.float32), r"float pixels must be in \[0, 1\]"),
        (np.full((4, 4), np.nan, np.float32), r"float pixels must be in \[0, 1\], got nan"),
        (
            np.full((4, 4), 70_000, np.int32),
            "pixels are integers of 32 bits, whose range is not known",
        ),
    ],
)
def test_pixels_of_unknown_range_are_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    Image.fromarray(array).save(tmp_path / "odd.tif")
    with pytest.raises(DataError, match=rf"odd\.tif cannot be read: {message}"):
        open_image(tmp_path / "odd.tif")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("y", ["0.5", "1.5"], r"y must be whole numbers .*; 2 of 24 rows .* 0.5 in line 3"),
        ("y", ["-1"], r"y must be whole numbers from 0.*; 1 of 24 .* -1 in line 3"),
        ("y", ["999"], "999 in line 3"),
        ("y", [""], "nan in line 3"),
        ("y", ["inf"], "inf in line 3"),
        ("place", ["0.5"], r"place must be whole numbers"),
        ("split", ["3", "7"], r"split must be 0 \(train\), 1 .*; 2 of 24 rows .* 3 in line 3"),
        ("split", ["0.5"], "split must be"),
        ("img_filename", ["images/0.png"], r"img_filename must name .* once; 1 .*0.png in line 3"),
    ],
)
def test_metadata_that_would_be_cut_off_or_left_out_is_refused(
    column: str, values: list[str], message: str, tmp_path: Path
) -> None:
    path = write_folder(tmp_path) / "metadata.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[1 : len(values), column] = values
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=message):
        GroupFolderDataModule(tmp_path).n_groups  # noqa: B018


@pytest.mark.parametrize("text", ["", "img_filename,y,place,split\n"])
def test_an_empty_table_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=r"metadata.csv cannot be read: (it holds no row|No columns)"):
        GroupFolderDataModule(tmp_path).n_classes  # noqa: B018


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "metadata.csv"
    table = pd.read_csv(path)
    table.astype({"y": float, "split": float}).to_csv(path, index=False)
    assert GroupFolderDataModule(tmp_path).n_classes == 2
