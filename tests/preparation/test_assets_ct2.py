"""The CTranslate2 converter against a model that is made here: the same values must come out."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textkeep.foundation.errors import UserError
from textkeep.preparation.assets.ct2_whisper import convert_ct2


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
    with pytest.raises(UserError, match=r"no model\.bin in ct2"):
        convert_ct2([ct2_folder], tmp_path)
    arrays = {"decoder/embeddings/weight": np.zeros((2, 2), np.float32)}
    for data, message in (
        (ct2_bytes(arrays, "TransformerSpec"), "the CTranslate2 model is a TransformerSpec, not a Whisper"),
        (ct2_bytes(arrays, version=4), "of format 4; 5 or newer"),
        (ct2_bytes(arrays) + b"x", "bytes left over"),
    ):
        (ct2_folder / "model.bin").write_bytes(data)
        with pytest.raises(UserError, match=message):
            convert_ct2([ct2_folder], tmp_path)
