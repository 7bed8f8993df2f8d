"""Tiny models of every family of causal language models that transformers knows."""

from typing import Any

import torch

__all__ = ("EQUAL", "FALLS_BACK", "REFUSED", "TRANSFORMERS", "outcome", "tiny_family")


def _names(text: str) -> list[str]:
    return text.split()


#: The release of transformers that the table was measured with.
TRANSFORMERS = "5.19.0"
#: Families whose packed log-probabilities and gradients are the model's own.
EQUAL = _names("""
    afmoe apertus arcee aria_text axk1 bert-generation biogpt bitnet cohere cohere2 cohere2_moe ctrl cwm
    deepseek_v2 deepseek_v3 diffllama dots1 emu3 ernie4_5 ernie4_5_moe exaone4 exaone_moe flex_olmo fuyu
    gemma gemma2 gemma3 gemma3_text gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text
    glm glm4 glm4_moe glm4_moe_lite gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_oss granite granite_swa
    granitemoe granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3
    hyperclovax jais2 jetmoe laguna llama llama4 llama4_text mellum mimo_v2_flash minicpm3 minimax_m2
    minimax_m3_vl_text ministral ministral3 mistral mixtral mllama moshi nanochat nemotron olmo olmo2
    olmo3 olmoe opt persimmon phi phi3 phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss
    smollm3 solar_open stablelm starcoder2 vaultgemma whisper youtu
""")
#: Families whose sequences pass through the model one at a time.
FALLS_BACK = _names("""
    axk2 bamba bart bert big_bird bigbird_pegasus blenderbot blenderbot-small bloom camembert codegen
    data2vec-text deepseek_v32 deepseek_v4 doge electra ernie falcon falcon_h1 falcon_mamba git
    glm_moe_dsa got_ocr2 gpt_neo gpt_neox_japanese gptj granitemoehybrid hy_v4 inkling_text jamba lfm2
    lfm2_moe mamba mamba2 marian mbart megatron-bert minimax modernbert-decoder mpt mvp nemotron_h
    olmo_hybrid openai-gpt pegasus plbart qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next
    recurrent_gemma rembert roberta roberta-prelayernorm roc_bert roformer rwkv trocr xglm xlm-roberta
    xlm-roberta-xl xlstm
""")
#: Families that look ahead: what they say of a token depends on those after it.
REFUSED = _names("""
    cpmant prophetnet xlm xlnet
""")


def outcome(model_type: str) -> str:
    """Return what the table says of a family."""
    table = {"equal": EQUAL, "falls back": FALLS_BACK, "refused": REFUSED}
    return next(name for name, families in table.items() if model_type in families)


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
    if "kv_lora_rank" in found:  # latent attention has as many heads of keys as of queries
        found["num_key_value_heads"] = SIZES["num_attention_heads"]
        found.pop("head_dim", None)
    elif vars(config).get("head_dim", 0) is None:
        found["head_dim"] = SIZES["head_dim"]
    if types:
        types = types if len(types) > 1 else types * 2
        found |= {"layer_types": types, "num_hidden_layers": len(types)}
    return found


def tiny_family(model_type: str) -> Any:
    """Return a causal language model of a family, small and with large random weights: what is wrong shows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    arguments = _overrides(AutoConfig.for_model(model_type)) | SPECIAL.get(model_type, {})
    config = AutoConfig.for_model(model_type, **arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for p in model.parameters():
                noise = torch.randn(p.shape)
                p.copy_(1.5 * noise / p.shape[-1] ** 0.5 if p.dim() > 1 else p + 0.3 * noise)
    return model.eval()


#: What single families need beside.
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
    "mamba_n_groups": 1,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], **MAMBA},
    "falcon_h1": MAMBA,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], **MAMBA},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"chunk_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1},
    "roc_bert": {"pronunciation_vocab_size": 60, "shape_vocab_size": 60},
    "phi4_multimodal": {"vision_config": {"hidden_size": 32}, "audio_config": {"hidden_size": 32}},
}
