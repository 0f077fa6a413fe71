"""Where an adaptor that no file gives starts, against norms that are measured here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from textkeep.lightning_modules import Adaptor, ConcatMLP, SpeechLLM, StackSwiGLU, StackTransformer, WhisperEncoder


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
