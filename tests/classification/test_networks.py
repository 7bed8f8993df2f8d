import pytest
import timm
import torch

from surefoot.classification.networks import (
    MLP,
    ChannelStatistics,
    Classifier,
    Encoder,
    Flatten,
    SmallCNN,
)
from surefoot.classification.pretrained_encoders import TimmEncoder, TransformersEncoder
from surefoot.errors import ConfigError, DataError


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


TIMM = (
    *(
        "resnet10t",
        "mobilenetv3_small_050",
        "mobilenetv4_conv_small_035",
        "hgnetv2_b0",
        "lcnet_035",
    ),
    *("efficientvit_b0", "tinynet_e", "starnet_s050", "test_vit", "xcit_nano_12_p16_224"),
)
HEAVY = (
    *("vgg11", "vgg11_bn", "hgnet_tiny", "hardcorenas_a", "ghostnet_050", "repghostnet_050"),
    *("inception_next_atto", "mambaout_femto", "edgenext_xx_small", "mobilevit_xxs", "fastvit_t8"),
    *("levit_128s", "efficientformerv2_s0", "densenet121", "swin_tiny_patch4_window7_224"),
    *("convnext_atto", "efficientnet_b0", "crossvit_tiny_240", "coat_lite_tiny", "cait_xxs24_224"),
    *("tnt_s_patch16_224", "mvitv2_tiny", "hieradet_small", "beit_base_patch16_224", "nfnet_l0"),
    *("regnetx_002", "mixer_s32_224", "poolformer_s12", "dla34", "visformer_tiny", "rexnetr_200"),
    *(
        "maxvit_rmlp_pico_rw_256",
        "gcvit_xxtiny",
        "davit_tiny",
        "volo_d1_224",
        "vit_tiny_patch16_224",
    ),
)


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(n, marks=pytest.mark.slow) for n in HEAVY)])
def test_the_width_of_a_timm_model_is_what_it_returns(name: str) -> None:
    """Seven and more families return another width than their `num_features`."""
    before = torch.get_rng_state()
    torch.manual_seed(0)
    encoder = TimmEncoder(name)
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0)
    assert torch.get_rng_state().equal(drawn), "finding the width draws nothing"
    torch.set_rng_state(before)
    for key, value in plain.state_dict().items():
        assert encoder.body.state_dict()[key].equal(value), f"{key} is as timm made it"
    assert all(m.training for m in encoder.modules())
    classifier = Classifier(encoder.eval(), 4)
    with torch.no_grad():
        logits, features = classifier(torch.rand(2, *encoder.image_shape))
    assert features.shape == (2, encoder.n_features)
    assert logits.shape == (2, 4)


def test_images_that_a_timm_model_cannot_take_are_named() -> None:
    vit = TimmEncoder("vit_tiny_patch16_224", arguments={"depth": 1, "img_size": 32})
    assert vit(torch.rand(2, 3, 32, 32)).shape == (2, vit.n_features)
    with pytest.raises(ConfigError, match=r"made for images of 3x32x32 and cannot take 3x48x48"):
        vit(torch.rand(2, 3, 48, 48))
    with pytest.raises(ConfigError, match=r"cannot take 1x176x176 \(.*\): .*in_channels"):
        TimmEncoder("resnet10t")(torch.rand(2, 1, 176, 176))
    assert TimmEncoder("resnet10t", in_channels=1)(torch.rand(2, 1, 64, 64)).shape == (2, 512)
    with pytest.raises(ConfigError, match="img_size"):
        TimmEncoder("vit_tiny_patch16_224", arguments={"depth": 1, "img_size": 7})


@pytest.mark.parametrize("pooling", ["", "avg"])
def test_maps_and_tokens_are_no_features(pooling: str) -> None:
    if pooling:
        assert TimmEncoder("resnet10t", arguments={"global_pool": pooling}).n_features == 512
        return
    with pytest.raises(ConfigError, match=r"returns \(batch, 512, 6, 6\).*global_pool"):
        TimmEncoder("resnet10t", arguments={"global_pool": pooling})
    with pytest.raises(ConfigError, match=r"returns \(batch, 101, 64\).*global_pool"):
        TimmEncoder("test_vit", arguments={"global_pool": pooling})


def test_what_timm_cannot_make_or_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"pretrained weights of resnet10t .* set pretrained to fal"):
        TimmEncoder("resnet10t", pretrained=True)
    with pytest.raises(ConfigError, match="No pretrained weights exist for starnet_s050"):
        TimmEncoder("starnet_s050", pretrained=True)
    with pytest.raises(ConfigError, match="Invalid pretrained tag"):
        TimmEncoder("resnet10t.none", pretrained=True)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'colour'"):
        TimmEncoder("resnet10t", arguments={"colour": 1})


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "opt",
            {"hidden_size": 32, "word_embed_proj_dim": 8, "ffn_dim": 8, "num_attention_heads": 2},
        ),
        ("electra", {"embedding_size": 8, "hidden_size": 16, "intermediate_size": 8}),
    ],
)
def test_the_width_of_a_text_encoder_is_what_it_returns(name: str, config: dict[str, int]) -> None:
    small = {"vocab_size": 30, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    encoder = TransformersEncoder(name, pretrained=False, config=small | config).eval()
    ids = torch.randint(0, 30, (2, 5))
    features = encoder({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert features.shape == (2, encoder.n_features)


def test_what_is_no_text_encoder_is_one_line() -> None:
    with pytest.raises(ConfigError, match="vit is no text encoder"):
        TransformersEncoder("vit", pretrained=False, config={"num_hidden_layers": 1})
    with pytest.raises(ConfigError, match="distilbert cannot be made with the changes"):
        TransformersEncoder("distilbert", pretrained=False, config={"dim": 15, "n_heads": 4})


def test_unknown_timm_model_is_named() -> None:
    with pytest.raises(ConfigError, match="timm has no model 'resnot'"):
        TimmEncoder("resnot")
    with pytest.raises(ConfigError, match="widths"):
        MLP(4, ())


def test_colour_statistics_see_nothing_but_colour() -> None:
    image = torch.rand(1, 3, 8, 8)
    shuffled = image.flatten(2)[:, :, torch.randperm(64)].reshape(image.shape)
    torch.testing.assert_close(ChannelStatistics()(image), ChannelStatistics()(shuffled), rtol=1e-5, atol=1e-6)
