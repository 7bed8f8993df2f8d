"""TRL's losses and gradients on fixed batches, written for `tests/reasoning/test_agrees_with_trl.py`.

Runs in an environment of its own that has TRL 1.16 and not Surefoot::

    python benchmarks/peers/trl_losses.py MODEL_FOLDER tests/data/trl_losses.safetensors

MODEL_FOLDER holds a tiny Llama: ``TinyLanguageModel(width=16, n_layers=1, n_heads=2).save(folder)``.
"""

import json
import sys
import tempfile

import torch
import trl
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

FOLDER, OUT = sys.argv[1:3]
PROMPTS, COMPLETIONS = [7, 4, 9, 4], [5, 8, 3, 6]  # tokens of each sequence
N_PROMPT, N_COMPLETION = max(PROMPTS), max(COMPLETIONS)
COMMON = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
COMMON |= {
    "per_device_train_batch_size": 4,
    "max_steps": 1,
    "logging_steps": 1,
    "output_dir": tempfile.mkdtemp(),
}


def sharp_model(seed: int) -> torch.nn.Module:
    """Return the model with large random weights."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def batch() -> dict[str, torch.Tensor]:
    """Return prompts padded on the left and completions padded on the right, as TRL has them."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(4, 80, (4, N_PROMPT), generator=generator)
    completion = torch.randint(4, 80, (4, N_COMPLETION), generator=generator)
    prompt_mask = torch.arange(N_PROMPT)[None] >= N_PROMPT - torch.tensor(PROMPTS)[:, None]
    completion_mask = torch.arange(N_COMPLETION)[None] < torch.tensor(COMPLETIONS)[:, None]
    prompt[3] = prompt[1]  # a pair for DPO shares its prompt: 0 with 2 does not matter, TRL pairs halves
    prompt[2], prompt_mask[2] = prompt[0], prompt_mask[0]
    return {
        "prompt_ids": prompt * prompt_mask,
        "prompt_mask": prompt_mask.long(),
        "completion_ids": completion * completion_mask,
        "completion_mask": completion_mask.long(),
    }


