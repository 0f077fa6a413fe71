"""Text twins: the same examples as text beside every batch of speech, where the model asks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from textkeep.datamodules import AudioArray, Batch, ChatPrompt, Collator, Example, RowReader, SpeechTextData, View
from textkeep.datamodules.batches.rows import Row
from textkeep.datamodules.batches.token_budget_sampler import TokenBudgetSampler

from .conftest import EnergyFrontEnd, ManifestMaker, tone


def answers(batch: Batch) -> list[list[int]]:
    return [row[row >= 0].tolist() for row in batch.labels]


def connected(front_end: EnergyFrontEnd, **arguments: Any) -> SpeechTextData:
    data = SpeechTextData(**arguments)
    data.connect(replace(front_end, text_twins=True))
    return data


def test_a_twin_has_the_rows_and_answers_of_its_batch(front_end: EnergyFrontEnd) -> None:
    clip = AudioArray(torch.from_numpy(tone(0.5)), 16000)
    examples = [Example(str(i), q, ("x",), f"number {i}", clip) for i, q in enumerate(("Who?", "", "What is it?"))]
    prompt, reader = ChatPrompt(front_end.tokenizer), RowReader(front_end)
    collator = Collator(front_end, prompt, twins=True)
    batch = collator([reader.read(View(example, "speech")) for example in examples])
    twin = batch.twin
    assert twin is not None
    assert (twin.ids, twin.modality, len(twin.features)) == (batch.ids, ["text"] * 3, 0)
    heard, read = answers(batch), answers(twin)
    assert read == [heard[0], [], heard[2]]  # without text there is nothing to compare with
    written = twin.input_ids[2][twin.attention_mask[2].bool()].tolist()
    assert written == prompt.text("What is it?") + prompt.answer("number 2")
    # Lightning's precision plugins walk through a batch like this.
    halved = apply_to_collection(batch, torch.Tensor, lambda t: t.bfloat16() if t.is_floating_point() else t)
    assert halved.features.dtype == torch.bfloat16
    assert torch.equal(halved.twin.labels, twin.labels)
    moved = batch.to("meta")
    assert moved.twin is not None
    assert moved.twin.labels.is_meta
    assert collator([reader.read(View(examples[0], "text"))]).twin is None
    assert Collator(front_end, prompt)([reader.read(View(examples[0], "speech"))]).twin is None


def test_the_budget_counts_twins(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = str(make_manifest(30))
    data = connected(front_end, train=path, train_modalities="both", tokens_per_batch=700)
    loader = data.train_dataloader()
    sizes = []
    for batch in [*loader, *loader]:
        assert (batch.twin is None) == (batch.modality[0] == "text")
        twin = batch.twin.input_ids.numel() if batch.twin else 0
        sizes.append(batch.input_ids.numel() + twin)
        assert sizes[-1] <= 700
        if batch.twin:
            assert answers(batch) == answers(batch.twin)
            assert len(set(batch.ids)) == len(batch.ids)
    assert max(sizes) > 500
    longest = max(b.input_ids.shape[1] for b in loader)
    with pytest.raises(ValueError, match=r"takes \d+ positions; allowed: at most tokens_per_batch"):
        connected(front_end, train=path, train_modalities="speech", tokens_per_batch=longest + 10).train_dataloader()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_rows_of_two_parts_stay_under_the_budget(world: int) -> None:
    rng = np.random.default_rng(0)
    parts = rng.integers(1, 500, (200, 2))  # the longest question is not the one with the longest twin
    samplers = [TokenBudgetSampler(parts, 1000, rank=rank, world_size=world) for rank in range(world)]
    for epoch in range(2):
        batches = [batch for sampler in samplers for batch in sampler.batches(epoch)]
        assert all(len(batch) == 1 or len(batch) * parts[batch].max(axis=0).sum() <= 1000 for batch in batches)
        assert {i for batch in batches for i in batch} == set(range(200))


def test_twins_do_not_depend_on_workers_and_continue_in_mid_epoch(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    path = str(make_manifest(14))
    given = []
    for workers in (0, 2):
        data = connected(front_end, train=path, train_modalities="both", tokens_per_batch=500, num_workers=workers)
        loader = data.train_dataloader()
        given.append([(b.ids, b.twin.input_ids.tolist() if b.twin else None) for b in loader])
        state: dict[str, int] = {}
        for index, _ in enumerate(loader):
            if index == 2:
                state = loader.state_dict()
                break
        loader.close()
        again = connected(front_end, train=path, train_modalities="both", tokens_per_batch=500).train_dataloader()
        whole = connected(front_end, train=path, train_modalities="both", tokens_per_batch=500).train_dataloader()
        again.load_state_dict(state)
        second = [*whole, *whole][len(whole) :]
        assert [b.ids for b in again] == [b.ids for b in second[3:]]
    assert given[0] == given[1]


def test_evaluation_has_twins_when_asked(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    data = SpeechTextData(val=str(make_manifest(5)))
    data.connect(front_end)
    (batch,) = data.loader(data.eval_pairs(), "speech", twins=True)
    assert batch.twin is not None
    assert batch.twin.ids == batch.ids
    (plain,) = data.loader(data.eval_pairs(), "speech")
    assert plain.twin is None
    assert all(b.twin is None for b in data.val_dataloader()["speech"])
    train = SpeechTextData(train=str(make_manifest(5, name="t")))
    train.connect(front_end)
    assert sorted(i for b in train.training_texts() for i in b.ids) == [f"t-{i}" for i in range(5)]


def test_the_twin_moves_with_its_batch(front_end: EnergyFrontEnd) -> None:
    rows = [Row(Example("a", "Who?", ("x",), "x", location="m:a"), "speech", torch.ones(2, 20), 2)]
    batch = Collator(front_end, ChatPrompt(front_end.tokenizer), twins=True)(rows)
    moved = batch.to("meta")
    for kept, gone in ((batch, moved), (batch.twin, moved.twin)):
        assert kept is not None
        assert gone is not None
        names = [name for name, value in vars(kept).items() if isinstance(value, Tensor)]
        assert len(names) == 7
        assert all(getattr(kept, name).device.type == "cpu" for name in names)
        assert all(getattr(gone, name).device.type == "meta" for name in names)
    assert moved.ids == ["a"]
