"""Audio LLMs of transformers as random models of a few thousand weights, each a folder with its real processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

WINDOW = 4
"""Seconds to which clips are padded that the hub's models pad to 30."""
ROWS = 512
"""Of the embedding matrix: more than the tokenizer has ids."""
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "output_dim", "out_hidden_size", "hidden_dim", "dim"), 32),
    **dict.fromkeys(("encoder_hidden_size", "embedding_size", "moe_intermediate_size"), 32),
    **dict.fromkeys(("encoder_ffn_dim",), 64),
    "intermediate_size": 128,
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "num_layers", "depth", "num_blocks"), 2),
    **dict.fromkeys(("conf_num_hidden_layers", "max_window_layers", "num_experts_per_tok"), 2),
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "num_heads", "conf_num_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "laurel_rank"), 4),
    **dict.fromkeys(("head_dim", "dim_head", "hidden_size_per_layer_input"), 8),
    "num_key_value_heads": 2,
    **dict.fromkeys(("nemo_conv_channels", "ext_pw_out_channel", "depthwise_separable_out_channel"), 32),
    "downsample_hidden_size": 16,
    "max_source_positions": 50 * WINDOW,
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), ROWS),
}
"""What a configuration's sizes are set to, by the names that the families give them."""
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'audio' %}SLOT{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template; ``SLOT`` is what stands for a clip."""


@dataclass(frozen=True)
class Family:
    """How a family is made small.

    Attributes:
        slot: What its chat template writes for a clip.
        audio: The token in it that the processor repeats, one a position.
        processor: Makes its processor around a tokenizer; None where what it needs is not installed.
        tokens: Names that its processor asks the tokenizer for, such as ``audio_token``.
        settings: Set in the text configuration, so that nothing rests on a default: scales that leave the logits
            alone by default, heads that are tied.
        config: Makes the configuration; None shrinks the family's default.
        text_base: Class of the LLM that is carved.
        remark: What the table in docs/audio_llms.md says of it.
    """

    slot: str
    audio: str
    text_base: str
    processor: Callable[[Any], Any] | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Callable[[], Any] | None = None
    remark: str = ""


def _whisper() -> Any:
    return WhisperFeatureExtractor(feature_size=128, chunk_length=WINDOW)


def _gemma4() -> Any:
    text = CONFIG_MAPPING["gemma4_text"](
        vocab_size=ROWS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        vocab_size_per_layer_input=ROWS,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        global_head_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    audio = CONFIG_MAPPING["gemma4_audio"](
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, output_proj_dims=32
    )
    return CONFIG_MAPPING["gemma4"](text_config=text, audio_config=audio, vision_config=None)


def _gemma4_processor(tokenizer: Any) -> Any:
    images, videos = transformers.Gemma4ImageProcessor(), transformers.Gemma4VideoProcessor()
    return transformers.Gemma4Processor(transformers.Gemma4AudioFeatureExtractor(), images, tokenizer, videos)


def _phi4(tokenizer: Any) -> Any:
    images, sounds = transformers.Phi4MultimodalImageProcessor(), transformers.Phi4MultimodalFeatureExtractor()
    return transformers.Phi4MultimodalProcessor(images, sounds, tokenizer)


GEMMA4 = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
OMNI = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
QWEN3_ASR = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
GRANITE = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.25,
    "attention_multiplier": 0.5,
    "logits_scaling": 8.0,
    "tie_word_embeddings": False,
}


def _omni(kind: str) -> Callable[[Any], Any]:
    def make(tokenizer: Any) -> Any:
        images, videos = transformers.Qwen2VLImageProcessor(), transformers.Qwen2VLVideoProcessor()
        return getattr(transformers, kind)(images, videos, _whisper(), tokenizer)

    return make


def _granite(tokenizer: Any) -> Any:
    return transformers.GraniteSpeechProcessor(transformers.GraniteSpeechFeatureExtractor(), tokenizer)


TWIN = "its decoder has no text LLM class of its own; an equivalent one shares its weights"
SCALE = "`logits_scaling`, which the audio LLM leaves out, is applied; its LoRA for sound is removed"
FAMILIES: dict[str, Family] = {
    "qwen2_audio": Family(
        "<|audio_bos|><|AUDIO|><|audio_eos|>",
        "<|AUDIO|>",
        "Qwen2ForCausalLM",
        lambda tokenizer: transformers.Qwen2AudioProcessor(_whisper(), tokenizer),
    ),
    "qwen2_5_omni_thinker": Family(
        "<|audio_bos|><|AUDIO|><|audio_eos|>",
        "<|AUDIO|>",
        "Qwen2ForCausalLM",
        _omni("Qwen2_5OmniProcessor"),
        OMNI,
        {"rope_parameters": ROPE},
        remark=TWIN,
    ),
    "qwen3_omni_moe_thinker": Family(
        "<|audio_bos|><|AUDIO|><|audio_eos|>",
        "<|AUDIO|>",
        "Qwen3MoeForCausalLM",
        _omni("Qwen3OmniMoeProcessor"),
        OMNI,
        {"rope_parameters": {**ROPE, "mrope_interleaved": True}},
        remark=f"{TWIN}; experts are not scored",
    ),
    "qwen3_asr": Family(
        "<|audio_start|><|audio_pad|><|audio_end|>",
        "<|audio_pad|>",
        "Qwen3ForCausalLM",
        lambda tokenizer: transformers.Qwen3ASRProcessor(transformers.Qwen3ASRFeatureExtractor(), tokenizer),
        QWEN3_ASR,
    ),
    "voxtral": Family("[AUDIO]", "[AUDIO]", "LlamaForCausalLM"),
    "granite_speech": Family("<|audio|>", "<|audio|>", "GraniteForCausalLM", _granite, settings=GRANITE, remark=SCALE),
    "granite_speech_plus": Family(
        "<|audio|>", "<|audio|>", "GraniteForCausalLM", _granite, settings=GRANITE, remark=SCALE
    ),
    "audioflamingo3": Family(
        "<sound>",
        "<sound>",
        "Qwen2ForCausalLM",
        lambda tokenizer: transformers.AudioFlamingo3Processor(_whisper(), tokenizer),
    ),
    "musicflamingo": Family(
        "<sound>",
        "<sound>",
        "Qwen2ForCausalLM",
        lambda tokenizer: transformers.MusicFlamingoProcessor(_whisper(), tokenizer),
        {"audio_bos_token": "<|sound_bos|>", "audio_eos_token": "<|sound_eos|>"},
    ),
    "glmasr": Family(
        "<|pad|>",
        "<|pad|>",
        "LlamaForCausalLM",
        lambda tokenizer: transformers.GlmAsrProcessor(_whisper(), tokenizer, audio_token="<|pad|>"),
    ),
    "fun_asr_nano": Family(
        "<|object_ref_start|>",
        "<|object_ref_start|>",
        "Qwen3ForCausalLM",
        lambda tokenizer: transformers.FunAsrNanoProcessor(
            transformers.FunAsrNanoFeatureExtractor(), tokenizer, audio_token="<|object_ref_start|>"
        ),
    ),
    "phi4_multimodal": Family(
        "<|audio|>",
        "<|audio|>",
        "Phi3ForCausalLM",
        _phi4,
        {"image_token": "<|image|>", "audio_token": "<|audio|>"},
        remark=TWIN,
    ),
    "gemma4": Family(
        "<|audio|>",
        "<|audio|>",
        "Gemma4ForCausalLM",
        _gemma4_processor,
        GEMMA4,
        config=_gemma4,
        remark="its embeddings at each layer are passed on",
    ),
    "moss_transcribe_diarize": Family("<|audio_pad|>", "<|audio_pad|>", "Qwen3ForCausalLM"),
}
"""The families that tests build, by model type."""


def tiny_tokenizer(family: Family) -> Any:
    """Gives a byte-level BPE tokenizer with the family's tokens and a chat template that places clips."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    own = [token for token in family.slot.replace("><", "> <").split() if token not in family.tokens.values()]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *dict.fromkeys([*own, *family.tokens.values()])]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["What is the capital of Peru? Lima. user assistant"] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={**family.tokens},
        chat_template=CHAT.replace("SLOT", family.slot),
    )
    return tokenizer


