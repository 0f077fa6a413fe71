"""The ear of encoder and adaptor: what hears, held against the same steps done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.speech_batches import make_batch
from tests.support.tiny_audio_llms import write_tiny_audio_llm
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.ears.adaptor_start import begin_adaptor


def test_weights_are_drawn_and_named_as_without_an_ear(
    model: SpeechLLM, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir, dtype=torch.float32)
    encoder, adaptor = WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(stack=5, hidden=16)
    encoder.load()
    begin_adaptor(adaptor, encoder, llm, len(model.tokenizer))
    parts = {"llm": llm, "encoder": encoder, "adaptor": adaptor}
    wanted = {
        f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()
    }
    found = model.state_dict()
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_what_the_llm_gets_is_what_encoder_and_adaptor_give_bit_for_bit(model: SpeechLLM) -> None:
    batch = make_batch(model.eval(), [40, None, 73])
    with torch.no_grad():
        wanted = model.llm.get_input_embeddings().weight[batch.input_ids]
        speech, lengths = model.adaptor(*model.encoder(batch.features, batch.feature_lengths))
        for clip, row in enumerate((0, 2)):
            wanted[row, batch.audio_mask[row]] = speech[clip, : lengths[clip]]
        found = model.embed(batch)
    assert torch.equal(found["inputs_embeds"], wanted)
    assert found["labels"] is batch.labels
    assert found["attention_mask"] is batch.attention_mask


def test_a_frozen_encoder_leaves_no_graph_and_one_that_trains_does(model: SpeechLLM) -> None:
    batch = make_batch(model, [40])
    assert not model.encode_speech(batch.features, batch.feature_lengths)[0].requires_grad
    model.encoder.requires_grad_(True)
    assert model.encode_speech(batch.features, batch.feature_lengths)[0].requires_grad


def test_frames_that_were_cached_are_not_encoded_again(model: SpeechLLM) -> None:
    batch = make_batch(model.eval(), [40, 73])
    with torch.no_grad():
        wanted, lengths = model.speech_embeddings(batch)
        frames, batch.feature_lengths = model.encode_speech(batch.features, batch.feature_lengths)
        batch.features, batch.encoded = frames.transpose(1, 2), True
        model.encoder = None  # type: ignore[assignment]
        found, again = model.speech_embeddings(batch)
    assert torch.equal(found, wanted)
    assert torch.equal(again, lengths)


@pytest.mark.parametrize("family", ["glmasr", "phi4_multimodal"])  # the second is a causal LM of transformers too
def test_an_audio_llm_is_refused_before_weights_are_read(family: str, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    folder = write_tiny_audio_llm(family, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"^model\.llm: '.*' is an audio LLM; allowed: model.ear: OwnEar"):
        SpeechLLM(str(folder), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16))
