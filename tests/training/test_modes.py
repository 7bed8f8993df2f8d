"""Training and evaluation mode: restored per module; dropout and gradient checkpointing do what they say."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from logged import metric_values
from tiny_reasoning import tiny_reasoning
from torch import nn
from torch.utils.checkpoint import checkpoint

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel, LoRA, PretrainedLanguageModel, perplexities
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.rollouts import HFEngine, Sampling
from surefoot.reasoning.sequences import PromptCompletion, pack_sequences
from surefoot.training.modes import evaluation_mode

pytestmark = pytest.mark.filterwarnings("ignore")


def tiny_gpt2() -> Any:
    """Return a GPT-2 of a few thousand parameters with its usual dropout of 0.1 everywhere."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = digit_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    LanguageModel(tiny_gpt2(), digit_tokenizer()).save(folder)
    return folder


def gpt2_settings(folder: Path, method: str, **model: Any) -> dict[str, Any]:
    language_model = {"class_path": "PretrainedLanguageModel", "init_args": {"name": str(folder)}}
    settings = tiny_reasoning(method, language_model=language_model, **model)
    settings["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2}
    return settings


def flags(module: nn.Module) -> list[bool]:
    return [m.training for m in module.modules()]


def mixed(model: LanguageModel) -> list[bool]:
    """Put every second module into training mode."""
    for i, m in enumerate(model.modules()):
        m.training = bool(i % 2)
    return flags(model)


def some_pack(model: LanguageModel, n: int = 30) -> Any:
    sequences = [PromptCompletion([5, 6, 7], [8 + i % 20 for i in range(n)])] * 2
    return pack_sequences(sequences, 1000, share_prompts=False)[0]


def test_every_temporary_evaluation_restores_each_module_s_own_mode() -> None:
    model = LanguageModel(tiny_gpt2(), digit_tokenizer())
    before = mixed(model)
    perplexities(model, [PromptCompletion([5], [6, 7])], 100)
    assert flags(model) == before
    engine = HFEngine()
    engine.start(model)
    engine.generate([[5, 6]], Sampling(max_tokens=3), [1])
    assert flags(model) == before
    with evaluation_mode(model):
        assert not any(flags(model))
    assert flags(model) == before
    with pytest.raises(TypeError), evaluation_mode(model):
        model.score()  # type: ignore[call-arg]
    assert flags(model) == before


def test_reinforcement_learning_without_a_step_is_on_policy(fit: Fit, gpt2: Path) -> None:
    """At learning rate 0 every minibatch's policy is the one that sampled, in spite of GPT-2's dropout."""
    settings = gpt2_settings(gpt2, "GRPO", updates={"minibatches": 2}, loss={"kl_coefficient": 0.1})
    settings["model"]["init_args"]["optimizer"]["init_args"] = {"lr": 0.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(settings)
    assert not [w for w in caught if "in eval mode" in str(w.message)], "the mode is set on purpose"
    for side in ("low", "high"):
        assert set(metric_values(run, f"train/share_clipped_{side}")) == {0.0}
    assert max(metric_values(run, "rollout/logprob_mismatch_max")) < 1e-4
    assert metric_values(run, "train/kl") == pytest.approx([0.0] * 2, abs=1e-6)
    assert metric_values(run, "train/ratio") == pytest.approx([1.0] * 2, abs=1e-5)


def trained(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {k: v for k, v in state.items() if k.startswith("language_model")}


def test_supervised_training_has_dropout_and_the_tracker_leaves_it_alone(fit: Fit, gpt2: Path) -> None:
    """SFT of a loaded GPT-2: dropout acts, and with a tracker between the steps the weights are equal bit for bit."""
    settings = gpt2_settings(gpt2, "SFT")
    settings["trainer"]["callbacks"] = []
    runs = [fit(settings, name="plain")]
    sampling = {"n": 2, "max_tokens": 5}
    tracker = {"answers": {"sampling": sampling}, "every_n_steps": 1, "problems": {"samples_per_checkpoint": 8}}
    settings["trainer"]["callbacks"] = [
        {"class_path": "MemorizationTracker", "init_args": tracker},
        {"class_path": "GeneralizationPredictors", "init_args": {"batch_size": 2}},
    ]
    runs.append(fit(settings, name="tracked"))
    settings["trainer"]["callbacks"] = []
    runs.append(fit(settings, "--seed_everything", "4", name="other"))
    plain, tracked = map(trained, runs[:2])
    for name, value in plain.items():
        assert torch.equal(value, tracked[name]), name
    first = [metric_values(r, "train/loss")[0] for r in (runs[0], runs[2])]
    model = PretrainedLanguageModel(str(gpt2)).eval()
    assert first[0] != pytest.approx(mean_loss(model, settings), rel=1e-6), "dropout acts"
    assert first[0] != first[1]


def mean_loss(model: LanguageModel, settings: dict[str, Any]) -> float:
    """Return the first batch's loss without dropout."""
    from datamodules import ArithmeticDataModule
    from surefoot.reasoning.prompts import PlainPrompt

    data = ArithmeticDataModule(**settings["data"]["init_args"])
    prompt = PlainPrompt()
    problems = next(iter(data.train_dataloader()))["problem"]
    sequences = [PromptCompletion(prompt.prompt_ids(p, model), prompt.target_ids(p, model)) for p in problems]
    (pack,) = pack_sequences(sequences, 10_000)
    with torch.no_grad():
        return -float(model.score(pack).logprobs.mean())


def saved_bytes(model: LanguageModel) -> int:
    """Return the size of what autograd keeps for the backward pass, bytes."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model.score(some_pack(model, 100))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for place, size in kept.items() if place not in weights)


def gradient(model: LanguageModel) -> torch.Tensor:
    torch.manual_seed(7)
    model.zero_grad()
    model.score(some_pack(model)).logprobs.sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("lora", [None, LoRA(rank=2, dropout=0.3)])
def test_gradient_checkpointing_saves_memory_and_changes_no_gradient(dropout: bool, lora: LoRA | None) -> None:
    plain, checkpointed = (
        LanguageModel(tiny_gpt2(), digit_tokenizer(), lora, gradient_checkpointing=on) for on in (False, True)
    )
    checkpointed.load_state_dict(plain.state_dict())
    for model in (plain, checkpointed):
        model.eval()  # as from_pretrained leaves it
        model.training_mode(dropout=dropout)
    assert saved_bytes(checkpointed) < 0.3 * saved_bytes(plain)
    torch.testing.assert_close(gradient(checkpointed), gradient(plain), rtol=1e-5, atol=1e-6)
    repeated = [gradient(checkpointed)]
    torch.manual_seed(8)
    checkpointed.zero_grad()
    checkpointed.score(some_pack(checkpointed)).logprobs.sum().backward()
    repeated.append(torch.cat([p.grad.flatten() for p in checkpointed.parameters() if p.grad is not None]))
    assert torch.equal(*repeated) is not dropout, "another seed matters where there is dropout"


def test_a_copy_of_a_checkpointed_model_recomputes_its_own_layers() -> None:
    import copy

    model = LanguageModel(tiny_gpt2(), digit_tokenizer(), gradient_checkpointing=True)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    expected = other.eval().score(some_pack(other)).logprobs.detach()
    other.training_mode(dropout=False)
    torch.testing.assert_close(other.score(some_pack(other)).logprobs, expected)


@pytest.mark.parametrize("method", ["SFT", "GRPO"])
def test_gradient_checkpointing_acts_in_a_run(
    method: str, fit: Fit, gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from surefoot.reasoning.language_models import checkpointing

    calls: list[int] = []
    monkeypatch.setattr(checkpointing, "checkpoint", lambda *a, **k: calls.append(1) or checkpoint(*a, **k))
    settings = gpt2_settings(gpt2, method)
    language_model = settings["model"]["init_args"]["language_model"]["init_args"]
    language_model["gradient_checkpointing"] = True
    fit(settings)
    assert len(calls) >= 4, "two layers in each of two steps"


def test_dropout_of_adapters_that_cannot_act_is_said(fit: Fit, gpt2: Path) -> None:
    settings = gpt2_settings(gpt2, "GRPO")
    settings["model"]["init_args"]["language_model"]["init_args"]["lora"] = {
        "rank": 2,
        "dropout": 0.1,
    }
    with pytest.warns(UserWarning, match=r"trains with dropout off: lora\.dropout 0\.1"):
        fit(settings)


def test_a_model_without_layers_to_recompute_is_refused() -> None:
    model = tiny_gpt2()
    model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match="cannot recompute activations"):
        LanguageModel(model, digit_tokenizer(), gradient_checkpointing=True)


def test_a_loaded_text_encoder_trains_with_its_dropout(tmp_path: Path) -> None:
    from surefoot.classification.pretrained_encoders import TransformersEncoder

    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 50}
    fresh = TransformersEncoder("distilbert", pretrained=False, config=sizes)
    fresh.body.save_pretrained(tmp_path)
    assert all(flags(TransformersEncoder(str(tmp_path))))
