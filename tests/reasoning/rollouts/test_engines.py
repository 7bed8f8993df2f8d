"""One conformance suite for every engine: the reference engine always, the others in a process of their own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sharp_models import CONFIGURED, prompts, sharp_model

from surefoot.errors import ConfigError, SurefootError
from surefoot.reasoning.language_models import LanguageModel, LoRA
from surefoot.reasoning.rollouts import (
    EngineStatistics,
    HFEngine,
    RayEngine,
    RolloutEngine,
    Sampling,
    VLLMEngine,
    VLLMServerEngine,
)
from surefoot.reasoning.rollouts.hf import sampling_distribution
from surefoot.reasoning.sequences import PromptCompletion, pack_sequences

pytestmark = pytest.mark.filterwarnings("ignore")

ENGINES = {
    "HFEngine": lambda: HFEngine(max_sequences=8),
    "VLLMEngine": lambda: VLLMEngine(max_model_length=256),
    "VLLMEngine-own-process": lambda: VLLMEngine(max_model_length=256, in_process=False),
    "VLLMServerEngine": lambda: VLLMServerEngine(max_model_length=256),
    "RayEngine": lambda: RayEngine(HFEngine(), n_workers=2, batch_size=2),
}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return sharp_model(0)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name == "HFEngine" else [pytest.mark.slow, pytest.mark.timeout(600)])
        for name in ENGINES
    ],
)
def engine(request: pytest.FixtureRequest, model: LanguageModel) -> Iterator[RolloutEngine]:
    engine = ENGINES[request.param]()
    engine.start(model, version=7)
    yield engine
    engine.close()


def greedy_reference(model: LanguageModel, prompt: list[int], n: int) -> list[int]:
    """Decode with a whole forward pass per token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(n):
            ids.append(int(model.base(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in model.stop_token_ids:
                break
    return ids[len(prompt) :]


GREEDY = Sampling(temperature=0.0, max_tokens=24)


def test_greedy_is_the_model_s_own_argmax(engine: RolloutEngine, model: LanguageModel) -> None:
    found = engine.generate(prompts(model), GREEDY)
    for prompt, (completion,) in zip(prompts(model), found, strict=True):
        assert completion.tokens == greedy_reference(model, prompt, 24)
        assert completion.version == 7
        stopped = completion.tokens[-1] in model.stop_token_ids
        assert completion.finish_reason == ("stop" if stopped else "length")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_trainer(engine: RolloutEngine, model: LanguageModel, temperature: float) -> None:
    sampling = Sampling(n=3, temperature=temperature, max_tokens=16)
    found = engine.generate(prompts(model), sampling, list(range(5)))
    assert [len(r) for r in found] == [3] * 5
    pairs = [(p, c) for p, r in zip(prompts(model), found, strict=True) for c in r]
    (pack,) = pack_sequences([PromptCompletion(p, c.tokens) for p, c in pairs], 10_000)
    with torch.no_grad():
        trainer = model.score(pack, temperature).logprobs
    engine_s = pack.gather([torch.tensor(c.logprobs) for _, c in pairs])
    torch.testing.assert_close(engine_s, trainer, rtol=0, atol=1e-3)


def test_a_seed_decides_whatever_else_is_in_the_batch(engine: RolloutEngine, model: LanguageModel) -> None:
    sampling = Sampling(n=2, max_tokens=12)
    whole = engine.generate(prompts(model), sampling, [11, 12, 13, 14, 15])
    part = engine.generate(prompts(model)[3:1:-1], sampling, [14, 13])
    assert [c.tokens for c in part[0]] == [c.tokens for c in whole[3]]
    assert [c.tokens for c in part[1]] == [c.tokens for c in whole[2]]
    other = engine.generate(prompts(model), sampling, [1, 2, 3, 4, 5])
    assert [c.tokens for r in other for c in r] != [c.tokens for r in whole for c in r]
    assert whole[1][0].tokens != whole[1][1].tokens, "samples of one prompt differ"
    free = [engine.generate(prompts(model)[:1], sampling)[0][0].tokens for _ in range(2)]
    assert free[0] != free[1], "without seeds, calls differ"


def test_stop_tokens_and_stop_texts_end_a_completion_and_stay_in_it(
    engine: RolloutEngine, model: LanguageModel
) -> None:
    prompt = prompts(model)[0]
    tokens = greedy_reference(model, prompt, 24)
    at = next(i for i, t in enumerate(tokens) if i > 2 and t > 3 and t not in tokens[:i])
    (by_token,) = engine.generate([prompt], replace(GREEDY, stop_token_ids=(tokens[at],)))[0]
    assert (by_token.tokens, by_token.finish_reason) == (tokens[: at + 1], "stop")
    (by_text,) = engine.generate([prompt], replace(GREEDY, stop=(model.decode([tokens[at]]),)))[0]
    assert (by_text.tokens, by_text.finish_reason) == (tokens[: at + 1], "stop")
    assert len(by_text.logprobs) == at + 1


def test_every_stop_token_of_the_model_ends_a_completion(engine: RolloutEngine, model: LanguageModel) -> None:
    """The tokenizer's, the generation config's and the chat template's, without being named in the sampling."""
    tokenizer = model.tokenizer
    stops = {tokenizer.eos_token_id, tokenizer.bos_token_id, *model.encode(CONFIGURED)}
    assert set(model.stop_token_ids) == stops
    sampling = Sampling(n=16, temperature=2.0, max_tokens=100)
    found = [c for r in engine.generate(prompts(model), sampling, [1] * 5) for c in r]
    for completion in found:
        assert stops.isdisjoint(completion.tokens[:-1])
        ended = completion.tokens[-1] in stops
        assert completion.finish_reason == ("stop" if ended else "length")
    assert {c.tokens[-1] for c in found} >= stops, "each of them ended a completion"


def test_a_stop_text_that_is_a_special_token_ends_a_completion(engine: RolloutEngine, model: LanguageModel) -> None:
    sampling = Sampling(n=16, temperature=2.0, max_tokens=60, stop=("<pad>", "ab"))
    found = [c for r in engine.generate(prompts(model), sampling, [1] * 5) for c in r]
    pad = model.tokenizer.pad_token_id
    assert all(pad not in c.tokens[:-1] for c in found)
    assert {c.finish_reason for c in found if c.tokens[-1] == pad} == {"stop"}
    for text in ("a<pad>", "<pad><pad>", "\u00e9", "a\u00e9"):
        with pytest.raises(ConfigError, match="holds a special token beside other text, or"):
            engine.generate(prompts(model), replace(GREEDY, stop=(text,)))


def test_a_limit_on_tokens_is_kept(engine: RolloutEngine, model: LanguageModel) -> None:
    (one,) = engine.generate([prompts(model)[2]], replace(GREEDY, max_tokens=1))[0]
    assert (len(one.tokens), one.finish_reason) == (1, "length")


def test_a_completion_that_could_outgrow_the_context_is_refused(engine: RolloutEngine, model: LanguageModel) -> None:
    with pytest.raises(SurefootError, match="do not fit into"):
        engine.generate([[5] * 200], Sampling(max_tokens=57), [0])


def test_each_prompt_may_have_a_sampling_of_its_own(engine: RolloutEngine, model: LanguageModel) -> None:
    """Other budgets, numbers, temperatures and stops beside each other: each as if it were sampled alone."""
    free = Sampling(n=2, max_tokens=9)
    samplings = [
        free,
        replace(free, max_tokens=3),
        replace(GREEDY, max_tokens=17),
        replace(free, n=3, temperature=0.7, top_k=20),
        replace(free, max_tokens=1, stop_token_ids=tuple(model.encode("0123456789"))),
    ]
    seeds = [21, 22, 23, 24, 25]
    found = engine.generate(prompts(model), samplings, seeds)
    assert [len(r) for r in found] == [2, 2, 1, 3, 2]
    for completions, prompt, sampling, seed in zip(found, prompts(model), samplings, seeds, strict=True):
        (alone,) = engine.generate([prompt], sampling, [seed])
        assert [(c.tokens, c.finish_reason) for c in completions] == [(c.tokens, c.finish_reason) for c in alone]
        assert max(len(c.tokens) for c in completions) <= sampling.max_tokens
    assert max(len(c.tokens) for c in found[2]) > 9, "a longer budget is used beside shorter ones"
    with pytest.raises(ValueError, match="5 prompts, 4 samplings and 5 seeds"):
        engine.generate(prompts(model), samplings[:4], seeds)
    with pytest.raises(ConfigError, match="a prompt of 11 tokens and max_tokens 300 do not fit into"):
        engine.generate(prompts(model)[:2], [free, replace(free, max_tokens=300)], seeds[:2])


def test_top_k_of_one_is_greedy(engine: RolloutEngine, model: LanguageModel) -> None:
    sampling = Sampling(temperature=1.0, top_k=1, max_tokens=10)
    for prompt, (completion,) in zip(prompts(model), engine.generate(prompts(model), sampling, [1] * 5), strict=True):
        assert completion.tokens == greedy_reference(model, prompt, 10)
        assert completion.logprobs == pytest.approx([0.0] * len(completion.tokens), abs=1e-5)


def test_new_weights_take_effect_leave_no_stale_prefix_and_are_stamped(
    engine: RolloutEngine, model: LanguageModel
) -> None:
    """Three updates in a row: the long shared prompt is cached under the old weights each time."""
    long = model.encode("7*8-2+1-3*4+5-6*7+8" * 5)
    tuned = sharp_model(0)
    if isinstance(engine, HFEngine):
        engine.start(tuned, version=7)
    for version, seed in ((8, 1), (9, 2), (12, 0)):
        engine.generate([long, long], GREEDY)
        other = sharp_model(seed)
        before = engine.statistics()
        engine.update_weights(other.named_weights(), version)
        found = engine.generate([long, prompts(model)[1]], GREEDY)
        assert [c.tokens for (c,) in found] == [greedy_reference(other, p, 24) for p in (long, prompts(model)[1])]
        assert {c.version for (c,) in found} == {version}
        assert engine.statistics().n_updates == before.n_updates + 1
        if isinstance(engine, VLLMEngine | VLLMServerEngine):
            # Handed over in shared memory, where a killed process would leave them; Ray's workers read theirs later.
            assert engine.folder is not None
            assert not list(engine.folder.path.glob("*.safetensors"))
    if isinstance(engine, HFEngine):
        engine.start(model, version=7)


def test_more_seeded_prompt_tokens_than_fit_into_one_step(engine: RolloutEngine, model: LanguageModel) -> None:
    """vLLM on a CPU would fail on a seeded request whose prompt is prefilled in parts."""
    long = [model.encode("1+2-3*4+5-" * 20 + f"{i}=") for i in range(45)]
    found = engine.generate(long, Sampling(max_tokens=2), list(range(45)))
    again = engine.generate(long[40:], Sampling(max_tokens=2), list(range(40, 45)))
    assert [c.tokens for (c,) in again] == [c.tokens for (c,) in found[40:]]


def test_prompt_tokens_that_were_computed() -> None:
    """A cache is asked for each of 4 completions of 10 tokens, of which 3 find all; without one it is read once."""
    assert EngineStatistics(prompt_tokens=10, prefix_queries=40, prefix_hits=30).prefill_computed == 10
    assert EngineStatistics(prompt_tokens=10).prefill_computed == 10
    assert EngineStatistics(prompt_tokens=10, prefix_queries=40, prefix_hits=40).prefill_computed == 0


def test_statistics(engine: RolloutEngine, model: LanguageModel) -> None:
    before = engine.statistics()
    found = engine.generate(prompts(model), Sampling(n=2, max_tokens=5), [1] * 5)
    used = engine.statistics().since(before)
    assert used.generated_tokens == sum(len(c.tokens) for r in found for c in r)
    assert used.prompt_tokens == sum(len(p) for p in prompts(model))
    assert used.tokens_per_second == pytest.approx(used.generated_tokens / used.seconds)
    if isinstance(engine, VLLMEngine | VLLMServerEngine):
        long = model.encode("1+2-3*4" * 20)
        engine.generate([long], GREEDY)
        before = engine.statistics()
        engine.generate([long], GREEDY)
        assert engine.statistics().since(before).prefix_hit_rate > 0.5
        with pytest.raises(ConfigError, match="do not fit into"):
            engine.generate([long * 2], GREEDY)
    if isinstance(engine, VLLMEngine):
        with pytest.raises(ConfigError, match=r"vLLM does not sample with .*temperature must be in"):
            engine.generate(prompts(model), Sampling(temperature=5.0, max_tokens=5))


@pytest.mark.parametrize("engine", [pytest.param("VLLMEngine", marks=pytest.mark.slow)], indirect=True)
def test_without_reprocessing_the_tied_head_outputs_would_be_wrong_without_an_error(
    engine: VLLMEngine, model: LanguageModel
) -> None:
    """The silent error of vLLM's reload on a CPU."""
    new = sharp_model(1)
    weights = {"weights_iterator": iter(new.named_weights())}
    engine.llm.collective_rpc("reload_weights", kwargs=weights)  # vLLM's own call, and nothing else
    engine.llm.reset_prefix_cache()
    expected = [greedy_reference(new, p, 24) for p in prompts(new)]
    wrong = [c.tokens for (c,) in engine.generate(prompts(new), GREEDY)]
    assert wrong != expected, "vLLM has been mended: simplify WeightReloader"
    engine.update_weights(new.named_weights(), 8)
    assert [c.tokens for (c,) in engine.generate(prompts(new), GREEDY)] == expected
    engine.update_weights(model.named_weights(), 7)


@pytest.mark.timeout(600)
def test_vllm_conforms_on_this_machine(tmp_path: Path) -> None:
    """The real vLLM in a process of its own, which it changes, and as on a machine where it has never run."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "-p", "no:cacheprovider"]
    command += [str(Path(__file__)), "-k", "VLLMEngine and not own and not killed"]
    environment = os.environ | {"VLLM_CACHE_ROOT": str(tmp_path)}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed, \d+ deselected", result.stdout)
    assert passed is not None, "none is skipped: " + result.stdout[-500:]
    assert int(passed[1]) >= 13, result.stdout[-500:]


def test_sampled_frequencies_are_the_model_s_probabilities(model: LanguageModel) -> None:
    engine = HFEngine(max_sequences=4000)
    engine.start(model)
    prompt = prompts(model)[0]
    sampling = Sampling(n=4000, temperature=1.5, top_k=5, max_tokens=1)
    tokens = torch.tensor([c.tokens[0] for c in engine.generate([prompt], sampling, [3])[0]])
    with torch.no_grad():
        logits = model.base(torch.tensor([prompt])).logits[:, -1]
    expected = sampling_distribution(logits, sampling).exp()[0]
    found = torch.bincount(tokens, minlength=len(expected)) / 4000
    assert (found - expected).abs().max() < 4 * 0.5 / 4000**0.5
    assert int((found > 0).sum()) <= 5


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = sampling_distribution(logits, Sampling(top_p=0.79)).exp()
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0, 0]]))
    kept = sampling_distribution(logits, Sampling(top_p=0.81)).exp()
    assert (kept > 0).tolist() == [[True, True, True, False]]


def test_the_reference_engine_samples_with_adapters_and_leaves_training_alone() -> None:
    model = sharp_model(0, lora=LoRA(rank=2))
    model.train()
    state = torch.get_rng_state()
    engine = HFEngine()
    engine.start(model)
    engine.generate(prompts(model), Sampling(max_tokens=4), [1] * 5)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state), "sampling with seeds draws nothing from the global generator"
    assert all(p.grad is None for p in model.parameters())


def test_errors_are_clear(model: LanguageModel) -> None:
    with pytest.raises(RuntimeError, match="has not been started"):
        HFEngine().generate([[1]], GREEDY)
    with pytest.raises(ConfigError, match="n and max_tokens must be positive"):
        Sampling(n=0)
    with pytest.raises(ConfigError, match=r"top_p in \(0, 1\]"):
        Sampling(top_p=0)
    with pytest.raises(ConfigError, match="a stop text must not be empty"):
        Sampling(stop=("",))
    joined = VLLMServerEngine(["http://127.0.0.1:9"], startup_seconds=0.1)
    with pytest.raises(SurefootError, match=r"no vLLM server answers at http://127\.0\.0\.1:9 within 0\.1 s"):
        joined.start(model)
    joined.close()
    with pytest.raises(ConfigError, match="must be positive, got 0"):
        RayEngine(HFEngine(), n_workers=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_too_small_for_the_workers_is_refused(model: LanguageModel) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="2 workers of 1000 GPU each need 2000 GPU, the cluster has"):
        RayEngine(HFEngine(), gpus_per_worker=1000).start(model)
