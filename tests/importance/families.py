"""A tiny model of every decoder family that the installed transformers knows: two layers, some thousand weights.

Generic sizes fit most; :data:`SETTINGS` has what a family needs beside them, :data:`LEFT_OUT` why one is not built.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

VOCABULARY = 61

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # experts
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    # other names of the same
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "d_model": 32,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    # decoders that are made to stand behind an encoder
    "decoder_layers": 2,
    "encoder_layers": 1,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "num_decoder_layers": 2,
    "num_encoder_layers": 1,
    "num_decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4,
    # state spaces and linear attention
    "mamba_dt_rank": 4,
    "mamba_d_state": 8,
    "state_size": 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "use_mamba_kernels": False,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
LATENT = {  # attention through a low-rank bottleneck, and the indexer of sparse attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 16,
}
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots3_note", "dots3_note_text", "glm4_moe_lite",
            "glm_moe_dsa", "kimi_linear", "longcat_flash", "minicpm3", "youtu",
        ),
        LATENT,
    ),
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 8},
    "dots1": {
        "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "layer_types": ["full_attention"] * 2, "routed_scaling_factor": 1.0,
    },
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "gemma3n_text": {
        "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": {
        "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "global_head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0,
    },
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16, "layer_types": ["mamba", "attention"]},
    "jamba": {
        "attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2, "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {"num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2, "n_mamba_heads": 4, "mamba_headdim": 16},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(("git", "phi4_multimodal"), "comes with an image encoder that is larger than the decoder"),
    "axk1": "its rotary sizes do not follow from the others",
    "blt": "its byte patches take a stack of models with sizes of their own",
    "cohere_compass_text": "its rotary settings name layer types that a plain configuration lacks",
    "dbrx": "a plain configuration lacks the rotary base that its attention reads",
    "gemma4_assistant": "reads the cache of another model",
    "kimi_linear": "its linear attention has nested sizes that make a model of millions of weights",
    "longcat_flash": "its many default blocks make a model of millions of weights",
    "reformer": "recomputes its layers backwards in a graph of its own",
    "zamba2": "the sizes of its shared attention do not follow from the others (Zamba, its like, is built)",
    **dict.fromkeys(("musicgen", "musicgen_melody"), "reads several codebooks at a position, not ids of a text"),
}
ALIASES = {  # the same class under a second name in the mapping
    "fuyu": "persimmon", "gemma3n": "gemma3n_text", "gemma3": "gemma3_text", "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "gemma4_unified_assistant": "gemma4_unified_text", "got_ocr2": "qwen2", "gpt-sw3": "gpt2", "llama4": "llama4_text",
    "moss_transcribe_diarize": "qwen3", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen4_exp": "qwen4_exp_text", "internlm3": "llama", "iquestcoder": "llama",
}  # fmt: skip


SINGLE = ("inkling2_text", "prophetnet", "xglm")  # parts of them do not run, or overflow, in float64


def all_families() -> list[str]:
    """Every ``model_type`` that ``AutoModelForCausalLM`` knows."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def configuration(kind: str, **settings: Any) -> Any:
    """A tiny configuration of a family's text decoder."""
    from transformers import CONFIG_MAPPING

    cls = type(CONFIG_MAPPING[kind]().get_text_config(decoder=True))
    known = {*inspect.signature(cls.__init__).parameters, *vars(cls()), *cls.attribute_map}
    given = {**{name: value for name, value in SIZES.items() if name in known}, **SETTINGS.get(kind, {}), **settings}
    config = cls(**given)
    config._experts_implementation = "eager"  # the grouped product does not know float64
    return config


def architecture(kind: str, config: Any) -> type[nn.Module]:
    """The class that ``AutoModelForCausalLM`` makes of a configuration."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])


def build(kind: str) -> nn.Module:
    """A tiny model, in float64 where it can be; no weight is left where zeros and ones would hide faults."""
    torch.manual_seed(0)
    config = configuration(kind)
    model = architecture(kind, config)(config).to(torch.float32 if kind in SINGLE else torch.float64).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model
