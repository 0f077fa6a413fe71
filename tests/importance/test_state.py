"""A measurement leaves the model as it was, and refuses to be wrong in silence."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from textkeep.importance import probe
from textkeep.importance.signed_lines import SignedLines

from .oracle import make_batch, tiny_llama


def picture(model: nn.Module) -> dict:
    return {
        "training": {n: m.training for n, m in model.named_modules()},
        "requires_grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "grad": {n: p.grad.clone() if p.grad is not None else None for n, p in model.named_parameters()},
        "weight": {n: p.detach().clone() for n, p in model.named_parameters()},
        "rng": torch.get_rng_state(),
        "hooks": {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
        "attributes": {n: [k for k in vars(m) if "drop" in k and getattr(m, k)] for n, m in model.named_modules()},
    }


def assert_same(before: dict, after: dict) -> None:
    for key in ("training", "requires_grad", "hooks", "attributes"):
        assert before[key] == after[key], key
    assert torch.equal(before["rng"], after["rng"])
    for key in ("grad", "weight"):
        for name, value in before[key].items():
            other = after[key][name]
            assert (value is None and other is None) or torch.equal(value, other), (key, name)


@pytest.fixture
def mixed_model() -> nn.Module:
    """Parts frozen, parts in eval mode, a gradient half accumulated, checkpointing on."""
    model = tiny_llama(tied=True)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model.model.layers[0].eval()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    batch = make_batch()
    model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
    return model


EVERYTHING = ("taylor", "fisher", "signed_taylor", "taylor_batch", "fisher_sampled", "wanda", "magnitude")


def test_modes_gradients_rng_and_hooks_are_put_back(mixed_model: nn.Module) -> None:
    before = picture(mixed_model)
    probe(mixed_model, [make_batch()], EVERYTHING)
    assert_same(before, picture(mixed_model))


def test_put_back_after_an_error_in_the_middle(mixed_model: nn.Module) -> None:
    before = picture(mixed_model)

    def batches():
        yield make_batch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(mixed_model, batches(), EVERYTHING)
    assert_same(before, picture(mixed_model))


@pytest.mark.parametrize("reentrant", [False, True])
def test_put_back_after_an_error_inside_the_backward_pass(mixed_model: nn.Module, reentrant: bool) -> None:
    """The first layer's tap fires last: half of the pass is done, other taps have reported."""
    mixed_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    mixed_model.train()
    before = picture(mixed_model)
    breaking = mock.patch.object(SignedLines, "add_output", side_effect=[None] * 9 + [KeyboardInterrupt])
    with breaking as tap, pytest.raises(KeyboardInterrupt):
        probe(mixed_model, [make_batch()], EVERYTHING)
    assert tap.call_count == 10
    assert_same(before, picture(mixed_model))
    expected = probe(tiny_llama(tied=True), [make_batch()])
    assert probe(mixed_model, [make_batch()]).examples["fisher"] == pytest.approx(
        expected.examples["fisher"], rel=1e-10
    )


def trained(probes: bool, interrupted: bool = False) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Weights and RNG state after four steps of AdamW with dropout, accumulating over two batches."""
    model = tiny_llama(tied=True, attention_dropout=0.3).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.manual_seed(1)
    for step in range(8):
        batch = make_batch(seed=step)
        model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss.backward()
        if probes:  # in the middle of an accumulation window and at its end
            probe(model, [make_batch(seed=20, padded=True)], EVERYTHING)
        if interrupted:
            with pytest.raises(ValueError, match="no answer token"):
                probe(model, [make_batch(), {**make_batch(), "labels": torch.full((4, 11), -100)}], EVERYTHING)
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()], torch.get_rng_state()


def test_training_is_bit_identical_with_and_without() -> None:
    weights, random = trained(probes=False)
    for kind in ({"probes": True}, {"probes": False, "interrupted": True}):
        others, other_random = trained(**kind)
        assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))
        assert torch.equal(random, other_random)


def test_works_inside_inference_mode_and_without_gradients(mixed_model: nn.Module) -> None:
    expected = probe(mixed_model, [make_batch()])
    with torch.inference_mode():
        embeds = mixed_model.get_input_embeddings()(make_batch()["input_ids"])  # an inference tensor
        found = probe(mixed_model, [{**make_batch(), "inputs_embeds": embeds}])
        assert torch.is_inference_mode_enabled()
    assert found.examples["fisher"] == pytest.approx(expected.examples["fisher"], rel=1e-10)


def test_dropout_called_by_a_checkpointing_layer_itself_is_off() -> None:
    """OPT's layers drop out with ``training=self.training``, which checkpointing needs to be true."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=61, hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=4, dropout=0.4,
        max_position_embeddings=64, word_embed_proj_dim=24, layerdrop=0.0,
    )  # fmt: skip
    model = OPTForCausalLM(config).double()
    plain = probe(model, [make_batch()])
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert probe(model, [make_batch()]).examples["taylor"] == pytest.approx(plain.examples["taylor"], rel=1e-10)
    assert model.model.decoder.layers[0].dropout == 0.4


@pytest.mark.parametrize("estimator", ["signed_taylor", "fisher", "taylor", "fisher_sampled", "taylor_batch"])
def test_every_measurement_with_gradients_tests_itself(estimator: str) -> None:
    snapshot = probe(tiny_llama(), [make_batch(padded=True), make_batch(seed=1)], estimator, vectors=False)
    errors = snapshot.meta["conservation"]
    assert set(errors) == {"up=down", "v=o", "q=k"}
    assert max(errors.values()) < 1e-12
    assert set(snapshot.examples) <= {estimator}


def test_conserved_twins_are_named_and_counted_once() -> None:
    snapshot = probe(tiny_llama(), [make_batch()])
    twins = {m.kind: m.equal_to for m in snapshot.table if m.layer == 0}
    assert twins["down"] == "model.layers.0.mlp.up_proj.weight"
    assert twins["o"] == "model.layers.0.self_attn.v_proj.weight"
    assert twins["k"] == "model.layers.0.self_attn.q_proj.weight"
    assert set(snapshot.shares("signed_taylor", "kind")) == {"q", "v", "gate", "up"}
    assert max(snapshot.meta["conservation"].values()) < 1e-12


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"labels": torch.full((4, 11), -100)}, {}, "no answer token"),
        ({"labels": None}, {}, "no labels"),
        ({}, {"include": ["head"]}, "allowed: embeddings, norms"),
        ({}, {"fraction": 1}, "unknown option fraction"),
        ({}, {"estimators": "tailor"}, "unknown estimator tailor"),
        ({}, {"estimators": "wanda", "include": ("norms",)}, "leave include empty"),
        ({"inputs_embeds": torch.zeros(4, 11, 24).double()}, {"include": ("embeddings",)}, "needs input_ids"),
    ],
)
def test_bad_input_is_named(change: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(tiny_llama(), [{**make_batch(), **change}], **options)


def test_no_examples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no examples"):
        probe(tiny_llama(), [])


def test_models_without_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="no decoder layers"):
        probe(nn.Sequential(nn.Linear(2, 2)), [])
