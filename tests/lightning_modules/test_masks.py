"""Protected weights: the right ones, bit for bit where they were, whatever the optimizer does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.speech_batches import make_batch
from textkeep.importance import Snapshot, probe
from textkeep.importance.masks import unpack
from textkeep.lightning_modules import (
    AdaptorOnly,
    FullFineTuning,
    ImportanceMask,
    PartialFineTuning,
    RandomMask,
    SpeechLLM,
)


def measure(llm: nn.Module, fraction: float = 0.1, **options: Any) -> Snapshot:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (4, 9), generator=generator)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return probe(llm, [batch], "taylor", top_fraction=fraction, keep_maps=("taylor",), **options)


def protecting(model: SpeechLLM, **options: Any) -> tuple[FullFineTuning, Snapshot]:
    """The model's tuning with a measured mask."""
    snapshot = measure(model.llm, **options)
    mask = ImportanceMask(probe="heldout_text", fraction=0.1)
    mask.use(snapshot)
    model.tuning = FullFineTuning(protect=mask)
    model.tuning.prepare(model.llm, model.encoder, model.adaptor)
    return model.tuning, snapshot


def step(model: SpeechLLM, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    """As Lightning does it: the closure runs inside the optimizer's step."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model.answer_losses(batch)[0].sum()
        loss.backward()
        model.tuning.edit_gradients(model.llm)
        return loss

    optimizer.step(closure)


def of(snapshot: Snapshot) -> dict[str, Tensor]:
    """The top tenth of each matrix, by sorting all of its scores."""
    masks = {}
    for name, scores in snapshot.parameters("taylor").items():
        order = scores.flatten().argsort(descending=True)
        masks[name] = torch.zeros(scores.numel(), dtype=torch.bool)
        masks[name][order[: round(0.1 * scores.numel())]] = True
        masks[name] = masks[name].view(scores.shape)
    return masks


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_most_important_weights_stay_bit_for_bit(model: SpeechLLM, name: str) -> None:
    tuning, snapshot = protecting(model)
    before = {n: p.detach().clone() for n, p in model.llm.named_parameters()}
    optimizer = OPTIMIZERS[name](model.parameters())
    tuning.attach_to_optimizer(model.llm, optimizer)
    for _ in range(5):
        step(model, optimizer, make_batch(model, [40, None]))
    masks = of(snapshot)
    assert len(masks) == 14
    for key, mask in masks.items():
        parameter = model.llm.get_parameter(key)
        assert torch.equal(parameter[mask], before[key][mask])
        assert (parameter[~mask] != before[key][~mask]).float().mean() > 0.99
        state = optimizer.state[parameter]
        moments = [value for value in state.values() if value.shape == parameter.shape]
        assert moments
        assert all(not moment[mask].any() for moment in moments) or name == "sgd"  # SGD's momentum holds the decay


def test_weights_of_nonzero_momentum_stay_too(model: SpeechLLM) -> None:
    """An optimizer whose state comes from a run without protection."""
    batch = make_batch(model, [40, None])
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    for _ in range(2):
        step(model, optimizer, batch)
    tuning, snapshot = protecting(model)
    tuning.attach_to_optimizer(model.llm, optimizer)
    before = {n: p.detach().clone() for n, p in model.llm.named_parameters()}
    for _ in range(3):
        step(model, optimizer, batch)
    for key, mask in of(snapshot).items():
        assert torch.equal(model.llm.get_parameter(key)[mask], before[key][mask])


def test_protected_weights_do_not_count_in_the_gradient_norm(model: SpeechLLM) -> None:
    tuning, snapshot = protecting(model)
    tuning.attach_to_optimizer(model.llm, torch.optim.SGD(model.parameters(), lr=0.1))
    model.answer_losses(make_batch(model, [40, None]))[0].sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.llm.named_parameters()}  # type: ignore[union-attr]
    tuning.edit_gradients(model.llm)
    for name, mask in of(snapshot).items():
        gradients[name][mask] = 0
    for name, parameter in model.llm.named_parameters():
        assert torch.equal(parameter.grad, gradients[name])


def test_weights_stored_the_other_way_round() -> None:
    """GPT-2 keeps (in, out); masks are (out, in)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    llm = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    snapshot = measure(llm)
    mask = ImportanceMask(probe="heldout_text", fraction=0.1)
    mask.use(snapshot)
    tuning = FullFineTuning(protect=mask)
    tuning.attach_to_optimizer(llm, torch.optim.SGD(llm.parameters(), lr=0.1))
    for parameter in llm.parameters():
        parameter.grad = torch.ones_like(parameter)
    tuning.edit_gradients(llm)
    for name, chosen in of(snapshot).items():
        assert torch.equal(llm.get_parameter(name).grad == 0, chosen.T), name


def test_a_random_mask_is_as_large_and_elsewhere(model: SpeechLLM) -> None:
    snapshot = measure(model.llm, top_scope="global")

    def drawn(seed: int) -> dict[str, Tensor]:
        mask = RandomMask(ImportanceMask(probe="heldout_text", fraction=0.1, scope="global"), seed)
        assert mask.waiting
        mask.use(snapshot)
        assert not mask.waiting
        return {n: unpack(b.numpy(), model.llm.get_parameter(n).shape) for n, b in mask.bits(model.llm).items()}

    first, again, other = drawn(0), drawn(0), drawn(1)
    top = snapshot.top("taylor", 0.1)
    assert len({int(chosen.sum()) for chosen in top.values()}) > 2  # the numbers differ, as matrices compete
    for name, chosen in top.items():
        assert int(first[name].sum()) == int(chosen.sum())
        assert torch.equal(first[name], again[name])
    chance = sum(int(chosen.sum()) ** 2 / chosen.numel() for chosen in top.values())
    for drawing in (top, other):
        shared = sum(int((first[name] & drawing[name]).sum()) for name in top)
        assert shared == pytest.approx(chance, rel=0.1)


def test_a_mask_survives_the_checkpoint_and_a_changed_snapshot_is_noticed(model: SpeechLLM, tmp_path: Path) -> None:
    folder = measure(model.llm).save(tmp_path / "step=000000")
    mask = ImportanceMask(str(folder), fraction=0.1)
    bits = mask.bits(model.llm)
    torch.save(mask.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)

    def resumed() -> dict[str, Tensor]:
        continued = ImportanceMask(str(folder), fraction=0.1)
        continued.load_state_dict(state)
        return continued.bits(model.llm)

    assert all(torch.equal(resumed()[name], bits[name]) for name in bits)
    with torch.no_grad():
        model.llm.get_parameter("model.layers.0.mlp.up_proj.weight").mul_(-3)
    measure(model.llm).save(folder)
    with pytest.raises(ValueError, match="is not the one that this run began with"):
        resumed()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert all(torch.equal(resumed()[name], bits[name]) for name in bits)


def test_a_snapshot_without_the_mask_says_what_it_has(model: SpeechLLM, tmp_path: Path) -> None:
    folder = str(measure(model.llm, 0.1).save(tmp_path / "step=000000"))
    with pytest.raises(ValueError, match=r"has taylor with \{'top_fraction': 0.1.*\}, but taylor with .*0.05"):
        ImportanceMask(folder, fraction=0.05).bits(model.llm)
    with pytest.raises(ValueError, match="has no 'fisher'; it has taylor"):
        ImportanceMask(folder, estimator="fisher", fraction=0.1).bits(model.llm)
    plain = probe(model.llm, [{"input_ids": torch.ones(1, 3).long(), "labels": torch.ones(1, 3).long()}], "taylor")
    folder = str(plain.save(tmp_path / "step=000001"))
    with pytest.raises(ValueError, match=r"has no masks, .* give a probe instead"):
        ImportanceMask(folder).bits(model.llm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got neither"),
        ({"probe": "a", "fraction": 1.0}, r"must lie in \(0, 1\)"),
        ({"probe": "a", "estimator": "signed_taylor"}, "scores no single weights; allowed: taylor, fisher"),
        ({"probe": "a", "scope": "kind"}, "top_scope='kind' is unknown; allowed: matrix, layer, global"),
    ],
)
def test_bad_settings_are_refused_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImportanceMask(**options)


