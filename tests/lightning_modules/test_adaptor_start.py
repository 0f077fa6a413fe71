"""Where an adaptor that no file gives starts, against norms that are measured here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from textkeep.lightning_modules import Adaptor, ConcatMLP, SpeechLLM, StackSwiGLU, StackTransformer, WhisperEncoder
from textkeep.lightning_modules.ears.adaptor_start import start_at_embedding_norm


@pytest.mark.parametrize("vocabulary", [100, 1000])
def test_quiet_noise_gets_the_mean_norm_of_the_vocabulary(model: SpeechLLM, vocabulary: int) -> None:
    words = model.llm.get_input_embeddings().weight.detach()
    assert len(words) == 303
    with torch.no_grad():
        model.adaptor.output.bias.normal_(std=3)  # scaled as the weight is
        words[100:] *= 5
    start_at_embedding_norm(model.adaptor, model.encoder, model.llm, vocabulary)
    noise = 0.01 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        heard, lengths = model.adaptor(*model.encoder(model.encoder.extractor()(noise)[None], torch.tensor([100])))
    assert lengths.tolist() == [10]
    wanted = sum(math.dist(word, [0.0] * 32) for word in words[:vocabulary].tolist()) / min(vocabulary, 303)
    found = sum(math.dist(position, [0.0] * 32) for position in heard[0].tolist()) / 10
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("adaptor", [ConcatMLP(5, 16), StackSwiGLU(8, 16), StackTransformer(4, 16, 2, 2)])
def test_a_new_adaptor_speaks_as_loud_as_the_llms_words(
    adaptor: Adaptor, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    torch.manual_seed(0)
    model = SpeechLLM(str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), adaptor)
    model.configure_model()
    words = model.llm.get_input_embeddings().weight[: len(model.tokenizer)]
    wanted = words.square().sum(dim=1).sqrt().mean().item()
    features = model.encoder.extractor()(0.02 * torch.randn(24000))[None]
    with torch.no_grad():
        heard, lengths = model.adaptor.eval()(*model.encoder(features, torch.tensor([features.shape[2]])))
    found = heard[0, : int(lengths)].square().sum(dim=1).sqrt().mean().item()
    assert found / wanted == pytest.approx(1, abs=0.1)
