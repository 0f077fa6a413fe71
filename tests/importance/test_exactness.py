"""Ways through the code that the grid does not take, and oracles that share nothing with the loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from textkeep.importance import probe
from textkeep.importance.losses import AnswerLoss

from .oracle import error, example_loss, make_batch, relative, tiny_llama, truth
from .settings import PADDED

LIMIT = 1e-10
ESTIMATORS = ("taylor", "fisher", "signed_taylor", "taylor_batch", "magnitude")


def assert_equal_to_loop(snapshot, model, batches) -> None:
    expected = truth(model, batches)
    for estimator in snapshot.estimators:
        assert error(snapshot, expected, estimator) <= LIMIT, estimator


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_and_norms_against_the_loop(tied: bool) -> None:
    model = tiny_llama(tied)
    snapshot = probe(model, PADDED, ESTIMATORS, include=("embeddings", "norms"))
    assert_equal_to_loop(snapshot, model, PADDED)
    assert snapshot.meta["coverage"] == 1.0
    assert probe(model, PADDED, "magnitude").meta["coverage"] == pytest.approx(0.99, abs=0.01)


@pytest.mark.parametrize("estimators", [("fisher",), ("signed_taylor",), ("taylor",), ("fisher", "signed_taylor")])
@pytest.mark.parametrize("length", [6, 11, 40])
def test_each_form_alone_against_the_loop(estimators: tuple[str, ...], length: int) -> None:
    """Short sequences take the Gram form of Fisher, long ones the buffer form."""
    model = tiny_llama(tied=True)
    batches = [make_batch(3, length=length, seed=3, padded=True)]
    for include in ((), ("embeddings",)):
        assert_equal_to_loop(probe(model, batches, estimators, include=include), model, batches)


@pytest.mark.parametrize("left", [False, True])
def test_positions_after_the_last_answer_and_beyond_all_content(left: bool) -> None:
    """They have no gradient and are left out of the products; the head sees fewer positions than the blocks."""
    model = tiny_llama(tied=True)
    batch = make_batch(3, length=14, seed=3, padded=True, left=left)
    batch["labels"][:, 11:] = -100
    batch = {k: F.pad(v, (1, 2), value=-100 if k == "labels" else 0) for k, v in batch.items() if k != "ids"}
    snapshot = probe(model, [batch], ("taylor", "fisher", "taylor_batch"), include=("embeddings",))
    assert_equal_to_loop(snapshot, model, [batch])


def test_signed_scores_of_a_tied_embedding_without_vectors() -> None:
    model = tiny_llama(tied=True)
    lean = probe(model, [make_batch(3, seed=3)], "signed_taylor", include=("embeddings", "norms"), vectors=False)
    assert_equal_to_loop(lean, model, [make_batch(3, seed=3)])
    assert not lean.rows


def test_checkpointing_layers_really_recompute_during_the_probe() -> None:
    model = tiny_llama()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    calls = []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    probe(model, [make_batch()], ("taylor",))
    assert calls == [False, True, True]  # the rehearsal, the forward pass, and once more in the backward pass


def test_lora_is_named_like_its_base_and_equals_it_when_disabled() -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_llama(tied=True)
    model = get_peft_model(copy.deepcopy(base), LoraConfig(r=3, target_modules="all-linear")).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    reference, found = probe(base, PADDED), probe(model, PADDED)
    assert [m.name for m in found.table] == [m.name for m in reference.table]
    assert relative(found.scores("taylor"), reference.scores("taylor")) > 1e-3
    with model.disable_adapter():
        assert relative(probe(model, PADDED, "taylor").scores("taylor"), reference.scores("taylor")) <= LIMIT


def test_sampled_labels_do_not_depend_on_the_batching() -> None:
    model = tiny_llama()
    batch = make_batch(3, seed=6, padded=True)
    whole = probe(model, [batch], ("fisher_sampled", "fisher"), draws=3, seed=5)
    rows = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(3)]
    single = probe(model, rows, "fisher_sampled", draws=3, seed=5)
    assert relative(whole.examples["fisher_sampled"], single.examples["fisher_sampled"]) <= LIMIT
    other = probe(model, [batch], "fisher_sampled", draws=3, seed=6)
    assert relative(whole.examples["fisher_sampled"], other.examples["fisher_sampled"]) > 1e-3


def test_sampled_fisher_has_the_enumerated_true_fisher_as_its_mean() -> None:
    """One answer token, every label of the vocabulary in turn: ``sum_y p(y) g(y)^2``, and the draws' own spread."""
    draws = 300
    model = tiny_llama(layers=1, vocab_size=13)
    nn.init.normal_(model.lm_head.weight, std=0.5)  # far from uniform: drawing from the wrong distribution shows
    batch = make_batch(2, length=6, seed=6)
    batch["input_ids"] %= 13
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, :-1] = -100
    traces = torch.zeros(2, 13, 7, dtype=torch.float64)  # example, label, matrix
    chances = torch.softmax(model(batch["input_ids"]).logits[:, -2], dim=-1).detach()
    for label in range(13):
        batch["labels"][:, -1] = label
        gradients = probe(model, [batch], "fisher", vectors=False)
        traces[:, label] = torch.from_numpy(gradients.examples["fisher"])
    mean = (chances[..., None] * traces).sum(1)
    spread = ((chances[..., None] * traces.square()).sum(1) - mean.square()).sqrt()
    found = probe(model, [batch], "fisher_sampled", draws=draws, vectors=False).examples["fisher_sampled"]
    off = (torch.from_numpy(found) - mean).abs() / (spread / draws**0.5)
    assert off.max() < 4.5  # standard errors, the largest of 14
    uniform = (traces.mean(1) - mean).abs() / (spread / draws**0.5)
    assert uniform.max() > 20  # what labels drawn uniformly would give


