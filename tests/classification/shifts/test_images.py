import pytest
import torch

from surefoot.classification.shifts import CORRUPTIONS, corrupt, fit_shape
from surefoot.classification.shifts.images import random_uniform
from surefoot.errors import ConfigError

IMAGES = torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([5, 3, 900, 2**40, 0, 7])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_example_is_corrupted_alike_in_any_batch(kind: str) -> None:
    strength = CORRUPTIONS[kind].strengths[2]
    whole = corrupt(IMAGES, INDEX, kind, strength)
    assert whole.shape == IMAGES.shape
    parts = [corrupt(IMAGES[i : i + 1], INDEX[i : i + 1], kind, strength) for i in range(6)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    assert not whole.equal(IMAGES)
    if kind != "unclipped_noise":
        assert 0 <= float(whole.min()) <= float(whole.max()) <= 1 + 1e-6


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_levels_grow_and_strength_zero_changes_nothing(kind: str) -> None:
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    index = torch.arange(64)
    strengths = CORRUPTIONS[kind].strengths
    assert len(strengths) == 5
    assert list(strengths) == sorted(strengths)
    distances = [float((corrupt(images, index, kind, s) - images).norm()) for s in strengths]
    if kind != "rotation":  # random pixels turned by any angle are as far away
        assert distances == sorted(distances)
    nothing = corrupt(images, index, kind, 0.0)
    if kind == "occlusion":  # at least one pixel
        assert float((nothing != images).float().mean()) <= 1 / 784 + 1e-6
    else:
        torch.testing.assert_close(nothing, images, rtol=0, atol=1e-5)


def test_noise_is_standard_normal_and_independent() -> None:
    noise = corrupt(torch.zeros(400, 1, 16, 16), torch.arange(400), "unclipped_noise", 1.0)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.15)
    flat = noise.flatten(1)
    off = torch.corrcoef(flat[:60]).fill_diagonal_(0).abs().max()
    assert float(off) < 0.35  # 1,770 pairs of 256 numbers: 5 standard deviations
    assert not flat[0].equal(corrupt(torch.zeros(1, 1, 16, 16), torch.tensor([0]), "unclipped_noise", 1.0, seed=1)[0])


def test_uniform_numbers_fill_the_interval() -> None:
    numbers = random_uniform(torch.arange(1000), 50, 3)
    counts = torch.histc(numbers, 20, 0, 1)
    assert float(numbers.min()) > 0
    assert float(numbers.max()) < 1
    assert bool(((counts - 2500).abs() < 5 * 2500**0.5).all())
    assert len(numbers.flatten().unique()) > 49_000


def test_corruptions_by_hand() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 0, 2] = 1.0
    turned = corrupt(image, torch.tensor([0]), "rotation", 90)
    assert turned[0, 0].round().nonzero().tolist() in ([[2, 0]], [[2, 4]])
    brighter = corrupt(image, torch.tensor([0]), "brightness", 0.25)
    torch.testing.assert_close(brighter, (image + 0.25).clamp(0, 1))
    flat = corrupt(image, torch.tensor([0]), "contrast", 1.0)
    torch.testing.assert_close(flat, torch.full_like(image, 1 / 25))
    blurred = corrupt(torch.full((1, 2, 8, 8), 0.3), torch.tensor([0]), "blur", 0.2)
    torch.testing.assert_close(blurred, torch.full((1, 2, 8, 8), 0.3))
    covered = corrupt(torch.zeros(9, 1, 8, 8), torch.arange(9), "occlusion", 0.5)
    assert (covered == 0.5).sum((1, 2, 3)).tolist() == [16] * 9
    assert len({str(c) for c in covered}) > 3, "the square lies elsewhere in each image"
    impulse = corrupt(torch.full((50, 1, 10, 10), 0.5), torch.arange(50), "impulse", 0.2)
    assert float((impulse != 0.5).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert set(impulse.unique().tolist()) == {0.0, 0.5, 1.0}
    coarse = corrupt(IMAGES, INDEX, "pixelation", 0.5)
    torch.testing.assert_close(coarse[:, :, ::2, ::2], torch.nn.functional.avg_pool2d(IMAGES, 2), rtol=1e-5, atol=1e-6)


def test_other_datasets_are_brought_to_shape() -> None:
    assert fit_shape(torch.rand(2, 1, 28, 28), (3, 32, 32)).shape == (2, 3, 32, 32)
    grey = fit_shape(torch.rand(2, 3, 8, 8), (1, 8, 8))
    assert grey.shape == (2, 1, 8, 8)
    same = torch.rand(2, 3, 8, 8)
    assert fit_shape(same, (3, 8, 8)) is same


def test_wrong_kinds_and_strengths() -> None:
    with pytest.raises(ConfigError, match="no corruption 'fog'; there are noise"):
        corrupt(IMAGES, INDEX, "fog", 1)
    with pytest.raises(ConfigError, match=r"strength of noise must be at least 0 .* got -1"):
        corrupt(IMAGES, INDEX, "noise", -1)
    with pytest.raises(ConfigError, match=r"got 1\.5"):
        corrupt(IMAGES, INDEX, "contrast", 1.5)
