"""Tiny models of every family of causal language models that transformers knows."""

from typing import Any

__all__ = ("tiny_family",)

#: What a config's numbers become, by the end of their names; the first that fits counts.
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "vocab_size_per_layer_input": 60,
    "hidden_size_per_layer_input": 8,
    "moe_intermediate_size": 24,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "n_inner": 48,
    "dff": 48,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim_model": 32,
    "embed_dim": 32,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "decoder_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "n_head_kv": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "n_ctx": 128,
    "sliding_window": 8,
    "attention_chunk_size": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 12,
    "rotary_dim": 4,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "is_decoder": True,
}


#: Numbers that change what a model computes, and are 1 or absent by default.
FACTORS: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
    "logit_scale": 0.3,
    "logits_scaling": 3.0,
    "lm_head_multiplier": 0.4,
    "embedding_multiplier": 1.5,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.5,
}


TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


def _overrides(config: Any) -> dict[str, Any]:
    """Return the arguments that make a config small."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(getattr(type(config), name, None), property):
            continue
        if hasattr(value, "to_dict"):
            found[name] = {"model_type": value.model_type, **_overrides(value)}
        elif name in SIZES and value is not None:
            found[name] = SIZES[name]
        elif name in FACTORS:
            found[name] = FACTORS[name]
        elif name in TOKENS:
            found[name] = TOKENS[name]
    types = list(dict.fromkeys(vars(config).get("layer_types") or []))
    if types:
        types = types if len(types) > 1 else types * 2
        found |= {"layer_types": types, "num_hidden_layers": len(types)}
    return found


def tiny_family(model_type: str) -> Any:
    """Return a causal language model of a family, of a few thousand parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    arguments = _overrides(AutoConfig.for_model(model_type)) | SPECIAL.get(model_type, {})
    config = AutoConfig.for_model(model_type, **arguments)
    model: Any = AutoModelForCausalLM.from_config(config)
    return model.eval()


#: What single families need beside.
SPECIAL: dict[str, dict[str, Any]] = {}
