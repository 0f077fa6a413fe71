"""The GGUF converter against a model that is made here: the same logits must come out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from safetensors.torch import load_file

from textkeep.foundation.errors import UserError
from textkeep.preparation.assets.gguf_llama import convert_gguf, hugging_face_name, unpermute

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's own converter does to the rows of queries and keys, row by row."""
    size = weight.shape[0] // heads
    rows = []
    for head in range(heads):
        for pair in range(size // 2):
            rows += [weight[head * size + pair], weight[head * size + pair + size // 2]]
    return np.stack(rows)


def gguf_name(name: str) -> str:
    kinds = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in kinds:
        return kinds[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    return f"blk.{layer}.{parts[rest.removesuffix('.weight')]}.weight"


def write_header(writer: GGUFWriter, config: dict[str, Any], tokenizer: str) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre("smollm")
    for kind in ("bos", "eos", "pad"):
        getattr(writer, f"add_{kind}_token_id")(config[f"{kind}_token_id"])
    writer.add_chat_template(TEMPLATE)


def write_gguf(path: Path, folder: Path, *, quantised: str = "", tokenizer: str = "gpt2") -> dict[str, np.ndarray]:
    """A tiny Hugging Face Llama as GGUF; returns its weights, rounded to what the file can hold."""
    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    tokens = sorted(vocabulary["model"]["vocab"].items(), key=lambda item: item[1])
    merges = [m if isinstance(m, str) else " ".join(m) for m in vocabulary["model"]["merges"]]
    writer = GGUFWriter(path, "llama")
    write_header(writer, config, tokenizer)
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([3 if token.startswith("<|") else 1 for token, _ in tokens])
    writer.add_token_merges(merges)
    state = {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    for name, weight in state.items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        projection = next((head for head in heads if head in name), None)
        stored = permute(weight, heads[projection]) if projection else weight
        if name == quantised:
            packed = quantize(stored, GGMLQuantizationType.Q8_0)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(gguf_name(name), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return state


def test_a_llama_comes_out_of_gguf_with_the_same_logits(tiny_llm_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    state = write_gguf(tmp_path / "tiny.gguf", tiny_llm_dir)
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", out)
    converted = load_file(out / "model.safetensors")
    assert set(converted) == set(state)
    for name, weight in state.items():
        assert torch.equal(converted[name], torch.from_numpy(weight).half()), name
    original = AutoModelForCausalLM.from_pretrained(tiny_llm_dir, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    original.load_state_dict({k: v.half().float() for k, v in original.state_dict().items()})
    ids = torch.arange(20)[None] % 300
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=0, atol=1e-6)


def test_the_tokenizer_of_a_gguf_splits_digits_and_keeps_specials(tiny_llm_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_gguf(tmp_path / "tiny.gguf", tiny_llm_dir)
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", out)
    new, old = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(tiny_llm_dir)
    text = "What is the capital of Perú?\n<|im_end|>"
    assert new(text).input_ids == old(text).input_ids
    assert new.decode(new(text).input_ids) == text
    assert new.tokenize("1776") == list("1776")
    assert new.eos_token == "<|im_end|>"
    assert new.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def test_quantised_weights_are_expanded(tiny_llm_dir: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    state = write_gguf(tmp_path / "tiny.gguf", tiny_llm_dir, quantised=name)
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", out)
    weight = load_file(out / "model.safetensors")[name].float().numpy()
    # Q8_0 keeps 32 weights of a row in 8 bits and one scale in float16: q = round(w / scale), scale = max|w| / 127.
    blocks = state[name].reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    expected = np.round(blocks / scale) * scale.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(weight.reshape(-1, 32), expected, rtol=2e-3, atol=1e-6)


def test_rows_of_queries_are_put_back() -> None:
    weight = np.arange(16.0).reshape(8, 2)
    stored = permute(weight, 2)
    assert stored[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]
    np.testing.assert_array_equal(unpermute(stored, 2), weight)


def test_other_gguf_files_are_refused_in_one_line(tiny_llm_dir: Path, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "other.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="is a gemma3; only the llama"):
        convert_gguf(tmp_path / "other.gguf", tmp_path)
    write_gguf(tmp_path / "spm.gguf", tiny_llm_dir, tokenizer="llama")
    with pytest.raises(UserError, match="only byte-level BPE"):
        convert_gguf(tmp_path / "spm.gguf", tmp_path)
    with pytest.raises(UserError, match=r"unknown tensor 'blk.0.attn_sinks.weight'"):
        hugging_face_name("blk.0.attn_sinks.weight")