def logprobs(model: torch.nn.Module, b: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the completions' log-probabilities, ``(4, completion)``."""
    ids = torch.cat([b["prompt_ids"], b["completion_ids"]], 1)
    mask = torch.cat([b["prompt_mask"], b["completion_mask"]], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, position_ids=positions).logits[:, N_PROMPT - 1 : -1]
    return logits.log_softmax(-1).gather(2, b["completion_ids"][..., None])[..., 0]


def right_padded(b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return whole sequences padded on the right, as TRL has them for SFT and DPO."""
    width = N_PROMPT + N_COMPLETION
    ids, attention, completion = (torch.zeros(4, width, dtype=torch.long) for _ in range(3))
    for i in range(4):
        p = b["prompt_ids"][i][b["prompt_mask"][i].bool()]
        c = b["completion_ids"][i][b["completion_mask"][i].bool()]
        ids[i, : len(p) + len(c)] = torch.cat([p, c])
        attention[i, : len(p) + len(c)] = 1
        completion[i, len(p) : len(p) + len(c)] = 1
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


class Found(dict[str, torch.Tensor]):
    """What is written: tensors by name."""

    def keep(self, name: str, trainer: object, loss: torch.Tensor) -> None:
        """Add a loss and its gradients."""
        trainer.model.zero_grad()
        loss.backward()
        self[f"{name}/loss"] = loss.detach().reshape(1)
        for key, p in trainer.model.named_parameters():
            self[f"{name}/gradient/{key}"] = p.grad.clone()


def keep_sft(found: Found, whole: dict[str, torch.Tensor], tokenizer: object) -> None:
    """Add SFT's loss on the completions' tokens."""
    text = Dataset.from_list([{"prompt": "1", "completion": "2"}] * 4)
    trainer = SFTTrainer(sharp_model(1), SFTConfig(**COMMON), train_dataset=text, processing_class=tokenizer)
    labels = whole["input_ids"].masked_fill(whole["completion_mask"] == 0, -100)
    inputs = {"input_ids": whole["input_ids"], "attention_mask": whole["attention_mask"], "labels": labels}
    found.keep("sft", trainer, trainer.compute_loss(trainer.model, inputs))


def keep_dpo(found: Found, whole: dict[str, torch.Tensor], tokenizer: object) -> None:
    """Add DPO's loss, the first half of the batch preferred to the second."""
    pairs = Dataset.from_list([{"prompt": "1", "chosen": "2", "rejected": "3"}] * 4)
    trainer = DPOTrainer(
        sharp_model(1),
        sharp_model(2),
        DPOConfig(beta=0.3, **COMMON),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    found.keep("dpo", trainer, trainer.compute_loss(trainer.model, dict(whole)))


def rollout(b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what GRPO's losses are given: log-probabilities of several policies, and advantages."""
    generator = torch.Generator().manual_seed(5)
    noise = 0.2 * torch.randn(4, N_COMPLETION, generator=generator)
    old, reference = logprobs(sharp_model(1), b) + noise, logprobs(sharp_model(2), b)
    advantages = torch.tensor([1.0, -0.5, 0.7, -1.3])
    behaviour = old + 0.2 * torch.randn(4, N_COMPLETION, generator=generator)
    return {"old": old, "reference": reference, "advantages": advantages, "behaviour": behaviour}


def grpo_trainer(variant: str, tokenizer: object) -> GRPOTrainer:
    """Return a trainer of one of GRPO's losses."""
    settings = {"loss_type": "grpo" if variant == "gspo" else variant, "beta": 0.1}
    settings |= {"use_bias_correction_kl": False}  # plain k3, as in the GRPO paper
    settings |= {"importance_sampling_level": "sequence" if variant == "gspo" else "token"}
    settings |= {"epsilon": 0.1, "epsilon_high": 1.15 if variant == "cispo" else 0.15}
    config = GRPOConfig(
        num_generations=4,
        max_completion_length=10,
        steps_per_generation=1,
        temperature=1.0,
        **settings,
        **COMMON,
    )
    prompts = Dataset.from_list([{"prompt": "1"}] * 4)
    trainer = GRPOTrainer(sharp_model(1), lambda **_: [0.0], config, train_dataset=prompts, processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def keep_grpo(
    found: Found, b: dict[str, torch.Tensor], given: dict[str, torch.Tensor], variant: str, tokenizer: object
) -> None:
    """Add one of GRPO's losses, on all sequences and with one masked."""
    trainer = grpo_trainer(variant, tokenizer)
    inputs = b | {
        "advantages": given["advantages"],
        "old_per_token_logps": given["old"],
        "ref_per_token_logps": given["reference"],
        "num_items_in_batch": b["completion_mask"].sum(),
    }
    found.keep(variant, trainer, trainer._compute_loss(trainer.model, inputs))
    # As mask_truncated_completions does it where sequence 1 hit the limit, with ratios to an engine capped at 1.1.
    mask = b["completion_mask"] * torch.tensor([1, 0, 1, 1])[:, None]
    inputs |= {"completion_mask": mask, "num_items_in_batch": mask.sum()}
    inputs["importance_sampling_ratio"] = (given["old"] - given["behaviour"]).exp().clamp(max=1.1)
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    found.keep(f"{variant}_masked", trainer, trainer._compute_loss(trainer.model, inputs))


def main() -> None:
    """Compute and write."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    b = batch()
    given, whole = rollout(b), right_padded(b)
    found = Found({f"input/{k}": v for k, v in b.items()})
    for name, seed in (("weight", 1), ("reference", 2)):
        found.update({f"{name}/{k}": v.clone() for k, v in sharp_model(seed).named_parameters()})
    found.update({f"grpo/{name}": value for name, value in given.items()})
    keep_sft(found, whole, tokenizer)
    keep_dpo(found, whole, tokenizer)
    for variant in ("grpo", "dr_grpo", "dapo", "gspo", "cispo"):
        keep_grpo(found, b, given, variant, tokenizer)
    versions = {"trl": trl.__version__, "torch": torch.__version__}
    metadata = {"versions": json.dumps(versions)}
    save_file({k: v.contiguous() for k, v in found.items()}, OUT, metadata=metadata)
    print(versions, {k: v.item() for k, v in found.items() if k.endswith("/loss")})


main()
