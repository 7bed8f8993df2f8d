"""Every family's log-probabilities and gradients are the model's own, packed or not; or it is refused."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_families import (
    EQUAL,
    FALLS_BACK,
    REFUSED,
    TRANSFORMERS,
    outcome,
    tiny_family,
)
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel, ValueHead, completion_logprobs
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.rollouts import HFEngine, Sampling
from surefoot.reasoning.sequences import PromptCompletion, pack_sequences
from surefoot.reasoning.values.growing import GrowingValues

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
#: Checked by default; the others are slow only because they are many.
OFTEN = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "phi3",
    "gemma2",
    "gemma3_text",
    "gpt_oss",
    "granite",
    "cohere2",
    "gpt2",
    "stablelm",
    "nemotron",
    "phi",
    "opt",
    "llama4_text",
    "falcon",
    "lfm2",
    "mamba",
    "bert-generation",
    "moshi",
    "xlnet",
)
ALL = [*EQUAL, *FALLS_BACK, *REFUSED]
#: Families whose own forward pass with a cache differs from that without one: they are sampled without.
CACHE_DIFFERS = ("moshi",)
#: Families whose masks look up tokens by their number in the pass.
KEPT_KEYS_DIFFER = ("gemma4_unified",)
#: How far gradients may differ, of the largest element, where it is not 1e-5: norms in float32, and in float64 5e-6.
COARSE = {"gemma4": 3e-5, "gemma4_text": 3e-5}
FAMILIES = [pytest.param(n, marks=[] if n in OFTEN else pytest.mark.slow) for n in ALL]


def random_tokens(n: int, seed: int) -> list[int]:
    return torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


SHARED = random_tokens(7, 1)
SEQUENCES = [
    PromptCompletion(SHARED, random_tokens(12, 2)),
    PromptCompletion(SHARED, random_tokens(1, 3)),
    PromptCompletion(SHARED, random_tokens(5, 4), [True, False, True, True, False]),
    PromptCompletion(random_tokens(2, 5), random_tokens(20, 6)),
    PromptCompletion(random_tokens(3, 7), random_tokens(4, 8)),
]


def build(model_type: str) -> tuple[LanguageModel, Any, str]:
    """Return the model, a copy that computes as its family does by itself, and what was said when it was built."""
    plain = tiny_family(model_type)
    plain.set_attn_implementation("eager")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = LanguageModel(copy.deepcopy(plain), digit_tokenizer())
    return model, plain, " ".join(str(w.message) for w in said)


def own_scores(plain: Any) -> Tensor:
    """Score each sequence alone by the model's own forward pass."""
    scored = []
    for s in SEQUENCES:
        ids = torch.tensor([[*s.prompt, *s.completion]])
        logits = plain(input_ids=ids, use_cache=False).logits[0, len(s.prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(1, ids[0, len(s.prompt) :, None])[:, 0]
        scored.append(own if s.mask is None else own[torch.tensor(s.mask)])
    return torch.cat(scored)


def our_scores(model: LanguageModel, max_tokens: int) -> Tensor:
    found = {}
    for pack in pack_sequences(SEQUENCES, max_tokens):
        values: Any = model.score(pack)
        keys = zip(pack.sequences.tolist(), pack.completion_positions.tolist(), strict=True)
        found |= dict(zip(keys, values.logprobs, strict=True))
    return torch.stack([found[k] for k in sorted(found)])


def scores_from_hidden_states(model: LanguageModel, otherwise: Tensor) -> Tensor:
    """Put the head on the hidden states of packs that keep last tokens; where there are none, they are refused."""
    (pack,) = pack_sequences(SEQUENCES, 1000, keep_last=True)
    head = model.path.head
    if head is None:
        with pytest.raises(ConfigError, match="has no hidden states that its logits are known to follow from"):
            model.hidden_states(pack)
        return otherwise
    hidden = model.hidden_states(pack)
    assert hidden.shape == (len(pack.tokens), model.width)
    output: Any = model.base.get_output_embeddings()
    logits = head.scale * output(head.before * pack.at_predictors(hidden))
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    found = logits.log_softmax(1).gather(1, pack.targets[:, None])[:, 0]
    return found[(pack.sequences * 1000 + pack.completion_positions).argsort()]


def gradient(module: Any, scores: Tensor) -> Tensor:
    parameters = [p for p in module.parameters() if p.requires_grad]
    total = (scores * torch.linspace(-1, 1, len(scores))).sum()
    parts = torch.autograd.grad(total, parameters, allow_unused=True)
    pairs = zip(parts, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_log_probabilities_and_gradients_are_the_models_own(model_type: str) -> None:
    if outcome(model_type) == "refused":
        with pytest.raises(ConfigError, match=r"is not supported: .* differs by .* nats"):
            build(model_type)
        return
    model, plain, said = build(model_type)
    assert model.path.packed == (outcome(model_type) == "equal"), said
    assert ("cannot be packed" in said) == (not model.path.packed)
    expected = own_scores(plain)
    reference = gradient(plain, expected)
    for max_tokens in (25, 1000):
        found = our_scores(model, max_tokens)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        ours = gradient(model, found)
        bound = COARSE.get(model_type, 1e-5) * float(reference.abs().max())
        torch.testing.assert_close(ours, reference, rtol=0, atol=bound)
    torch.testing.assert_close(scores_from_hidden_states(model, expected), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_the_engine_samples_is_scored_alike(model_type: str) -> None:
    """Prompts of several lengths in one batch, longer than the window together with what is sampled."""
    if outcome(model_type) == "refused":
        return
    model = build(model_type)[0]
    engine = HFEngine()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        engine.start(model)
    differs = ["is sampled without a cache" in str(w.message) for w in said]
    assert any(differs) == (model_type in CACHE_DIFFERS)
    prompts = [random_tokens(n, n) for n in (3, 5, 11)]
    sampled = engine.generate(prompts, Sampling(n=2, max_tokens=9), seeds=[1, 2, 3])
    pairs = [(p, c) for p, own in zip(prompts, sampled, strict=True) for c in own]
    scored = completion_logprobs(model, [PromptCompletion(p, c.tokens) for p, c in pairs], 100)
    for (_, completion), ours in zip(pairs, scored, strict=True):
        torch.testing.assert_close(torch.tensor(completion.logprobs), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", [*FAMILIES, "gemma4_unified"])
def test_what_sequences_begin_with_is_computed_once(model_type: str) -> None:
    """Sequences that grow past the window in three passes: values are those of one pass of the model's own."""
    if outcome(model_type) == "refused":
        return
    model, plain, _ = build(model_type)
    head = ValueHead(model.width)
    torch.nn.init.normal_(head.linear.weight, std=model.width**-0.5, generator=torch.Generator().manual_seed(0))
    growing = GrowingValues(model, head, 1000, 2.0**40)
    whole = [[*s.prompt, *s.completion] for s in SEQUENCES]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        continues = model.can_continue(max(map(len, whole)))
    assert continues == (model.path.packed and model_type not in KEPT_KEYS_DIFFER)
    assert any("does not go on from kept keys" in str(w.message) for w in said) == (model_type in KEPT_KEYS_DIFFER)
    if not model.path.packed:
        with pytest.raises(ConfigError, match=r"keep no keys of it|has no hidden states"):
            growing(whole)
    if not continues:
        return
    for n in (3, 12, 30):
        begun = [tokens[:n] for tokens in whole]
        for tokens, values in zip(begun, growing(begun), strict=True):
            with torch.no_grad():
                hidden = plain.get_submodule(model.path.head.body)(torch.tensor([tokens])).last_hidden_state[0]
                torch.testing.assert_close(values, head(hidden).sigmoid(), rtol=1e-5, atol=1e-5)
    assert growing.n_tokens == len({tuple(t[: i + 1]) for t in whole for i in range(len(t))})


def test_the_table_holds_for_the_release_that_is_installed() -> None:
    assert transformers.__version__ == TRANSFORMERS, "measure tests/tiny_families.py again"
    assert len(ALL) == len(set(ALL))
    assert len(EQUAL) + len(FALLS_BACK) >= 110


def test_the_documentation_lists_the_table() -> None:
    text = (Path(__file__).parents[3] / "docs/reasoning.md").read_text()
    assert f"transformers {TRANSFORMERS}" in text
    for name, families in (("equal", EQUAL), ("falls back", FALLS_BACK), ("refused", REFUSED)):
        (row,) = re.findall(rf"^\| {name} \| (.*) \|$", text, re.MULTILINE)
        assert row.split(", ") == families
