"""The check finds what is broken on purpose, disturbs nothing, and can be turned off."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_families import tiny_family
from torch import nn

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel, LoRA, check, completion_logprobs
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.language_models.forward import find_output_head, rope_limit
from surefoot.reasoning.rollouts import HFEngine, Sampling, VLLMEngine, VLLMServerEngine, hf
from surefoot.reasoning.sequences import PromptCompletion, Segment, attention, pack_sequences

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*meta:UserWarning"
)


def build(model: Any, **arguments: Any) -> LanguageModel:
    return LanguageModel(model, digit_tokenizer(), **arguments)


def weakened(name: str, argument_index: int, value: Any) -> Callable[..., Any]:
    """Return a function of the attention module with one of its arguments replaced."""
    function = getattr(attention, name)

    def broken(*arguments: Any) -> Any:
        changed = list(arguments)
        changed[argument_index] = value(arguments[argument_index]) if callable(value) else value
        return function(*changed)

    return broken


#: For each family, what is broken: the function, its argument and what becomes of it.
FAULTS = {
    "softcap dropped": ("gemma2", "_attend", 6, None),
    "sinks dropped": ("gpt_oss", "_attend", 7, None),
    "window dropped": ("mistral", "_attend", 3, lambda mask: None),
    "chunks dropped": ("llama4_text", "_attend", 3, lambda mask: None),
    "scale of attention": ("llama", "_attend", 4, lambda scale: 0.98 * scale),
    "shared prompt not seen": ("qwen2", "_attend", 3, lambda m: m if m is None else m.tril()),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_broken_in_attention_is_found(fault: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family, name, argument_index, value = FAULTS[fault]
    monkeypatch.setattr(attention, name, weakened(name, argument_index, value))
    if large:  # as models are checked that are too large for a copy, in half precision too
        monkeypatch.setattr(check, "MOST_COPIED", 0)
    model = tiny_family(family).to(torch.bfloat16 if large else torch.float32)
    with pytest.warns(UserWarning, match=rf"{family} cannot be packed \(a log-probability differs by"):
        assert not build(model).path.packed


@pytest.mark.parametrize(
    ("family", "expected"),
    [("granite", (1, 1 / 3, 0)), ("gemma2", (1, 1, 3.0)), ("cohere", (1, 0.3, 0))],
)
def test_what_follows_the_head_is_found_out(family: str, expected: tuple[Any, ...]) -> None:
    head = find_output_head(tiny_family(family), torch.arange(3, 9)[None])
    assert head is not None
    assert (head.before, head.scale, head.softcap or 0) == pytest.approx(expected, rel=1e-6)


class Biased(nn.Module):
    """A head after which more is done than a scale and a soft cap."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model.forward
        self.shift = torch.linspace(-3, 3, 60)

    def forward(self, **arguments: Any) -> Any:
        output = self.inner(**arguments)
        output.logits = output.logits + self.shift
        return output


def test_what_is_not_understood_after_the_head_is_left_to_the_model() -> None:
    model = tiny_family("llama")
    model.forward = Biased(model).forward
    with pytest.warns(UserWarning, match="its logits do not follow from its hidden states"):
        path = build(model).path
    assert (path.packed, path.head) == (False, None)


def test_a_model_that_looks_ahead_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
    )
    with pytest.raises(ConfigError, match=r"bert is not supported: .* differs by [\d.]+ nats"):
        build(BertLMHeadModel(config))


