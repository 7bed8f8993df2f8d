"""Augmentations: every image by itself, the same from one seed on any device, and nothing but images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit, tiny
from small_datasets import write_madlibs
from torch import Tensor
from torchvision.transforms import v2

from datamodules import DigitsDataModule
from surefoot.classification import (
    Augmentation,
    Composed,
    Flip,
    PerImage,
    Repeated,
    ResizedCropFlip,
    ShiftFlip,
    Views,
)
from surefoot.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def draw(augmentation: Callable[[Tensor], Any], images: Tensor, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return augmentation(images)


def bytes_of(n: int = 40, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)


ALL = (
    Flip(),
    ShiftFlip(2),
    ResizedCropFlip(0.5),
    PerImage(v2.ColorJitter(brightness=0.5)),
    Composed([ShiftFlip(1), Flip(0.3)]),
)


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("floats", [False, True])
def test_every_image_is_changed_by_itself_and_from_one_seed_alike(augmentation: Augmentation, floats: bool) -> None:
    images = bytes_of()[:1].expand(40, -1, -1, -1)
    images = images / 255 if floats else images
    before = images.clone()
    changed = draw(augmentation, images)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert images.equal(before)
    assert len({image.numpy().tobytes() for image in changed}) > 1, "the same image comes out in several ways"
    assert draw(augmentation, images).equal(changed)
    assert not draw(augmentation, images, seed=1).equal(changed)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_images_are_mirrored_as_often_as_asked(probability: float) -> None:
    images = bytes_of(4000, 2)
    flipped = draw(Flip(probability), images)
    mirrored = [found.equal(image.flip(2)) for found, image in zip(flipped, images, strict=True)]
    assert sum(mirrored) / 4000 == pytest.approx(probability, abs=0.03)
    assert all(a.equal(b) for a, b, m in zip(flipped, images, mirrored, strict=True) if not m)


def test_shifts_and_mirrors_are_those_of_a_loop() -> None:
    pixels = bytes_of()
    moved = draw(ShiftFlip(2), pixels)
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    seen = set()
    for image, found in zip(padded, moved, strict=True):
        windows = {
            (top, left, flip): w.flip(2) if flip else w
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for w in (image[:, top : top + 8, left : left + 8],)
        }
        matching = [k for k, w in windows.items() if w.equal(found)]
        assert matching
        seen.add(matching[0])
    assert len(seen) > 15, "each image gets its own"


def test_a_resized_crop_is_torchvision_s_on_each_image() -> None:
    images = bytes_of(5, 16)
    transform = v2.Compose([v2.RandomResizedCrop(16, scale=(0.6, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    expected = draw(lambda x: torch.stack([transform(image) for image in x]), images)
    assert draw(ResizedCropFlip(0.6), images).equal(expected)


def test_compositions_repetitions_and_views_are_their_parts_in_order() -> None:
    images, a, b = bytes_of(6), ShiftFlip(1), Flip()
    assert draw(Composed([a, b]), images).equal(draw(lambda x: b(a(x)), images))
    assert draw(Composed([]), images).equal(images)
    twice = draw(Repeated(a, 2), images)
    assert twice.shape == (6, 2, 3, 8, 8)
    assert twice.equal(draw(lambda x: torch.stack([a(x), a(x)], 1), images))
    views = draw(Views({"weak": b, "strong": a, "input": None, "views": Repeated(b, 3)}), images)
    assert list(views) == ["weak", "strong", "input", "views"]
    assert views["weak"].equal(draw(b, images))
    assert views["input"].equal(images)
    assert views["views"].shape == (6, 3, 3, 8, 8)


class Halved(Augmentation):
    """Loses every second image, which an augmentation must not."""

    def augment(self, images: Tensor) -> Tensor:
        return images[::2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip(1.5), r"probability must be in \[0, 1\], got 1.5"),
        (lambda: ShiftFlip(-1), "padding must be at least 0"),
        (lambda: ResizedCropFlip(0.0), "smallest_area must be in"),
        (lambda: Repeated(Flip(), 0), "n must be at least 1"),
        (lambda: Views({}), "views need names of their own, such as weak and strong, got none"),
        (lambda: Views({"target": None, "a": None}), "got target"),
        (lambda: Flip()(torch.zeros(3, 4)), r"Flip is for images .*, got \(3, 4\)"),
        (lambda: Flip()({"input_ids": torch.zeros(3, 4)}), "got dict"),  # type: ignore[arg-type]
        (lambda: Composed([Repeated(Flip()), Flip()])(bytes_of()), "put Repeated last"),
        (lambda: Halved()(bytes_of()), "Halved made 20 images of 40"),
        (lambda: PerImage(torch.nn.Flatten(0))(bytes_of()), "Flatten must make images of one size"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


class Dimmed(Augmentation):
    """Constant, so that what becomes of it can be computed: half as bright."""

    def augment(self, images: Tensor) -> Tensor:
        return images / 2


def test_any_dataset_s_training_images_are_augmented_before_they_are_scaled() -> None:
    class Training(DigitsDataModule):
        def is_training(self) -> bool:
            return True

    plain, data = (
        kind(standardise=True, augmentation=a) for kind, a in ((DigitsDataModule, None), (Training, Dimmed()))
    )
    for module in (plain, data):
        module.setup("fit")
    batch = next(iter(data.train_dataloader()))
    expected = plain.on_after_batch_transfer(batch | {"input": batch["input"] / 2}, 0)
    found = data.on_after_batch_transfer(batch, 0)
    assert found.keys() == batch.keys()
    assert found["input"].equal(expected["input"])
    data.augmentation = Views({"weak": None, "strong": Dimmed(), "views": Repeated(Dimmed(), 2)})
    views = data.on_after_batch_transfer(batch, 0)
    assert set(views) == {"weak", "strong", "views", "target", "group", "index"}
    assert views["weak"].equal(plain.on_after_batch_transfer(batch, 0)["input"])
    assert views["strong"].equal(expected["input"])
    assert views["views"][:, 1].equal(expected["input"])
    data.augmenting = False
    assert data.on_after_batch_transfer(batch, 0)["input"].equal(views["weak"])


def test_augmentations_come_from_a_config(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny()
    config["trainer"] |= {"max_epochs": 1, "callbacks": [], "limit_train_batches": 2}
    config["model"]["init_args"]["encoder"] = {"class_path": "SmallCNN"}
    jitter = {
        "class_path": "PerImage",
        "init_args": {"transform": {"class_path": "torchvision.transforms.v2.RandAugment"}},
    }
    both = {"class_path": "Composed", "init_args": {"augmentations": [{"class_path": "ShiftFlip"}, jitter]}}
    config["data"]["init_args"]["augmentation"] = both
    assert (fit(config) / "finished.json").is_file()
    views = {"weak": {"class_path": "Flip"}, "strong": both, "input": None}
    config["data"]["init_args"]["augmentation"] = {"class_path": "Views", "init_args": {"views": views}}
    assert (fit(config, name="views") / "finished.json").is_file()
    del views["input"]
    with pytest.raises(SystemExit):
        fit(config, name="without")
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "ERM trains on the batch's input, and this one has group, index, strong, target, weak:" in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("flip", "augmentation"),
        ({"class_path": "Flipp"}, "Flipp"),
        ({"class_path": "Flip", "init_args": {"probability": 2.0}}, "probability must be in [0, 1], got 2.0"),
        ({"class_path": "Repeated", "init_args": {"augmentation": {"class_path": "Flip"}}}, "put Repeated in Views"),
    ],
)
def test_wrong_settings_end_in_one_line(given: Any, message: str, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny()
    config["trainer"]["callbacks"] = []
    config["model"]["init_args"]["encoder"] = {"class_path": "SmallCNN"}
    config["data"]["init_args"]["augmentation"] = given
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors.strip().splitlines()[-1]
    assert "Traceback" not in errors


def test_texts_are_not_augmented(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_madlibs(tmp_path)
    config = tiny()
    config["trainer"]["callbacks"] = []
    changes = {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 200}
    body = {"name": "distilbert", "pretrained": False, "config": changes}
    config["model"]["init_args"]["encoder"] = {"class_path": "TransformersEncoder", "init_args": body}
    arguments = {"root": str(tmp_path), "augmentation": {"class_path": "Flip"}}
    config["data"] = {"class_path": "MadlibsDataModule", "init_args": arguments}
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Flip is for images (batch, channels, height, width), got dict: leave augmentation out" in line