def test_sampled_targets_follow_the_model() -> None:
    """Chi-square of 4,000 draws at two answer positions; the third position has none."""
    from scipy.stats import chisquare

    logits = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]).double()
    targets = torch.tensor([[0, 0, -100]])
    drawn = torch.cat([AnswerLoss.sampled_targets(logits, targets, [seed]) for seed in range(4000)])
    assert (drawn[:, 2] == -100).all()
    for position in range(2):
        counts = torch.bincount(drawn[:, position], minlength=3)
        expected = torch.softmax(logits[0, position], dim=-1) * 4000
        assert chisquare(counts.numpy(), expected.numpy()).pvalue > 0.001


def test_embeddings_given_as_inputs() -> None:
    model = tiny_llama(tied=True)
    batch = make_batch(3, seed=9, padded=True)
    embeds = {**{k: v for k, v in batch.items() if k != "input_ids"}}
    embeds["inputs_embeds"] = model.get_input_embeddings()(batch["input_ids"]).detach()
    for estimator in ESTIMATORS:
        first, second = probe(model, [batch], estimator), probe(model, [embeds], estimator)
        assert relative(first.scores(estimator), second.scores(estimator)) <= LIMIT


def test_masks_hold_the_top_weights() -> None:
    model = tiny_llama()
    batches = [make_batch(4, seed=1)]
    snapshot = probe(model, batches, ("taylor", "fisher", "magnitude"), top_fraction=0.05)
    expected = truth(model, batches)
    for matrix in snapshot.table:
        scores = expected[matrix.name]["taylor"].mean(0).flatten()
        top = torch.zeros(scores.numel(), dtype=torch.bool)
        top[scores.topk(round(0.05 * scores.numel())).indices] = True
        assert torch.equal(snapshot.top("taylor")[matrix.name].flatten(), top)


class LinearStack(nn.Module):
    """A decoder of which every weight is a Linear's, so that BackPACK knows all of it."""

    def __init__(self, width: int = 16, vocabulary: int = 61) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        block = {"up": nn.Linear(width, 2 * width), "act": nn.Tanh(), "down": nn.Linear(2 * width, width)}
        self.layers = nn.ModuleList(nn.Sequential(*copy.deepcopy(block).values()) for _ in range(2))
        self.head = nn.Linear(width, vocabulary)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.words(input_ids).cumsum(1)  # positions see those before them
        for block in self.layers:
            x = block(x)
        return self.head(x)


@pytest.mark.parametrize("make", [LinearStack, tiny_llama])
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_fisher_against_backpack(make: type[nn.Module]) -> None:
    """``SumGradSquared`` is exact per sample for Linear layers on sequences; a mean over B examples scales it 1/B^2."""
    backpack = pytest.importorskip("backpack")
    from backpack.extensions import SumGradSquared

    torch.manual_seed(0)
    model = make().double().eval()
    batch = make_batch(4, seed=1, padded=True)
    snapshot = probe(model, [batch], "fisher", keep_maps=("fisher",))
    extended = copy.deepcopy(model)
    for module in extended.modules():
        if isinstance(module, nn.Linear):
            backpack.extend(module)
    output = extended(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits = output if isinstance(output, torch.Tensor) else output.logits
    labels = batch["labels"][:, 1:]
    tokens = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none")
    loss = (tokens.sum(1) / (labels != -100).sum(1)).mean()
    with backpack.backpack(SumGradSquared()):
        loss.backward()
    parameters = dict(extended.named_parameters())
    for name, entries in snapshot.parameters("fisher").items():
        assert relative(entries, 4**2 * parameters[name].sum_grad_squared / 4) <= LIMIT
    with torch.no_grad():
        assert float(loss) == pytest.approx(sum(snapshot.losses) / 4, rel=1e-10)
    if make is tiny_llama:
        assert float(example_loss(model, batch, 0)) == pytest.approx(snapshot.losses[0], rel=1e-10)
