"""Greedy generation: the LLM's own likeliest tokens, up to what was learned as the end, whatever stands beside them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.support.speech_batches import make_batch
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.llm.generation import greedily, greedy_tokens, stop_ids
from textkeep.lightning_modules.llm.vocabulary import check_vocabulary
from textkeep.lightning_modules.losses.modality_losses import ModalityLosses


@pytest.fixture
def talker(tiny_llm_dir: Path) -> Any:
    """The tiny LLM with larger weights: what it says depends on all that it has read."""
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for matrix in (p for p in llm.parameters() if p.dim() == 2):
            matrix.add_(0.4 * torch.randn_like(matrix))
        llm.get_input_embeddings().weight[:3] = 0  # it never says a special token: others have logits above 0
    return llm


def likeliest(llm: Any, embeds: Tensor, count: int) -> list[int]:
    """Greedy decoding by hand, of one row without padding."""
    said: list[int] = []
    for _ in range(count):
        said.append(int(llm(inputs_embeds=embeds).logits[0, -1].argmax()))
        embeds = torch.cat([embeds, llm.get_input_embeddings()(torch.tensor([said[-1:]]))], dim=1)
    return said


HUB = [
    {"repetition_penalty": 1.5},
    {"num_beams": 3},
    {"no_repeat_ngram_size": 1},
    {"do_sample": True, "temperature": 5.0, "top_k": 0},
    {"suppress_tokens": list(range(60, 340))},
    {"begin_suppress_tokens": list(range(60, 340))},
    {"bad_words_ids": [[token] for token in range(60, 340)]},
    {"forced_bos_token_id": 7, "forced_eos_token_id": 8},
    {"min_new_tokens": 9, "eos_token_id": 2},
    {"sequence_bias": [[[9], 100.0]]},
    {"encoder_repetition_penalty": 1.5},
    {"exponential_decay_length_penalty": [1, 9.0]},
    {"max_time": 1e-9},
    {"num_return_sequences": 2, "num_beams": 2},
]


@pytest.mark.parametrize("asked", HUB, ids=lambda asked: next(iter(asked)))
def test_greedy_means_the_likeliest_token_whatever_the_hub_asks_for(
    talker: Any, tiny_tokenizer: Any, asked: dict[str, Any]
) -> None:
    embeds = talker.get_input_embeddings()(torch.tensor([[5, 6, 7, 8]]))
    with torch.no_grad():
        expected = likeliest(talker, embeds, 8)
    assert not {*expected} & {*stop_ids(talker, tiny_tokenizer)}
    talker.generation_config.update(**asked)
    theirs = talker.generation_config
    found = greedy_tokens(talker, tiny_tokenizer, embeds, torch.ones(1, 4, dtype=torch.long), 8)
    assert found.ids.tolist() == [expected]
    assert talker.generation_config is theirs


def test_the_hubs_config_comes_back_after_an_error(talker: Any, tiny_tokenizer: Any) -> None:
    theirs = talker.generation_config
    with pytest.raises(RuntimeError), greedily(talker, tiny_tokenizer, [2]):
        talker.generate(inputs_embeds=torch.zeros(1, 1, 7))
    assert talker.generation_config is theirs


def test_what_was_learned_as_the_end_stops(talker: Any, tiny_tokenizer: Any) -> None:
    embeds = talker.get_input_embeddings()(torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]]))
    mask = torch.ones(2, 4, dtype=torch.long)
    whole = greedy_tokens(talker, tiny_tokenizer, embeds, mask, 8)
    assert whole.ended == [False, False]
    end = whole.ids[0, 4].item()
    assert end not in whole.ids[0, :4]
    cut = greedy_tokens(talker, tiny_tokenizer, embeds, mask, 8, int(end))
    assert cut.ended[0]
    assert cut.texts[0] == tiny_tokenizer.decode(whole.ids[0, :4]).strip()  # the end is no part of the answer
    assert cut.texts[1] == whole.texts[1] or cut.ended[1]
    talker.generation_config.eos_token_id = [int(end)]
    assert greedy_tokens(talker, tiny_tokenizer, embeds, mask, 8).texts == cut.texts
    assert stop_ids(talker, tiny_tokenizer, 9) == sorted({int(end), 9, tiny_tokenizer.eos_token_id})
    talker.generation_config.eos_token_id = None
    assert stop_ids(talker, tiny_tokenizer) == [tiny_tokenizer.eos_token_id]


@pytest.mark.parametrize("untouched", [False, True])
def test_a_learned_end_reaches_every_generation(model: SpeechLLM, talker: Any, untouched: bool) -> None:
    model.eval()
    model.llm.load_state_dict(talker.state_dict())
    model._reference._copy = talker
    generate = model.generate_untouched if untouched else model.generate
    batch = make_batch(model, [None, None], left=True)
    embeds = talker.get_input_embeddings()(batch.input_ids)
    ids = greedy_tokens(talker, model.tokenizer, embeds, batch.attention_mask, 6).ids[0].tolist()
    assert generate(batch, 6)[0] == model.tokenizer.decode(ids).strip()
    ended = generate(replace(batch, end_id=ids[2]), 6)
    assert ended[0] == model.tokenizer.decode(ids[: ids.index(ids[2])]).strip()
    with model.writing_greedily(ids[2]):
        assert ids[2] in model.llm.generation_config.eos_token_id


def test_a_row_is_answered_as_if_it_were_alone(model: SpeechLLM, talker: Any) -> None:
    model.eval()
    model.llm.load_state_dict(talker.state_dict())
    clips = [40, None, 73]
    together = make_batch(model, clips, left=True)
    answers = model.generate(together, 8)
    spoken = 0
    for row, clip in enumerate(clips):
        real = together.attention_mask[row].bool()
        alone = replace(
            together,
            **{name: getattr(together, name)[row, real][None] for name in ("input_ids", "labels", "audio_mask")},
            attention_mask=torch.ones(1, int(real.sum()), dtype=torch.long),
            features=together.features[spoken : spoken + 1] if clip else together.features[:0],
            feature_lengths=together.feature_lengths[spoken : spoken + 1] if clip else together.feature_lengths[:0],
        )
        spoken += clip is not None
        assert model.generate(alone, 8) == [answers[row]]
    blind = replace(together, attention_mask=torch.ones_like(together.attention_mask))
    assert model.generate(blind, 8) != answers  # the padding would be heard


def test_the_loss_of_an_evaluation_is_over_tokens_not_rows() -> None:
    metric = ModalityLosses()
    metric.update(torch.tensor([10.0, 1.0, 8.0]), torch.tensor([2, 10, 4]), ["speech", "speech", "text"])
    metric.update(torch.tensor([3.0, 0.0]), torch.tensor([6, 0]), ["speech", "text"])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx({"speech": (10 + 1 + 3) / (2 + 10 + 6), "text": 8 / 4})
    metric.update(torch.tensor([5.0]), torch.tensor([5]), ["text"])
    assert {name: value.item() for name, value in metric.compute().items()} == {"text": 1.0}  # begun anew


def changed(tiny_llm_dir: Path, folder: Path, tokenizer: Any) -> str:
    shutil.copytree(tiny_llm_dir, folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_tokenizer_without_an_end_is_refused(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    folder = changed(tiny_llm_dir, tmp_path / "llm", tiny_tokenizer)
    config = tmp_path / "llm/tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "eos_token"}))
    with pytest.raises(ValueError, match=r"model\.llm: the tokenizer of '.*llm' has no end-of-sequence token; allowed"):
        SpeechLLM(folder, WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16))


def test_tokens_without_an_embedding_are_refused_if_they_are_used(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llm_dir)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})  # as in Gemma 3's text models
    folder = changed(tiny_llm_dir, tmp_path / "unused", tokenizer)
    SpeechLLM(folder, WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16)).configure_model()
    tokenizer.pad_token = "[PAD]"
    folder = changed(tiny_llm_dir, tmp_path / "pad", tokenizer)
    llm = SpeechLLM(folder, WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16))
    with pytest.raises(
        ValueError, match=rf"model\.llm: '.*pad': .*lacks \('\[PAD\]' is \d+; it has {rows} rows\); allow"
    ):
        llm.configure_model()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<image>")
    with pytest.raises(ValueError, match=rf"x: .*\('<image>' is {rows}"):
        check_vocabulary(AutoModelForCausalLM.from_pretrained(tiny_llm_dir), tokenizer, "x")