def _shrink(config: Any) -> Any:
    """Sets the sizes of a configuration and all that it holds."""
    for name in list(vars(config)):
        value = getattr(config, name, None)
        if hasattr(value, "to_dict"):
            _shrink(value)
        elif name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            setattr(config, name, SIZES[name])
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        config.layer_types = kinds[:2]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, 0 if name == "pad_token_id" else 2)
    return config


def tiny_config(name: str, tokenizer: Any) -> Any:
    """Gives the configuration of a family, with the ids that its tokenizer has."""
    family = FAMILIES[name]
    config = family.config() if family.config else _shrink(CONFIG_MAPPING[name]())
    if hasattr(config, "adaptor_config"):  # of Fun-ASR
        config.adaptor_config.intermediate_size = config.get_text_config().hidden_size // 4
    for key, value in family.settings.items():
        setattr(config.get_text_config(), key, value)
    ids = {"audio_token_id": family.audio, "audio_token_index": family.audio}
    ids |= {f"{name}_id": token for name, token in family.tokens.items()}
    ids |= {"audio_start_token_id": OMNI["audio_bos_token"], "vision_start_token_id": OMNI["vision_bos_token"]}
    parts = [config, *(part for part in (getattr(config, f"{of}_config", None) for of in ("audio", "vision")) if part)]
    for key, token in ids.items():
        number = tokenizer.convert_tokens_to_ids(token)
        for part in parts:
            if hasattr(part, key) or (part is config and key == "vision_start_token_id"):
                setattr(part, key, 0 if number is None else number)
    return config


def class_of(name: str) -> type[Any]:
    """Gives the class of a family in transformers."""
    config = CONFIG_MAPPING[name]
    maps = (MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING)
    return next(found[config] for found in maps if config in found)


def build_tiny(name: str, tokenizer: Any, seed: int = 0) -> Any:
    """Gives the random model of a family, in float32 and eval mode."""
    config = tiny_config(name, tokenizer)
    torch.manual_seed(seed)
    return class_of(name)(config).eval()


def write_tiny_audio_llm(name: str, folder: Path, seed: int = 0) -> Path:
    """Writes a folder as the hub has it: model, tokenizer, and the processor where it can be made."""
    tokenizer = tiny_tokenizer(FAMILIES[name])
    build_tiny(name, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if (make := FAMILIES[name].processor) is not None:
        processor = make(tokenizer)
        processor.chat_template = tokenizer.chat_template
        processor.save_pretrained(folder)
    return folder
