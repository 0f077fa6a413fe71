"""Answers that go on from a batch that was read with its targets: the same tokens as those of the prompts alone."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.lora_models import wake
from tests.support.speech_batches import make_batch
from textkeep.foundation.assets import locate
from textkeep.inference import load, read_examples
from textkeep.inference.batching import make_batches
from textkeep.lightning_modules import LoRA, SpeechLLM, SpeechPositions, SpeechTurns
from textkeep.lightning_modules.llm.continuation import alike_positions, continued, prefix_of
from textkeep.lightning_modules.llm.generation import greedy_tokens, stop_ids
from textkeep.lightning_modules.losses.answer_loss import read_answers
from textkeep.lightning_modules.tuning.speech_gate import SpeechGate

CLIPS: list[int | None] = [40, None, 73, None, 61]
LONGEST = 9


@pytest.fixture
def talking(model: SpeechLLM) -> SpeechLLM:
    """A tiny model with larger weights: what it says depends on all that it has read, and on nothing else."""
    model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for matrix in (p for p in model.llm.parameters() if p.dim() == 2):
            matrix.add_(0.4 * torch.randn_like(matrix))
    return model


def answers(
    model: SpeechLLM, rows: list[int] | None = None, clips: list[int | None] = CLIPS, **changes: Any
) -> tuple[list[str], list[str]]:
    """What the model says after the prompts alone, and after prompts that it has read with their targets."""
    alone = replace(make_batch(model, clips, left=True), **changes)
    rows = list(range(len(clips))) if rows is None else rows
    said = model.generate(alone, LONGEST)
    read = model.read(replace(make_batch(model, clips), **changes))
    assert read.answer is not None
    return [said[row] for row in rows], read.answer(rows, LONGEST)


def test_what_is_said_after_a_prompt_does_not_depend_on_the_target_that_was_read_after_it(talking: SpeechLLM) -> None:
    expected, found = answers(talking)
    assert found == expected
    assert len(set(expected)) == len(expected)


def test_a_target_that_is_what_would_be_said_is_not_written_again(talking: SpeechLLM) -> None:
    alone, batch = make_batch(talking, CLIPS, left=True), make_batch(talking, CLIPS)
    said = talking.write(alone, LONGEST)
    own = stop_ids(talking.llm, talking.tokenizer)
    labels, ids = batch.labels.clone(), batch.input_ids.clone()
    for row in range(len(CLIPS)):  # targets that begin as the model would, up to a token that it would not say
        places = (labels[row] != -100).nonzero()[:, 0].tolist()
        for place, token in list(zip(places, said.ids[row].tolist(), strict=False))[:row]:
            labels[row, place] = ids[row, place] = token
    steps = []
    talking.llm.register_forward_pre_hook(lambda *_: steps.append(1))
    read = talking.read(replace(batch, labels=labels, input_ids=ids))
    assert read.answer is not None
    before = len(steps)
    assert read.answer([4], LONGEST) == [said.texts[4]]
    assert len(steps) - before == LONGEST - 1 - 4
    assert not {*own} & {*said.ids[4].tolist()}
    for longest in (1, 2, 3, LONGEST):
        again = talking.read(replace(batch, labels=labels, input_ids=ids))
        assert again.answer is not None
        assert again.answer([0, 1, 2, 3, 4], longest) == talking.generate(alone, longest)


def test_some_rows_alone(talking: SpeechLLM) -> None:
    expected, found = answers(talking, [3, 0])
    assert found == expected


def test_rows_that_end_leave_the_others_as_they_are(talking: SpeechLLM) -> None:
    whole, _ = answers(talking)
    batch = make_batch(talking, CLIPS, left=True)
    tokens = talking.write(batch, LONGEST).ids
    own = stop_ids(talking.llm, talking.tokenizer)
    ends = [int(token) for token in tokens[:, 2] if int(token) not in own]
    different = 0
    for end in ends:
        expected, found = answers(talking, end_id=end)
        assert found == expected
        different += sum(a != b for a, b in zip(expected, whole, strict=True))
    assert different >= len(ends)


def test_the_losses_are_those_of_a_pass_without_a_cache(talking: SpeechLLM) -> None:
    batch = make_batch(talking, CLIPS)
    with torch.no_grad():
        losses, tokens = talking.answer_losses(batch)
    read = talking.read(batch)
    assert torch.equal(read.losses, losses)
    assert torch.equal(read.tokens, tokens)


@pytest.mark.parametrize("clips", [[40, 30, 73], [None, None, None]])
def test_what_all_rows_begin_with_is_read_once(clips: list[int | None], talking: SpeechLLM) -> None:
    batch = make_batch(talking, clips)
    alike = alike_positions(batch.input_ids, batch.attention_mask, batch.audio_mask, batch.labels)
    assert alike >= 2
    positions = []
    layer = talking.llm.model.layers[0]
    layer.register_forward_hook(lambda module, args, output: positions.append(args[0].shape[:2]))
    with torch.no_grad():
        losses, tokens = talking.answer_losses(batch)
    read = talking.read(batch)
    assert positions == [(3, batch.input_ids.shape[1]), (1, alike), (3, batch.input_ids.shape[1] - alike)]
    torch.testing.assert_close(read.losses, losses, rtol=1e-6, atol=1e-5)
    assert torch.equal(read.tokens, tokens)
    assert read.answer is not None
    assert read.answer([0, 1, 2], LONGEST) == talking.generate(make_batch(talking, clips, left=True), LONGEST)


def test_only_text_that_is_not_learned_is_alike() -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]])
    ones, none, masked = torch.ones_like(ids), torch.zeros_like(ids, dtype=torch.bool), torch.full_like(ids, -100)
    assert (
        alike_positions(ids, ones, none, masked) == 3
    )  # what predicts the first token that differs is read in each row
    assert alike_positions(ids, ones, none, masked.clone().index_fill(1, torch.tensor(2), 3)) == 1
    assert alike_positions(ids, ones, none.clone().index_fill(1, torch.tensor(1), True), masked) == 0
    assert alike_positions(ids, ones.clone().index_fill(1, torch.tensor(3), 0), none, masked) == 2


def test_the_longest_answer_is_the_models_own_setting(talking: SpeechLLM) -> None:
    talking.max_new_tokens = 3
    read = talking.read(make_batch(talking, CLIPS))
    assert read.answer is not None
    assert read.answer([0, 2], None) == [talking.generate(make_batch(talking, CLIPS, left=True))[row] for row in (0, 2)]


@pytest.mark.parametrize("clips", [CLIPS, [40, 73, 61]])
@pytest.mark.parametrize("gate", [SpeechPositions, SpeechTurns])
def test_a_gate_is_open_for_the_same_positions(
    gate: type[SpeechGate], clips: list[int | None], talking: SpeechLLM
) -> None:
    untouched = answers(talking, clips=clips)[0]
    tuning = LoRA(r=4, gate=gate())
    tuning.prepare(talking.llm, talking.encoder, talking.adaptor)
    talking.tuning = tuning
    wake(talking.eval())
    expected, found = answers(talking, clips=clips)
    assert found == expected
    changed = [a != b for a, b in zip(expected, untouched, strict=True)]
    assert changed == [clip is not None for clip in clips]
    batch = make_batch(talking, clips)
    with torch.no_grad():
        torch.testing.assert_close(talking.read(batch).losses, talking.answer_losses(batch)[0], rtol=1e-6, atol=1e-5)


def test_an_llm_with_a_sliding_window_is_asked_anew(talking: SpeechLLM) -> None:
    talking.llm.config.layer_types = ["sliding_attention"] * talking.llm.config.num_hidden_layers
    talking.llm.config.sliding_window = 4
    assert talking.read(make_batch(talking, CLIPS)).answer is None


def test_a_prompt_that_goes_on_differently_alone_is_asked_anew(talking: SpeechLLM) -> None:
    batch = make_batch(talking, CLIPS)
    assert batch.continues
    assert not make_batch(talking, CLIPS, left=True).continues
    assert talking.read(replace(batch, continues=False)).answer is None


@pytest.mark.slow
def test_smollm2_says_the_same_token_for_token() -> None:
    """Real weights, questions of many lengths: what ``generate`` gives after the prompts alone."""
    try:
        loaded = load(str(locate("smollm2-135m-instruct")), "cpu")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    llm, tokenizer = loaded.llm, loaded.front_end.tokenizer
    chosen = read_examples("spoken-facts/validation", "text", 24)
    (alone,) = make_batches(loaded.front_end, {}, chosen, "text", 24, answers=False)
    (whole,) = make_batches(loaded.front_end, {}, chosen, "text", 24)
    stops = stop_ids(llm, tokenizer, alone.end_id)
    embed = llm.get_input_embeddings()
    said = greedy_tokens(llm, tokenizer, embed(alone.input_ids), alone.attention_mask, 20, alone.end_id)
    with torch.no_grad():
        found, cache = read_answers(llm, embed(whole.input_ids), whole.attention_mask, whole.labels)
    prefix = prefix_of(llm, cache, whole.attention_mask, whole.labels, found)
    assert prefix is not None
    written = continued(llm, prefix, stops, 20, lambda rows: nullcontext())
    for row, (own, theirs) in enumerate(zip(written, said.ids.tolist(), strict=True)):
        assert own == theirs[: len(own)], row
        assert len(own) == 20 or own[-1] in stops
