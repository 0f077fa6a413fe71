"""Gated LoRA: text is the base model's bit for bit, speech meets the adapters, the backward pass the right gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.lora_models import build, wake
from tests.support.speech_batches import make_batch
from textkeep.lightning_modules import LoRA, SpeechGate, SpeechLLM, SpeechPositions, SpeechTurns
from textkeep.lightning_modules.llm.generation import greedy_tokens
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.losses.answer_loss import predict_answers

GATES = [SpeechPositions, SpeechTurns]


@pytest.fixture(params=GATES, ids=lambda gate: gate.__name__)
def gated(request: pytest.FixtureRequest, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> SpeechLLM:
    return wake(build(LoRA(r=4, gate=request.param()), tiny_llm_dir, tiny_whisper_dir))


@pytest.fixture
def base(tiny_llm_dir: Path) -> Any:
    # Frozen, as it is under LoRA: torch multiplies by a weight that wants a gradient in another order.
    return AutoModelForCausalLM.from_pretrained(tiny_llm_dir).requires_grad_(False)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("clips", [[None, None], [40, None, 73, None]])
def test_text_rows_are_the_base_models_bit_for_bit(
    gated: SpeechLLM, base: Any, clips: list[int | None], train: bool
) -> None:
    gated.train(train)
    batch = make_batch(gated, clips)
    inputs = gated.embed(batch)
    expected = predict_answers(base, **inputs).logits
    found = gated.answer_logits(batch).logits
    text = [row for row, clip in enumerate(clips) if clip is None]
    speech = [row for row, clip in enumerate(clips) if clip is not None]
    assert torch.equal(found[text], expected[text])
    for row in speech:
        assert not torch.allclose(found[row], expected[row], atol=1e-3)
    with torch.no_grad():  # where the adapters may be left out wholly
        assert torch.equal(gated.answer_logits(batch).logits[text], expected[text])


def test_the_whole_text_row_is_equal_also_where_the_weights_give_negative_zeros(gated: SpeechLLM, base: Any) -> None:
    batch = make_batch(gated, [40, None])
    inputs = {k: v for k, v in gated.embed(batch).items() if k != "labels"}
    for model in (gated.llm, base):
        with torch.no_grad():
            parts = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 64]
            for part in parts:
                part.weight[3] = 0.0
    with gated.tuning.reading(batch.audio_mask):
        found = gated.llm(**inputs).logits
    expected = base(**inputs).logits
    assert torch.equal(found[1].view(torch.int32), expected[1].view(torch.int32))


def test_outside_a_reading_it_is_the_base_model(gated: SpeechLLM, base: Any) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(gated.llm(ids).logits, base(ids).logits)
    gated.answer_losses(make_batch(gated, [40]))
    assert torch.equal(gated.llm(ids).logits, base(ids).logits)
    with gated.tuning.gate.open():
        assert not torch.allclose(gated.llm(ids).logits, base(ids).logits, atol=1e-3)


def test_a_layer_by_hand(gated: SpeechLLM) -> None:
    layer = lora_layers(gated.llm)["model.layers.0.mlp.up_proj"]
    x = torch.randn(2, 5, 32)
    mask = torch.tensor([[False, True, True, False, False], [False] * 5])
    with gated.tuning.reading(mask):
        found = layer(x)
    plain = x @ layer.base_layer.weight.T
    moved = x @ (layer.base_layer.weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight).T
    gate = mask if isinstance(gated.tuning.gate, SpeechPositions) else mask.any(1, keepdim=True).expand(2, 5)
    torch.testing.assert_close(found, torch.where(gate[:, :, None], moved, plain))


def step_logits(llm: Any, inputs: dict[str, torch.Tensor], cache: bool = True) -> torch.Tensor:
    """(rows, 12, vocabulary): what greedy decoding chose from."""
    made = llm.generate(
        inputs_embeds=inputs["inputs_embeds"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=12,
        do_sample=False,
        use_cache=cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.stack(made.logits, dim=1)


@pytest.mark.parametrize("clips", [[None, None], [40, None, 73]])
def test_written_questions_get_the_base_models_answers(gated: SpeechLLM, base: Any, clips: list[int | None]) -> None:
    batch = make_batch(gated, clips, left=True)
    inputs = gated.embed(batch)
    with gated.tuning.reading(batch.audio_mask):
        found = step_logits(gated.llm, inputs)
    expected = step_logits(base, inputs)
    assert torch.equal(found[1], expected[1])
    assert torch.allclose(found[0], expected[0], atol=1e-3) == (clips[0] is None)
    answers = greedy_tokens(base, gated.tokenizer, inputs["inputs_embeds"], inputs["attention_mask"], 12).texts
    assert gated.generate(batch, 12)[1] == answers[1]


def test_generation_with_a_cache_equals_generation_without(gated: SpeechLLM) -> None:
    batch = make_batch(gated, [40, None, 73], left=True)
    inputs = gated.embed(batch)
    with gated.tuning.reading(batch.audio_mask):
        torch.testing.assert_close(step_logits(gated.llm, inputs), step_logits(gated.llm, inputs, cache=False))


def test_recomputation_uses_the_gate_of_its_own_forward_pass(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    for gate in GATES:
        gradients = []
        for recompute in (False, True):
            tuning = LoRA(r=4, gate=gate())
            model = wake(build(tuning, tiny_llm_dir, tiny_whisper_dir, gradient_checkpointing=recompute)).train()
            first, second = make_batch(model, [40, None]), make_batch(model, [None, 73])
            total = model.answer_losses(first)[0].sum() + model.answer_losses(second)[0].sum()
            total.backward()
            gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        for plain, again in zip(*gradients, strict=True):
            torch.testing.assert_close(plain, again)


def test_a_text_batch_leaves_every_adapter_a_zero_gradient(gated: SpeechLLM) -> None:
    gated.train()
    losses, _ = gated.answer_losses(make_batch(gated, [None, None]))
    losses.sum().backward()
    for parameter in gated.llm.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert not parameter.grad.any()


def test_the_teacher_inside_a_reading_is_the_base_model(gated: SpeechLLM, base: Any) -> None:
    batch = make_batch(gated, [40, None])
    inputs = gated.embed(batch)
    with gated.tuning.reading(batch.audio_mask), gated.reference.active() as llm:
        assert torch.equal(predict_answers(llm, **inputs).logits, predict_answers(base, **inputs).logits)


def test_measuring_meets_the_matrix_that_acts(gated: SpeechLLM) -> None:
    layer = next(iter(lora_layers(gated.llm).values()))
    with gated.tuning.measuring("text"):
        assert layer.disable_adapters
    speech = gated.tuning.measuring("speech")
    if isinstance(gated.tuning.gate, SpeechPositions):
        assert speech is None
    else:
        with speech:
            assert not layer.disable_adapters
    assert layer.disable_adapters


def test_flattened_rows_are_refused(gated: SpeechLLM) -> None:
    layer = next(iter(lora_layers(gated.llm).values()))
    with gated.tuning.reading(torch.ones(2, 5, dtype=torch.bool)), pytest.raises(ValueError, match="no routed experts"):
        layer(torch.zeros(10, 32))


def test_a_new_gate_is_one_method() -> None:
    class FirstPosition(SpeechGate):
        def open_at(self, audio_mask: torch.Tensor, length: int) -> torch.Tensor:
            return (torch.arange(length) == 0).expand(len(audio_mask), -1)

    assert FirstPosition().measuring_speech() is None
