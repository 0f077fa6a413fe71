"""Converters against models that were made here: the same logits must come out."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from safetensors.torch import load_file

from textkeep.cli.assets.ct2_whisper import convert_ct2
from textkeep.cli.assets.gguf_llama import convert_gguf, hugging_face_name, unpermute
from textkeep.cli.errors import CommandError

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


def write_gguf(path: Path, folder: Path, *, quantised: str = "", tokenizer: str = "gpt2") -> dict[str, np.ndarray]:
    """A tiny Hugging Face Llama as GGUF; returns its weights, rounded to what the file can hold."""
    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    tokens = sorted(vocabulary["model"]["vocab"].items(), key=lambda item: item[1])
    merges = [m if isinstance(m, str) else " ".join(m) for m in vocabulary["model"]["merges"]]
    writer = GGUFWriter(path, "llama")
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
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([3 if token.startswith("<|") else 1 for token, _ in tokens])
    writer.add_token_merges(merges)
    for kind in ("bos", "eos", "pad"):
        getattr(writer, f"add_{kind}_token_id")(config[f"{kind}_token_id"])
    writer.add_chat_template(TEMPLATE)
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
    with pytest.raises(CommandError, match="is a gemma3; only the llama"):
        convert_gguf(tmp_path / "other.gguf", tmp_path)
    write_gguf(tmp_path / "spm.gguf", tiny_llm_dir, tokenizer="llama")
    with pytest.raises(CommandError, match="only byte-level BPE"):
        convert_gguf(tmp_path / "spm.gguf", tmp_path)
    with pytest.raises(CommandError, match=r"unknown tensor 'blk.0.attn_sinks.weight'"):
        hugging_face_name("blk.0.attn_sinks.weight")


# CTranslate2


def ct2_arrays(folder: Path, layers: tuple[int, int]) -> dict[str, np.ndarray]:
    """A Hugging Face Whisper's weights under CTranslate2's names, attention fused."""
    state = {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    arrays: dict[str, np.ndarray] = {"encoder/num_heads": np.array([4], np.int16)}

    def copy(source: str, target: str, kinds: tuple[str, str] = ("weight", "bias")) -> None:
        arrays[f"{target}/{kinds[0]}"] = state[f"model.{source}.weight"]
        arrays[f"{target}/{kinds[1]}"] = state[f"model.{source}.bias"]

    def fuse(source: str, target: str, letters: str) -> None:
        weights = [state[f"model.{source}.{letter}_proj.weight"] for letter in letters]
        zero = np.zeros(len(weights[0]), np.float32)
        arrays[f"{target}/weight"] = np.concatenate(weights)
        arrays[f"{target}/bias"] = np.concatenate([state.get(f"model.{source}.{x}_proj.bias", zero) for x in letters])

    norm = ("gamma", "beta")
    copy("encoder.conv1", "encoder/conv1")
    copy("encoder.conv2", "encoder/conv2")
    arrays["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    for side, count in zip(("encoder", "decoder"), layers, strict=True):
        arrays[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        copy(f"{side}.layer_norm", f"{side}/layer_norm", norm)
        for i in range(count):
            source, target = f"{side}.layers.{i}", f"{side}/layer_{i}"
            copy(f"{source}.self_attn_layer_norm", f"{target}/self_attention/layer_norm", norm)
            fuse(f"{source}.self_attn", f"{target}/self_attention/linear_0", "qkv")
            copy(f"{source}.self_attn.out_proj", f"{target}/self_attention/linear_1")
            if side == "decoder":
                copy(f"{source}.encoder_attn_layer_norm", f"{target}/attention/layer_norm", norm)
                copy(f"{source}.encoder_attn.q_proj", f"{target}/attention/linear_0")
                fuse(f"{source}.encoder_attn", f"{target}/attention/linear_1", "kv")
                copy(f"{source}.encoder_attn.out_proj", f"{target}/attention/linear_2")
            copy(f"{source}.final_layer_norm", f"{target}/ffn/layer_norm", norm)
            copy(f"{source}.fc1", f"{target}/ffn/linear_0")
            copy(f"{source}.fc2", f"{target}/ffn/linear_1")
    return arrays


def ct2_bytes(arrays: dict[str, np.ndarray], specification: str = "WhisperSpec", version: int = 6) -> bytes:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    kinds = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int16): 2, np.dtype(np.float16): 4}
    data = struct.pack("<I", version) + string(specification) + struct.pack("<I", 3) + struct.pack("<I", len(arrays))
    for name, array in arrays.items():
        data += string(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        data += struct.pack("<BI", kinds[array.dtype], array.nbytes) + np.ascontiguousarray(array).tobytes()
    return data + struct.pack("<I", 1) + string("decoder/projection/weight") + string("decoder/embeddings/weight")


@pytest.fixture
def ct2_folder(tiny_whisper_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "ct2"
    folder.mkdir()
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>", "<|0.00|>"]
    letters = {chr(97 + i): i for i in range(26)}
    added = [{"content": text, "id": 26 + i, "special": True} for i, text in enumerate(special)]
    tokenizer = {"added_tokens": added, "model": {"vocab": letters, "merges": [["a", "b"]]}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    ct2 = {"alignment_heads": [[0, 0]], "lang_ids": [], "suppress_ids": [-1, 5], "suppress_ids_begin": [26]}
    (folder / "config.json").write_text(json.dumps(ct2))
    return folder


def test_a_whisper_comes_out_of_ctranslate2_with_the_same_values(
    tiny_whisper_dir: Path, ct2_folder: Path, tmp_path: Path
) -> None:
    from transformers import WhisperForConditionalGeneration

    (ct2_folder / "model.bin").write_bytes(ct2_bytes(ct2_arrays(tiny_whisper_dir, (2, 1))))
    out = tmp_path / "out"
    out.mkdir()
    convert_ct2([ct2_folder], out)
    converted, state = load_file(out / "model.safetensors"), load_file(tiny_whisper_dir / "model.safetensors")
    assert set(converted) == set(state)
    assert all(torch.equal(converted[name], state[name]) for name in state)
    config = json.loads((out / "config.json").read_text())
    assert (config["encoder_layers"], config["decoder_layers"], config["encoder_attention_heads"]) == (2, 1, 4)
    assert (config["d_model"], config["num_mel_bins"], config["encoder_ffn_dim"]) == (32, 80, 64)
    assert config["decoder_start_token_id"] == 27
    generation = json.loads((out / "generation_config.json").read_text())
    assert (generation["suppress_tokens"], generation["is_multilingual"]) == ([5], False)
    assert "<|0.00|>" not in json.loads((out / "tokenizer_config.json").read_text())["additional_special_tokens"]
    models = [WhisperForConditionalGeneration.from_pretrained(p, dtype=torch.float32) for p in (out, tiny_whisper_dir)]
    features, ids = torch.randn(1, 80, 3000), torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        logits = [model.eval()(features, decoder_input_ids=ids).logits for model in models]
    torch.testing.assert_close(*logits, rtol=0, atol=0)


def test_a_model_in_parts_and_in_int8(tiny_whisper_dir: Path, ct2_folder: Path, tmp_path: Path) -> None:
    arrays = ct2_arrays(tiny_whisper_dir, (2, 1))
    name = "encoder/layer_0/ffn/linear_0"
    weight = np.tile(np.arange(-16, 16, dtype=np.int8), (64, 1))
    arrays[f"{name}/weight"], arrays[f"{name}/weight_scale"] = weight, np.full(64, 4.0, np.float32)
    data = ct2_bytes(arrays)
    other = tmp_path / "second"
    other.mkdir()
    (ct2_folder / "model.bin.part1").write_bytes(data[:5000])
    (other / "model.bin.part2").write_bytes(data[5000:])
    out = tmp_path / "out"
    out.mkdir()
    convert_ct2([ct2_folder, other], out)
    expanded = load_file(out / "model.safetensors")["model.encoder.layers.0.fc1.weight"]
    assert torch.equal(expanded, torch.from_numpy(weight.astype(np.float32) / 4))


def test_damaged_and_other_models_are_refused_in_one_line(ct2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no model\.bin in ct2"):
        convert_ct2([ct2_folder], tmp_path)
    arrays = {"decoder/embeddings/weight": np.zeros((2, 2), np.float32)}
    for data, message in (
        (ct2_bytes(arrays, "TransformerSpec"), "wanted a Whisper, the CTranslate2 model is a TransformerSpec"),
        (ct2_bytes(arrays, version=4), "of format 4; 5 or newer"),
        (ct2_bytes(arrays) + b"x", "bytes left over"),
    ):
        (ct2_folder / "model.bin").write_bytes(data)
        with pytest.raises(CommandError, match=message):
            convert_ct2([ct2_folder], tmp_path)
