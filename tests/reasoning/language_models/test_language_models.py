"""Language models: saved folders load elsewhere, adapters merge, names that lead nowhere say so."""

from pathlib import Path

import pytest
import torch
from tiny_families import tiny_family

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models import (
    LanguageModel,
    LoRA,
    PretrainedLanguageModel,
    TinyLanguageModel,
    ValueHead,
)
from surefoot.reasoning.language_models.digit_tokenizer import ALPHABET, digit_tokenizer
from surefoot.reasoning.sequences import PromptCompletion, pack_sequences

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def small(**arguments: object) -> LanguageModel:
    return TinyLanguageModel(width=32, n_layers=2, n_heads=2, **arguments)  # type: ignore[arg-type]


def scores(model: LanguageModel) -> torch.Tensor:
    (pack,) = pack_sequences([PromptCompletion(model.encode("1+1="), model.encode("2;abc"))], 100)
    result: torch.Tensor = model.score(pack).logprobs
    return result.detach()


def test_the_digit_tokenizer_is_one_to_one() -> None:
    tokenizer = digit_tokenizer()
    ids = tokenizer(ALPHABET)["input_ids"]
    assert len(ids) == len(ALPHABET) == len(set(ids))
    assert tokenizer.decode(ids) == ALPHABET
    assert tokenizer("é")["input_ids"] == [tokenizer.unk_token_id]


def test_a_saved_folder_loads_in_transformers_and_here(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = small(seed=3)
    model.save(tmp_path / "model")
    loaded = PretrainedLanguageModel(str(tmp_path / "model"))
    torch.testing.assert_close(scores(loaded), scores(model), rtol=0, atol=0)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert plain.config.tie_word_embeddings
    text = "7*8-2=\n"
    assert AutoTokenizer.from_pretrained(tmp_path / "model").decode(loaded.encode(text)) == text
    assert (loaded.encode(text), loaded.eos_token_id) == (model.encode(text), model.eos_token_id)


def test_named_weights_name_tied_tensors_once() -> None:
    names = [n for n, _ in small().named_weights()]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names))


