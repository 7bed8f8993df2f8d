"""Encoders with tokens: pooled, they are the features; replaced tokens are not seen; one fit hands them to the next."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import Fit, from_weights, tiny
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.classification import CheckpointEncoder
from surefoot.classification.networks import SmallCNN
from surefoot.classification.pretrained_encoders import TimmEncoder, TransformersEncoder
from surefoot.classification.token_encoder import Replacement, TokenEncoder
from surefoot.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

TEXT = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "albert": {"hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 32},
    "electra": {"hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 32},
}
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
#: Model, arguments, tokens before the 16 patches
IMAGES = (
    ("vit_tiny_patch16_224", SMALL, 1),
    ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg"}, 1),
    ("vit_tiny_patch16_224", SMALL | {"dynamic_img_size": True}, 1),
    ("vit_small_patch16_dinov3", SMALL, 5),
    ("deit_tiny_distilled_patch16_224", SMALL, 2),
    ("beit_base_patch16_224", SMALL, 1),
)


def text_encoder(kind: str = "bert") -> TransformersEncoder:
    torch.manual_seed(0)
    return TransformersEncoder(kind, pretrained=False, config=TEXT[kind] | {"vocab_size": 30}).eval()


def texts() -> dict[str, Tensor]:
    """Return three texts of 7, 4 and 2 tokens."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    return {"input_ids": torch.randint(3, 30, (3, 7), generator=generator) * mask, "attention_mask": mask.long()}


def image_encoder(name: str = "vit_tiny_patch16_224", arguments: Any = None) -> TimmEncoder:
    torch.manual_seed(0)
    return TimmEncoder(name, arguments=SMALL if arguments is None else arguments).eval()


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", TEXT)
def test_pooled_texts_are_the_first_tokens_last_hidden_states(kind: str) -> None:
    encoder, batch = text_encoder(kind), texts()
    tokens = encoder.tokens(batch)
    assert tokens.features.shape == (3, 7, encoder.width) == (3, 7, 16)
    assert tokens.mask.equal(batch["attention_mask"] == 1)
    expected = encoder.body(**batch).last_hidden_state
    assert tokens.features.equal(expected)
    assert encoder(batch).equal(expected[:, 0])
    assert encoder.pool(tokens).equal(expected[:, 0])
    assert encoder.embeddings.weight.shape == (30, encoder.embedding_width)
    alone = encoder.tokens({name: part[2:, :2] for name, part in batch.items()})
    torch.testing.assert_close(tokens.features[2:, :2], alone.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "arguments", "n_prefix"), IMAGES)
def test_pooled_patches_are_the_model_s_features(name: str, arguments: dict[str, Any], n_prefix: int) -> None:
    encoder, batch = image_encoder(name, arguments), images()
    torch.manual_seed(0)
    expected = timm.create_model(name, num_classes=0, **arguments).eval()
    expected.load_state_dict(encoder.body.state_dict())
    assert (encoder.width, encoder.embedding_width, encoder.n_prefix_tokens) == (24, 24, n_prefix)
    assert encoder.grid == (4, 4)
    tokens = encoder.tokens(batch)
    assert tokens.features.shape == (2, n_prefix + 16, 24)
    assert tokens.mask.all()
    assert tokens.mask.shape == (2, n_prefix + 16)
    assert encoder(batch).equal(expected(batch))
    assert encoder.pool(tokens).equal(expected(batch))


ENCODERS = ("text", *range(len(IMAGES)))


def encoder_and_batch(which: Any) -> tuple[TokenEncoder, Any, int]:
    """Return an encoder, a batch and the number of its input's tokens."""
    if which == "text":
        return text_encoder("albert"), texts(), 7
    name, arguments, _ = IMAGES[which]
    return image_encoder(name, arguments), images(3), 16


