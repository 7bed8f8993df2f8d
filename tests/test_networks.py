import pytest
import torch

from surefoot.errors import ConfigError
from surefoot.networks import (
    MLP,
    ChannelStatistics,
    Classifier,
    Encoder,
    Flatten,
    SmallCNN,
    TimmEncoder,
    TransformersEncoder,
)


@pytest.mark.parametrize(
    "encoder",
    [
        Flatten(192),
        MLP(192, (5,)),
        SmallCNN(3, (4, 6)),
        ChannelStatistics(),
        TimmEncoder("resnet10t"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_encoders_keep_their_word_about_features(encoder: Encoder) -> None:
    logits, features = Classifier(encoder.eval(), 4)(torch.rand(2, 3, 8, 8))
    assert features.shape == (2, encoder.n_features)
    assert logits.shape == (2, 4)


def test_text_encoder() -> None:
    config = {"vocab_size": 30, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    encoder = TransformersEncoder("distilbert", pretrained=False, config=config)
    tokens = {
        "input_ids": torch.randint(0, 30, (2, 5)),
        "attention_mask": torch.ones(2, 5, dtype=torch.long),
    }
    assert encoder(tokens).shape == (2, encoder.n_features)


def test_unknown_timm_model_is_named() -> None:
    with pytest.raises(ConfigError, match="timm has no model 'resnot'"):
        TimmEncoder("resnot")
    with pytest.raises(ConfigError, match="widths"):
        MLP(4, ())


def test_colour_statistics_see_nothing_but_colour() -> None:
    image = torch.rand(1, 3, 8, 8)
    shuffled = image.flatten(2)[:, :, torch.randperm(64)].reshape(image.shape)
    torch.testing.assert_close(
        ChannelStatistics()(image), ChannelStatistics()(shuffled), rtol=1e-5, atol=1e-6
    )