@pytest.mark.parametrize("copied", [10**7, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lora", [None, LoRA(rank=2, dropout=0.5)])
def test_nothing_is_disturbed(
    copied: int, dtype: torch.dtype, lora: LoRA | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_COPIED", copied)
    model = tiny_family("gemma2").to(dtype)
    model.train()
    model.model.layers[0].eval()
    before = {n: (p, p.clone(), p.data_ptr()) for n, p in model.named_parameters()}
    modes = {id(m): m.training for m in model.modules()}
    config = copy.deepcopy(model.config.to_dict())
    state = torch.get_rng_state()
    built = build(model, lora=lora)
    if lora is None:
        assert torch.get_rng_state().equal(state)
    assert built.path.packed
    assert model.config.to_dict() == config
    for module in built.base.modules():
        assert modes.get(id(module), True) == module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    own = {n.replace(".base_layer", ""): p for n, p in built.base.named_parameters()}
    for name, (parameter, value, pointer) in before.items():
        assert own[name] is parameter
        assert (parameter.data_ptr(), parameter.dtype, parameter.grad) == (pointer, dtype, None)
        assert parameter.equal(value)


def test_the_check_can_be_turned_off_and_says_so() -> None:
    with pytest.warns(UserWarning, match="granite is not checked"):
        model = build(tiny_family("granite"), check_forward=False)
    assert model.path.packed
    with pytest.raises(ConfigError, match=r"falcon cannot be packed .*: it needs the check"):
        build(tiny_family("falcon"), check_forward=False)


def test_a_model_without_weights_is_refused() -> None:
    with torch.device("meta"):
        model = tiny_family("llama")
    with pytest.raises(ConfigError, match="the model has no weights yet"):
        build(model)


@pytest.mark.parametrize("size", [2, 7, 100_000])
def test_vocabularies_of_any_size_are_checked(size: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    assert build(LlamaForCausalLM(config)).path.packed


def pack_of(model: LanguageModel, *lengths: int) -> tuple[Any, list[torch.Tensor]]:
    """Return a pack of sequences with these lengths, and what the model's own forward pass says of each."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 60, (n,), generator=generator).tolist() for n in lengths]
    (pack,) = pack_sequences([PromptCompletion(r[:2], r[2:]) for r in rows], 1000)
    own = [
        model.base(input_ids=torch.tensor([r]), use_cache=False)
        .logits[0, 1:-1]
        .log_softmax(-1)
        .gather(1, torch.tensor(r[2:])[:, None])[:, 0]
        for r in rows
    ]
    return pack, own


def long_positions() -> Any:
    """Return a Phi-3 whose long rotary factors set in beyond 16 tokens."""
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        original_max_position_embeddings=16,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
    )
    torch.manual_seed(0)
    plain = Phi3ForCausalLM(config).eval()
    with torch.no_grad():
        for p in plain.parameters():
            if p.dim() > 1:
                p.copy_(torch.randn(p.shape) / p.shape[-1] ** 0.5)
    return plain


def test_positions_that_depend_on_the_longest_sequence_depend_on_the_own_one_only() -> None:
    """A sequence of 8 beside one of 30 keeps the short factors."""
    plain = long_positions()
    assert rope_limit(plain.config) == 16
    model = build(plain)
    assert model.path.packed
    pack, own = pack_of(model, 30, 8)
    torch.testing.assert_close(model.score(pack).logprobs, pack.gather(own), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [(5, 6), (4, 20), (20, 30)])
def test_positions_that_depend_on_the_length_are_sampled_as_they_are_scored(
    lengths: tuple[int, ...],
) -> None:
    model = build(long_positions())
    engine = HFEngine()
    engine.start(model)
    prompts = [list(range(3, 3 + n)) for n in lengths]
    found = engine.generate(prompts, Sampling(n=2, max_tokens=10), list(range(len(prompts))))
    pairs = [(p, c) for p, own in zip(prompts, found, strict=True) for c in own]
    scored = completion_logprobs(model, [PromptCompletion(p, c.tokens) for p, c in pairs], 100)
    for (_, completion), ours in zip(pairs, scored, strict=True):
        torch.testing.assert_close(torch.tensor(completion.logprobs), ours, rtol=1e-4, atol=1e-4)


def test_a_completion_that_could_change_its_positions_is_refused() -> None:
    engine = HFEngine()
    engine.start(build(long_positions()))
    with pytest.raises(ConfigError, match="rotary positions are others beyond 16 tokens"):
        engine.generate([[5] * 4, [5] * 7], Sampling(max_tokens=10))


@pytest.mark.parametrize("engine", [VLLMEngine, VLLMServerEngine])
def test_vllm_s_positions_of_one_length_are_refused(engine: Any) -> None:
    model = build(long_positions())
    with pytest.raises(ConfigError, match="phi3 others beyond 16 tokens: set max_model_length to"):
        engine(max_model_length=17).start(model)
    model.base.config.rope_parameters["rope_type"] = "dynamic"
    with pytest.raises(ConfigError, match="phi3 others beyond 16 tokens: use HFEngine"):
        engine(max_model_length=16).start(model)


def test_a_cache_that_changes_the_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each token that is sampled stood one position too far."""
    plain = hf.CachedDecoding.append

    def shifted(self: Any, rows: Any, tokens: Any) -> None:
        self.positions = self.positions + 1
        plain(self, rows, tokens)

    model, engine = build(tiny_family("llama")), HFEngine()
    monkeypatch.setattr(hf.CachedDecoding, "append", shifted)
    with pytest.warns(UserWarning, match="llama is sampled without a cache, .* differs by"):
        engine.start(model)
    prompt = list(range(3, 12))
    (completion,) = engine.generate([prompt], Sampling(max_tokens=6), [1])[0]
    (ours,) = completion_logprobs(model, [PromptCompletion(prompt, completion.tokens)], 100)
    torch.testing.assert_close(torch.tensor(completion.logprobs), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_dropout_of_attention_acts_in_training_and_keeps_the_mean(family: str) -> None:
    """Attention is linear in the values: with one layer alone, its output's mean is that without dropout."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 6, 8, generator=generator)
    module = nn.Module()
    segment = Segment(0, 6, None)
    from transformers.masking_utils import causal_mask_function

    mask = attention.PackMask(
        attention.PackLayout([segment], q.device),
        mask_function=causal_mask_function,
        allow_is_causal_skip=True,
    )
    special: dict[str, Any] = {
        "llama": {},
        "gemma2": {"softcap": 2.0},
        "gpt_oss": {"s_aux": torch.ones(2)},
    }[family]
    torch.manual_seed(0)
    (clean, _), *dropped = (
        attention.packed_attention(module, q, k, v, mask, dropout=p, **special) for p in [0.0] + [0.3] * 400
    )
    outputs = torch.stack([d for d, _ in dropped])
    assert float(outputs.std(0).mean()) > 0.1
    error = (outputs.mean(0) - clean).abs() / (outputs.std(0) / 20 + 1e-6)
    assert float(error.max()) < 5


def test_dropout_of_attention_arrives_from_the_config() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.5,
    )
    model = build(LlamaForCausalLM(config))
    pack = pack_of(model.eval(), 12)[0]
    assert model.score(pack).logprobs.equal(model.score(pack).logprobs)
    model.train()
    assert not model.score(pack).logprobs.equal(model.score(pack).logprobs)


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "mistral", "stablelm"])
def test_the_plain_forward_pass_and_recomputation_keep_what_attention_does(family: str) -> None:
    plain = tiny_family(family)
    plain.set_attn_implementation("eager")
    model = build(copy.deepcopy(plain), gradient_checkpointing=True)
    ids = torch.arange(3, 30)[None]
    torch.testing.assert_close(model.base(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
    pack, _ = pack_of(model, 14, 5)
    gradients = []
    for checkpointing in (False, True):
        model.eval()
        if checkpointing:
            model.training_mode(dropout=False)
        parts = torch.autograd.grad(model.score(pack).logprobs.sum(), list(model.parameters()), allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in parts if g is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_an_unknown_argument_of_attention_and_a_lost_mask_are_refused() -> None:
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(ConfigError, match="does not know the argument head_bias"):
        attention.packed_attention(nn.Module(), q, q, q, None, head_bias=1.0)
    layout = attention.PackLayout([Segment(0, 3, None)], q.device)
    with (
        attention.packed_forward(layout),
        pytest.raises(ConfigError, match="mask does not reach attention"),
    ):
        attention.packed_attention(nn.Module(), q, q, q, None)


def test_a_model_that_cannot_be_packed_samples_and_trains() -> None:
    with pytest.warns(UserWarning, match="mamba cannot be packed"):
        model = build(tiny_family("mamba"))
    pack, own = pack_of(model, 9, 6)
    weights = torch.linspace(-1, 1, len(pack.targets))
    loss = model.weighted_logprob_sum(pack, weights)
    torch.testing.assert_close(loss, (weights * pack.gather(own)).sum())
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    HFEngine().start(model)