@pytest.mark.parametrize("which", ENCODERS)
def test_replaced_tokens_are_not_seen_and_teach_the_replacement(which: Any) -> None:
    encoder, batch, n_tokens = encoder_and_batch(which)
    embedding = nn.Parameter(torch.randn(encoder.embedding_width))
    nothing = torch.zeros(3, n_tokens, dtype=torch.bool)
    assert encoder.tokens(batch, Replacement(nothing, embedding)).features.equal(encoder.tokens(batch).features)
    mask = nothing.clone()
    mask[:, 1] = mask[0, 0] = True
    found = encoder.tokens(batch, Replacement(mask, embedding)).features
    if which == "text":
        other = batch | {"input_ids": batch["input_ids"].masked_fill(mask, 5)}
    else:
        pixels = mask.reshape(3, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
        other = batch.masked_fill(pixels, 0.3)
    assert encoder.tokens(other, Replacement(mask, embedding)).features.equal(found)
    assert not encoder.tokens(other).features.equal(encoder.tokens(batch).features)
    found.square().sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.abs().sum() > 0
    assert encoder.tokens(batch).features.equal(encoder.tokens(batch).features), "the hook is gone"
    with pytest.raises(ValueError, match=rf"a replacement needs a mask \(3, {n_tokens}\) and an embedding"):
        encoder.tokens(batch, Replacement(mask[:, :-1], embedding))
    assert encoder.tokens(other).features.shape[0] == 3, "after an error too"


def test_masked_words_are_learned_on_the_encoder_of_a_classifier() -> None:
    """Masked language modelling with a tied head, beside a classifier's loss."""
    encoder, batch = text_encoder(), texts()
    head = nn.Linear(encoder.n_features, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
    masked = torch.zeros(3, 7, dtype=torch.bool)
    masked[:, 1] = True
    hidden_ids = batch | {"input_ids": batch["input_ids"].masked_fill(masked, 2)}
    losses = []
    for _ in range(40):
        tokens = encoder.tokens(hidden_ids)
        logits = tokens.features[masked & tokens.mask] @ encoder.embeddings.weight.T
        pretext = F.cross_entropy(logits, batch["input_ids"][masked])
        supervised = F.cross_entropy(head(encoder(batch)), torch.tensor([0, 1, 0]))
        optimizer.zero_grad()
        (pretext + supervised).backward()
        optimizer.step()
        losses.append((float(pretext), float(supervised)))
    assert losses[-1][0] < losses[0][0] / 4
    assert losses[-1][1] < losses[0][1] / 4


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda: TimmEncoder("resnet10t"), "resnet10t has no tokens: it embeds no patches"),
        (lambda: TimmEncoder("convnext_atto"), "convnext_atto has no tokens"),
        (
            lambda: TimmEncoder("swin_tiny_patch4_window7_224"),
            r"its last hidden states are \(7, 7, 768\), not one a patch",
        ),
    ],
)
def test_what_has_no_tokens_says_so_before_training(encoder: Any, message: str, wrapped: bool) -> None:
    built: TokenEncoder = encoder()
    built = CheckpointEncoder(built, None) if wrapped else built
    for ask in (lambda: built.width, lambda: built.embedding_width, lambda: built.tokens(images())):
        with pytest.raises(ConfigError, match=message) as error:
            ask()
        assert "\n" not in str(error.value)


def test_another_size_of_images_is_named() -> None:
    with pytest.raises(ConfigError, match=r"is made for images of 3x32x32 and cannot take 3x40x40"):
        image_encoder().tokens(torch.rand(2, 3, 40, 40))


def test_an_encoder_of_a_run_has_its_tokens_in_the_next(fit: Fit, tmp_path: Path) -> None:
    """As a plain encoder in ERM, whose weights a second stage takes over."""
    config = tiny()
    config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "callbacks": [], "limit_val_batches": 1}
    small = SMALL | {"img_size": 8, "patch_size": 4}
    arguments = {"name": "vit_tiny_patch16_224", "arguments": small}
    config["model"]["init_args"]["encoder"] = {"class_path": "TimmEncoder", "init_args": arguments}
    run = fit(config)
    trained = CheckpointEncoder(TimmEncoder(**arguments), run).eval()
    batch = torch.rand(2, 3, 8, 8)
    tokens = trained.tokens(batch)
    assert tokens.features.shape == (2, 5, trained.width)
    assert trained.n_prefix_tokens == 1
    assert trained.pool(tokens).equal(trained(batch))
    second = fit(from_weights(config, run), name="second")
    assert (second / "finished.json").is_file()
    plain = CheckpointEncoder(SmallCNN(), None)
    with pytest.raises(ConfigError, match="SmallCNN has no tokens: give a TransformersEncoder"):
        plain.tokens(batch)
