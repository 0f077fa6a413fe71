"""Text LLMs that take embeddings of their tokens at each layer (Gemma 3n, Gemma 4), and that no audio LLM holds."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tests.support.speech_batches import make_batch
from tests.support.tiny_audio_llms import FAMILIES, ROWS, build_tiny, tiny_config, tiny_tokenizer
from textkeep.inference.text_llm import TextLLM
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.llm.carving import carve
from textkeep.lightning_modules.llm.opening import open_causal_lm
from textkeep.lightning_modules.llm.reference import ReferenceLLM

TOKENIZER = tiny_tokenizer(FAMILIES["gemma4"])


def _gemma3n() -> Any:
    return CONFIG_MAPPING["gemma3n_text"](
        **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), ROWS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        laurel_rank=4,
        layer_types=["sliding_attention", "full_attention"],
        activation_sparsity_pattern=[0.0] * 2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


CONFIGS = {"gemma4": lambda: tiny_config("gemma4", TOKENIZER).text_config, "gemma3n": _gemma3n}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(config()).save_pretrained(made[name])
        TOKENIZER.save_pretrained(made[name])
    return made


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_by_name_it_reads_and_writes_as_it_does_from_ids(name: str, folders: dict[str, Path]) -> None:
    llm = open_causal_lm(str(folders[name]), torch.float32).eval()
    plain = AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    ids = torch.tensor([[0, 9, 30, 44, 60], [5, 9, 33, 41, 7]])
    mask = ids.ne(0).long()
    wanted = plain(input_ids=ids[1:], labels=ids[1:]).loss * 4
    for reader in (TextLLM(llm, TOKENIZER), TextLLM(llm, TOKENIZER)):  # the second of the same LLM changes nothing
        batch: Any = SimpleNamespace(input_ids=ids, attention_mask=mask, labels=ids, end_id=None)
        torch.testing.assert_close(reader.answer_losses(batch)[0][1], wanted)
    written = plain.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False)[:, 5:]
    texts = TOKENIZER.batch_decode(written, skip_special_tokens=True)
    assert reader.write(batch, 4).texts == [text.strip() for text in texts]


@torch.no_grad()
def test_gemma_3n_is_untouched_behind_an_encoder(folders: dict[str, Path], tiny_whisper_dir: Path) -> None:
    encoder = WhisperEncoder(str(tiny_whisper_dir))
    model = SpeechLLM(str(folders["gemma3n"]), encoder, ConcatMLP(5, 16), max_new_tokens=3)
    model.configure_model()
    model.eval()
    batch = make_batch(model, [None, None])
    torch.testing.assert_close(model.untouched_losses(batch)[0], model.answer_losses(batch)[0])
    prompts = make_batch(model, [None, None], left=True)
    assert model.generate_untouched(prompts) == model.generate(prompts)


def test_gemma_4_behind_an_encoder_is_refused_at_construction(folders: dict[str, Path], tiny_whisper_dir: Path) -> None:
    name = str(folders["gemma4"])
    with pytest.raises(ValueError, match=r"model\.llm: '.*' \(gemma4_text\) has embeddings of each token at every"):
        SpeechLLM(name, WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16))


@torch.no_grad()
def test_gemma_4_that_hears_is_held_against_its_text_base(folders: dict[str, Path]) -> None:
    base = AutoModelForCausalLM.from_pretrained(folders["gemma4"]).eval()
    llm = carve(build_tiny("gemma4", TOKENIZER, seed=1))
    reference = ReferenceLLM(lambda _: pytest.fail("not that"), llm, lambda _: None, lambda _: deepcopy(base))
    ids = torch.tensor([[5, 9, 33, 41, 7]])
    batch: Any = SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    looked_up = type(base.model).get_per_layer_inputs
    wanted = base(input_ids=ids).logits[:, :-1]
    # by ids, never by a comparison with the whole vocabulary
    with patch.object(type(base.model), "get_per_layer_inputs", lambda model, ids: looked_up(model, ids)):
        torch.testing.assert_close(reference.untouched_logits(batch).logits, wanted)
