"""A model and its base in one place: heads that are tied in one of the two alone, and speech where it can be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.support.measured_runs import MeasuredRun
from textkeep.foundation.errors import UserError
from textkeep.inference import load, read_examples
from textkeep.inference.loaded_model import LoadedModel
from textkeep.inference.merging import base_values
from textkeep.inference.origin import Origin
from textkeep.inference.text_llm import TextLLM
from textkeep.inference.two_models import Mixtures, ModelQuestions


def tiny(folder: Path, tied: bool, seed: int) -> LoadedModel:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    llm = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=tied))
    return LoadedModel(TextLLM(llm.eval(), AutoTokenizer.from_pretrained(folder)), Origin("tied" if tied else "untied"))


def test_the_head_of_a_tied_base_is_its_embedding(tiny_llm_dir: Path) -> None:
    base, tuned = tiny(tiny_llm_dir, True, 0), tiny(tiny_llm_dir, False, 1)
    found = base_values(base, tuned.llm)
    assert found.keys() == dict(tuned.llm.named_parameters()).keys()
    assert torch.equal(found["lm_head.weight"], base.llm.get_input_embeddings().weight)
    Mixtures(base, tuned).change.apply(0.0)
    ids = torch.arange(5)[None]
    assert torch.equal(tuned.llm(ids).logits, base.llm(ids).logits)


def test_a_base_with_a_head_of_its_own_does_not_fit_a_tied_model(tiny_llm_dir: Path) -> None:
    with pytest.raises(UserError, match="untied has an output head of its own, and that of the other model is its emb"):
        base_values(tiny(tiny_llm_dir, False, 0), tiny(tiny_llm_dir, True, 1).llm)


def test_who_can_listen_is_asked_by_voice_too(
    measured_run: MeasuredRun, talkative_llm_dir: Path, tiny_manifest: Path
) -> None:
    """With a run in the place of an audio LLM: written questions in the base's words, spoken ones in its own."""
    run = measured_run("full")
    models = Mixtures(load(talkative_llm_dir, "cpu"), load(run, "cpu"))
    assert models.hears
    asked = read_examples(str(tiny_manifest), "speech", 3)
    spoken = {r.id: r for r in ModelQuestions([], asked).score(models).records if r.modality == "speech"}
    alone = load(run, "cpu")
    np.testing.assert_allclose([spoken[e.id].loss for e in asked], alone.losses(asked, "speech"), rtol=1e-6)
    answers = [text for written in alone.write(asked, "speech") for text in written.texts]
    assert [spoken[e.id].prediction for e in asked] == answers
    models.change.apply(0.0)
    written = [r for r in ModelQuestions([], asked).score(models).records if r.modality == "text"]
    np.testing.assert_allclose([r.loss for r in written], load(talkative_llm_dir, "cpu").losses(asked), rtol=1e-6)