def test_lora_trains_little_and_merges(tmp_path: Path) -> None:
    model = small(lora=LoRA(rank=2, alpha=8.0))
    plain = small()
    torch.testing.assert_close(scores(model), scores(plain), rtol=1e-6, atol=1e-6)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < 0.2 * sum(p.numel() for p in plain.parameters())
    with torch.no_grad():
        for i, p in enumerate(trained):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    assert not torch.allclose(scores(model), scores(plain), atol=1e-2)
    assert {n for n, _ in model.named_weights()} == {n for n, _ in plain.named_weights()}
    model.save(tmp_path / "merged")
    loaded = PretrainedLanguageModel(str(tmp_path / "merged"))
    torch.testing.assert_close(scores(loaded), scores(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targets", [["lm_head"], ["lm_head", "q_proj", "embed_tokens"]])
def test_adapters_on_the_head_are_trained_scored_and_merged(targets: list[str], tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(lora: LoRA | None) -> LanguageModel:
        torch.manual_seed(0)
        tokenizer = digit_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
        return LanguageModel(LlamaForCausalLM(config), tokenizer, lora)

    model, plain = build(LoRA(rank=2, alpha=8.0, target_modules=targets)), build(None)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for i, p in enumerate(trained.values()):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    tokens = torch.tensor([model.encode("1+1=2;abc")])
    own = model.base(tokens).logits.log_softmax(-1)[0, 3:-1].gather(1, tokens[0, 4:, None])[:, 0]
    (pack,) = pack_sequences([PromptCompletion(model.encode("1+1="), model.encode("2;abc"))], 100)
    found = model.score(pack).logprobs
    torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.weighted_logprob_sum(pack, torch.ones(5)), own.sum())
    assert not torch.allclose(found, plain.score(pack).logprobs, atol=1e-2)
    expected, gradients = (torch.autograd.grad(x.sum(), list(trained.values())) for x in (own, found))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    assert all(bool(g.any()) for n, g in zip(trained, gradients, strict=True) if "lm_head" in n)
    assert {n for n, _ in model.named_weights()} == {n for n, _ in plain.named_weights()}
    model.save(tmp_path)
    merged = PretrainedLanguageModel(str(tmp_path))
    torch.testing.assert_close(merged.score(pack).logprobs, own, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("family", ["mixtral", "olmoe", "gpt2"])
def test_adapters_on_experts_and_transposed_layers_are_merged(family: str, tmp_path: Path) -> None:
    """Experts' weights are parameters of one module, which peft wraps once for each of them."""
    model = LanguageModel(tiny_family(family), digit_tokenizer(), LoRA(rank=2))
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if "lora_" in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    model.save(tmp_path)
    merged = PretrainedLanguageModel(str(tmp_path)).eval()
    torch.testing.assert_close(scores(merged), scores(model.eval()), rtol=1e-4, atol=1e-4)
    plain = LanguageModel(tiny_family(family), digit_tokenizer())
    assert not torch.allclose(scores(merged), scores(plain), atol=0.1)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_on_a_shared_head_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="llama shares one matrix between embedding and head"):
        small(lora=LoRA(target_modules=["q_proj", target]))


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    small(seed=1).save(tmp_path)
    gradients = []
    for checkpointing in (False, True):
        model = PretrainedLanguageModel(str(tmp_path), gradient_checkpointing=checkpointing).train()
        (pack,) = pack_sequences([PromptCompletion([5, 6], [7, 8, 9]), PromptCompletion([5, 6], [9])], 50)
        model.score(pack).logprobs.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*/nowhere: expected a saved model"):
        PretrainedLanguageModel(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no config\.json"):
        PretrainedLanguageModel(str(tmp_path / "empty"))
    small().save(tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be loaded"):
        PretrainedLanguageModel(str(tmp_path / "cut"))
    with pytest.raises(ConfigError, match=r"LoRA: .*nothing_like_it"):
        small(lora=LoRA(target_modules=["nothing_like_it"]))


@pytest.mark.slow
def test_the_bundled_model_speaks() -> None:
    from surefoot.reasoning.rollouts import HFEngine, Sampling

    model = PretrainedLanguageModel("smollm2-135m-instruct")
    assert 134e6 < sum(p.numel() for p in model.parameters()) < 135e6
    engine = HFEngine()
    engine.start(model)
    ((completion,),) = engine.generate(
        [model.encode("The capital of France is")], Sampling(temperature=0, max_tokens=3)
    )
    assert "Paris" in model.decode(completion.tokens)


def test_sequences_beyond_the_context_are_refused() -> None:
    model = TinyLanguageModel(width=16, n_heads=2, n_layers=1, max_length=24)
    assert model.context == 24
    fits = PromptCompletion([1] * 10, [2] * 15)  # the last token is only predicted
    both = [fits, PromptCompletion([1] * 10, [3] * 16)]
    model.score(pack_sequences([fits], 100)[0])
    (pack,) = pack_sequences(both, 100)
    assert pack.longest == 25, "the shared prompt counts for each of them"
    with pytest.raises(DataError, match=r"25 tokens or more does not fit .* context of 24"):
        model.score(pack)


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_of_its_own_is_frozen_and_a_shared_one_is_not(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=90, tie_word_embeddings=tied, **sizes)
    model = LanguageModel(LlamaForCausalLM(config), digit_tokenizer())
    model.freeze_output_head()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == (set() if tied else {"model.lm_head.weight"})


def test_values_start_at_zero_and_are_float32_in_half_precision() -> None:
    head = ValueHead(8)
    hidden = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert not head(hidden).any()
    torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(1))
    head.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = head(hidden)
    expected = hidden.float() @ head.linear.weight.float()[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
