"""``LoadedModel.losses`` against teacher forcing by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.measured_runs import STEPS, MeasuredRun
from textkeep.cli.main import main
from textkeep.foundation.errors import UserError
from textkeep.inference import load, read_examples

from .by_hand import loss, tuned_weights


@pytest.fixture
def base(talkative_llm_dir: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(talkative_llm_dir).eval()


@pytest.mark.parametrize("kind", ["full", "lora", "turns"])
@pytest.mark.parametrize("modality", ["text", "speech"])
def test_losses_of_a_run(
    kind: str, modality: Any, measured_run: MeasuredRun, tiny_manifest: Path, tiny_tokenizer: Any, base: Any
) -> None:
    run = measured_run(kind)
    model = load(run, "cpu")
    examples = read_examples(str(tiny_manifest), modality)
    untouched = [loss(base, tiny_tokenizer, e, model.speech_llm if modality == "speech" else None) for e in examples]
    tuned = tuned_weights(base, run / f"checkpoints/step={STEPS:06d}.ckpt")
    expected = [loss(tuned, tiny_tokenizer, e, model.speech_llm if modality == "speech" else None) for e in examples]
    assert not np.allclose(expected, untouched, rtol=1e-3)  # what was learned shows
    if (kind, modality) == ("turns", "text"):
        expected = untouched  # a written question meets the untouched LLM
    found = model.losses(examples, modality, batch_size=4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(model.losses(str(tiny_manifest), modality), found, rtol=1e-6)


def test_losses_of_a_text_llm(talkative_llm_dir: Path, tiny_manifest: Path, tiny_tokenizer: Any, base: Any) -> None:
    model = load(str(talkative_llm_dir), "cpu")
    examples = read_examples(str(tiny_manifest))
    expected = [loss(base, tiny_tokenizer, example) for example in examples]
    np.testing.assert_allclose(model.losses(examples, batch_size=4), expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"cannot listen; allowed: text, an audio LLM, or a TextKeep run$"):
        model.losses(examples, "speech")


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_losses_of_an_export_are_those_of_its_run(
    kind: str, measured_run: MeasuredRun, tiny_manifest: Path, tmp_path: Path
) -> None:
    run = measured_run(kind)
    assert main(["export", str(run), "-o", str(tmp_path / "export")]) == 0
    for modality in ("text", "speech"):
        found = load(tmp_path / "export", "cpu").losses(str(tiny_manifest), modality)  # type: ignore[arg-type]
        expected = load(run, "cpu").losses(str(tiny_manifest), modality)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_count_is_the_choice_of_a_probe(tiny_llm_dir: Path, tiny_manifest: Path) -> None:
    model = load(tiny_llm_dir, "cpu")
    chosen = read_examples(str(tiny_manifest), count=3)
    others = read_examples(str(tiny_manifest), count=3, skip=3)
    assert {e.id for e in chosen} | {e.id for e in others} == {f"q{i}" for i in range(6)}
    np.testing.assert_allclose(model.losses(str(tiny_manifest), count=3), model.losses(chosen), rtol=1e-6)
    assert not np.allclose(model.losses(chosen), model.losses(others))


def test_examples_that_lack_the_modality_are_refused(tiny_manifest: Path) -> None:
    from dataclasses import replace

    examples = read_examples(str(tiny_manifest))
    with pytest.raises(UserError, match=r"^example 'q1' has no speech; allowed: examples that have it$"):
        read_examples([examples[0], replace(examples[1], audio=None)], "speech")
    with pytest.raises(UserError, match=r"has only 6 examples with text"):
        read_examples(str(tiny_manifest), count=2, skip=6)