def test_a_mask_that_does_not_fit_is_refused(model: SpeechLLM) -> None:
    def attach(state: dict[str, Tensor], tuning: FullFineTuning | PartialFineTuning) -> None:
        assert tuning.protect is not None
        tuning.protect.load_state_dict({"bits": state})
        tuning.prepare(model.llm, model.encoder, model.adaptor)
        tuning.attach_to_optimizer(model.llm, torch.optim.SGD(model.parameters(), lr=0.1))

    mask = ImportanceMask(probe="heldout_text")
    some = torch.zeros(256, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"of another model, the LLM has no parameter 'model\.layers\.9\.x'"):
        attach({"model.layers.9.x": some}, FullFineTuning(protect=mask))
    with pytest.raises(ValueError, match=r"is not of its shape \(64, 32\)"):
        attach({"model.layers.0.mlp.up_proj.weight": some[:-1]}, FullFineTuning(protect=mask))
    with pytest.raises(ValueError, match="none of the masked weights trains"):
        attach({"model.layers.0.mlp.up_proj.weight": some}, PartialFineTuning(layers="1", protect=mask))
    assert "protect" not in vars(AdaptorOnly())


def test_hyperparameters_hold_no_weights(model: SpeechLLM) -> None:
    import copy

    tuning, _ = protecting(model)
    tuning.attach_to_optimizer(model.llm, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "_protected" not in vars(copy.deepcopy(tuning))
