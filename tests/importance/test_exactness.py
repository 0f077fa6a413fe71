"""Every estimator against a float64 per-example loop, relative error at most 1e-10."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from textkeep.importance import probe

from .oracle import make_batch, per_example_gradients, tiny_llama, truth

LIMIT = 1e-10
ESTIMATORS = ("taylor", "fisher", "signed_taylor", "taylor_batch", "magnitude")


def relative(found, expected) -> float:
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300))


def assert_equal_to_loop(snapshot, model, gradients) -> None:
    """Compares totals, per-example scores, rows, columns and heads of every matrix."""
    for index, matrix in enumerate(snapshot.table):
        expected = truth(model, gradients, matrix.name)
        name, shape = matrix.name, matrix.shape
        for estimator in ("taylor", "fisher", "taylor_batch", "magnitude"):
            if estimator not in snapshot.estimators:
                continue
            entries = expected[estimator].reshape(shape)
            assert relative(snapshot.matrices(estimator)[name], entries.sum()) <= LIMIT, (name, estimator)
            assert relative(snapshot.rows[estimator][index], entries.sum(1)) <= LIMIT, (name, estimator)
            assert relative(snapshot.columns[estimator][index], entries.sum(0)) <= LIMIT, (name, estimator)
        if "signed_taylor" in snapshot.examples:
            signed = expected["signed_taylor"]
            # a signed sum cancels: measured against the sum of its absolute terms
            size = expected["taylor"].sum()
            assert np.abs(snapshot.examples["signed_taylor"][:, index] - signed.numpy()).max() <= LIMIT * size, name
            products = torch.stack([g[name] for g in gradients]).reshape(-1, *shape)
            products = products * dict(model.named_parameters())[name].detach().reshape(shape)
            rows, columns = products.sum(2), products.sum(1)
            assert relative(snapshot.rows["signed_taylor"][index], rows.abs().mean(0)) <= LIMIT, name
            assert relative(snapshot.columns["signed_taylor"][index], columns.abs().mean(0)) <= LIMIT, name
            if matrix.head_dim:
                side = columns if matrix.kind == "o" else rows
                heads = side.unflatten(1, (-1, matrix.head_dim)).sum(2).abs().mean(0)
                assert relative(snapshot.heads[index], heads) <= LIMIT, name


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("include", [(), ("embeddings", "norms")])
def test_plain_padded_tied_against_the_loop(padded: bool, tied: bool, include: tuple[str, ...]) -> None:
    model = tiny_llama(tied)
    batches = [make_batch(4, seed=1, padded=padded), make_batch(3, seed=2, padded=padded)]
    snapshot = probe(model, batches, ESTIMATORS, include=include)
    assert_equal_to_loop(snapshot, model, per_example_gradients(model, batches))
    assert snapshot.meta["coverage"] == (1.0 if include else pytest.approx(0.99, abs=0.01))


@pytest.mark.parametrize("estimators", [("fisher",), ("signed_taylor",), ("taylor",), ("fisher", "signed_taylor")])
@pytest.mark.parametrize("length", [6, 11, 40])
def test_each_form_alone_against_the_loop(estimators: tuple[str, ...], length: int) -> None:
    """Short sequences take the Gram form of Fisher, long ones the buffer form."""
    model = tiny_llama(tied=True)
    batches = [make_batch(3, length=length, seed=3, padded=True)]
    for include in ((), ("embeddings",)):
        snapshot = probe(model, batches, estimators, include=include)
        assert_equal_to_loop(snapshot, model, per_example_gradients(model, batches))


def test_signed_scores_of_a_tied_embedding_without_vectors() -> None:
    model = tiny_llama(tied=True)
    batch = make_batch(3, seed=3)
    whole = probe(model, [batch], "signed_taylor", include=("embeddings", "norms"))
    lean = probe(model, [batch], "signed_taylor", include=("embeddings", "norms"), vectors=False)
    assert relative(lean.examples["signed_taylor"], whole.examples["signed_taylor"]) <= LIMIT
    assert not lean.rows


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_against_the_loop(reentrant: bool) -> None:
    model = tiny_llama(tied=True)
    batches = [make_batch(4, seed=4, padded=True)]
    gradients = per_example_gradients(model, batches)
    plain = probe(model, batches, (*ESTIMATORS, "fisher_sampled", "wanda"))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.train()
    snapshot = probe(model, batches, (*ESTIMATORS, "fisher_sampled", "wanda"))
    assert_equal_to_loop(snapshot, model, gradients)
    for estimator in snapshot.estimators:
        assert relative(snapshot.scores(estimator), plain.scores(estimator)) <= LIMIT


def test_checkpointing_layers_really_recompute_during_the_probe() -> None:
    model = tiny_llama()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    calls = []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    probe(model, [make_batch()], ("taylor",))
    assert len(calls) == 2


def test_lora_scores_the_effective_weight() -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_llama(tied=True)
    torch.manual_seed(7)
    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=0.3, target_modules="all-linear", bias="none")
    model = get_peft_model(copy.deepcopy(base), config).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.train()
    merged = copy.deepcopy(model).merge_and_unload()
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    batches = [make_batch(4, seed=5, padded=True)]
    snapshot = probe(model, batches, ESTIMATORS)
    reference = probe(base, batches, ESTIMATORS)
    assert [m.name for m in snapshot.table] == [m.name for m in reference.table]
    assert_equal_to_loop(snapshot, merged, per_example_gradients(merged, batches))
    assert relative(snapshot.scores("taylor"), reference.scores("taylor")) > 1e-3
    with model.disable_adapter():
        assert relative(probe(model, batches, ("taylor",)).scores("taylor"), reference.scores("taylor")) <= LIMIT


def test_sampled_fisher_against_a_loop_over_draws() -> None:
    model = tiny_llama()
    batches = [make_batch(3, seed=6, padded=True)]
    snapshot = probe(model, batches, ("fisher_sampled", "fisher"), draws=3, seed=5)
    whole = probe(model, batches, ("fisher_sampled",), draws=3, seed=5)
    single = probe(
        model, [{k: v[i : i + 1] for k, v in batches[0].items()} for i in range(3)], "fisher_sampled", draws=3, seed=5
    )
    assert relative(snapshot.scores("fisher_sampled"), whole.scores("fisher_sampled")) <= LIMIT
    assert relative(whole.examples["fisher_sampled"], single.examples["fisher_sampled"]) <= LIMIT
    many = probe(model, batches, "fisher_sampled", draws=150, seed=1)
    other = probe(model, batches, "fisher_sampled", draws=150, seed=2)
    assert relative(many.scores("fisher_sampled"), other.scores("fisher_sampled")) < 0.3


def test_wanda_against_its_formula_without_padding() -> None:
    model = tiny_llama()
    batches = [make_batch(4, seed=8, padded=True)]
    inputs = {}
    squares = {}
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, args: inputs.update(a=args[0]))
    model(input_ids=batches[0]["input_ids"], attention_mask=batches[0]["attention_mask"])
    handle.remove()
    squares = (inputs["a"] * batches[0]["attention_mask"][..., None]).square().sum((0, 1)) / 4
    expected = (model.model.layers[1].mlp.down_proj.weight.abs() * squares.sqrt()).sum()
    snapshot = probe(model, batches, "wanda")
    assert relative(snapshot.matrices("wanda")["model.layers.1.mlp.down_proj.weight"], expected.item()) <= LIMIT


def test_inputs_embeds_give_the_same_as_input_ids() -> None:
    model = tiny_llama()
    batch = make_batch(3, seed=9, padded=True)
    embeds = {**{k: v for k, v in batch.items() if k != "input_ids"}}
    embeds["inputs_embeds"] = model.get_input_embeddings()(batch["input_ids"]).detach()
    for estimator in ESTIMATORS:
        first, second = probe(model, [batch], estimator), probe(model, [embeds], estimator)
        assert relative(first.scores(estimator), second.scores(estimator)) <= LIMIT


def test_bfloat16_autocast_is_close() -> None:
    """Looser: bfloat16 keeps 8 bits; matrix totals agree to 5 %."""
    model = tiny_llama().float()
    batches = [make_batch(4, seed=1)]
    exact = probe(model, batches)
    rough = probe(model, batches, autocast=torch.bfloat16)
    for estimator in exact.estimators:
        assert relative(rough.scores(estimator), exact.scores(estimator)) < 0.05


def test_maps_and_masks_hold_every_weight() -> None:
    model = tiny_llama()
    batches = [make_batch(4, seed=1)]
    snapshot = probe(
        model, batches, ("taylor", "fisher", "magnitude"), top_fraction=0.05, keep_maps=("fisher", "magnitude")
    )
    gradients = per_example_gradients(model, batches)
    for matrix in snapshot.table:
        expected = truth(model, gradients, matrix.name)
        assert relative(snapshot.parameters("fisher")[matrix.name], expected["fisher"]) <= LIMIT
        k = round(0.05 * expected["taylor"].numel())
        top = torch.zeros(expected["taylor"].numel(), dtype=torch.bool)
        top[expected["taylor"].flatten().topk(k).indices] = True
        assert torch.equal(snapshot.top("taylor")[matrix.name].flatten(), top)
