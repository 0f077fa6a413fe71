"""Examples in one row: the losses of each alone, by plain torch; what cannot be packed is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from textkeep.importance import probe
from textkeep.importance.losses import AnswerLoss
from textkeep.importance.packing import pack, packed_equally

from .oracle import example_loss, make_batch, tiny_llama

SHARED = 4


def alike(rows: int = 4, **settings: Any) -> dict[str, Any]:
    """Examples of other lengths that begin with the same tokens."""
    batch = make_batch(rows, padded=True, **settings)
    batch["input_ids"][:, :SHARED] = batch["input_ids"][0, :SHARED]
    return batch


def embedded(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    ids = batch["input_ids"]
    rest = {name: value for name, value in batch.items() if name != "input_ids"}
    return {**rest, "inputs_embeds": model.get_input_embeddings()(ids).detach()}


@torch.no_grad()
@pytest.mark.parametrize("spoken", [False, True])
def test_each_has_the_loss_that_it_has_alone(spoken: bool) -> None:
    model, batch = tiny_llama().eval(), alike()
    packed = pack(embedded(model, batch) if spoken else batch, torch.float64)
    assert packed is not None
    kept = int(batch["attention_mask"].sum()) - 3 * SHARED
    assert len(packed.owners) == kept
    found = packed.losses(AnswerLoss(model))
    expected = [float(example_loss(model, batch, row)) for row in range(4)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("what", ["head", "layer", "matrix"])
def test_what_is_taken_out_costs_the_same(what: str) -> None:
    model, batches = tiny_llama(layers=3).float(), [alike(seed=1), alike(seed=2), make_batch(3, seed=3)]
    lengths: list[int] = []
    handle = model.model.layers[2].register_forward_hook(lambda m, a, o: lengths.append(o[0].numel()))
    found = probe(model, batches, "ablation", ablate=what, pack=True)
    handle.remove()
    assert min(lengths) < max(lengths) / 1.3
    expected = probe(model, batches, "ablation", ablate=what)
    np.testing.assert_allclose(found.examples["ablation"], expected.examples["ablation"], atol=2e-6)
    assert found.meta["options"] == expected.meta["options"]


def test_what_begins_with_nothing_in_common_or_ends_at_once_is_left_as_it_is() -> None:
    assert pack(make_batch(), torch.float32) is None
    batch = alike()
    batch["labels"][1, 1] = 5  # asked of the beginning: of two rows it is predicted in one place
    assert pack(batch, torch.float32) is None
    assert pack({**alike(), "input_ids": make_batch(left=True)["input_ids"]}, torch.float32) is None


def test_a_row_that_would_be_long_is_left_as_it_is() -> None:
    """Attention over one row of thousands of positions costs more than the shared beginning saves."""
    ids, shared = torch.randint(5, 30, (8, 600)), 300
    ids[:, :shared] = ids[0, :shared]
    labels = torch.where(torch.arange(600) < 590, -100, ids)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    assert pack(batch, torch.float32) is None
    short = {name: value[:2] for name, value in batch.items()}
    assert pack(short, torch.float32) is not None


@torch.no_grad()
def test_a_model_that_looks_ahead_is_not_packed() -> None:
    """Without a causal mask the beginning depends on what follows; and a mask of pairs may be ignored."""
    batch = alike()

    class Ahead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_llama().float().eval()
            self.config = self.inner.config

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any = None, **rest: Any) -> Any:
            return self.inner(input_ids=input_ids, position_ids=position_ids, **rest)  # what is masked is seen

    model = Ahead()
    assert packed_equally(batch, model, AnswerLoss(model)) is None
    inner = model.inner
    assert packed_equally(batch, inner, AnswerLoss(inner)) is not None
