"""Where an adaptor that no file gives starts, against norms that are measured here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from textkeep.lightning_modules import Adaptor, ConcatMLP, SpeechLLM, StackSwiGLU, StackTransformer, WhisperEncoder
from textkeep.lightning_modules.ears.adaptor_start import start_at_embedding_norm
from textkeep.lightning_modules.saving.adaptor_file import save_adaptor


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


def test_an_adaptor_that_another_llm_was_trained_with_is_told(
    model: SpeechLLM, tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path, words = tmp_path / "adaptor.safetensors", model.llm.get_input_embeddings().weight.detach()
    parts = WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(stack=5, hidden=16)

    def told(trained_with: torch.Tensor | None) -> list[str]:
        save_adaptor(path, model.adaptor, model.encoder, "smol", torch.float32, trained_with)
        recwarn.clear()
        other = SpeechLLM(str(tiny_llm_dir), *parts, adaptor_weights=str(path))
        other.configure_model()
        return [str(warning.message) for warning in recwarn if "adaptor_weights" in str(warning.message)]

    assert told(words) == told(words.double()) == told(words.bfloat16()) == told(None) == []
    (line,) = told(words + 0.1)
    assert line.startswith("adaptor_weights: adaptor.safetensors was trained for other weights of an LLM (smol) than")
