"""Ablation against plain torch: weights really zeroed or outputs replaced, whole passes, one example at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textkeep.foundation.decoder import find_blocks, is_transposed
from textkeep.importance import Snapshot, compare, probe
from textkeep.importance.evaluate import answer_losses

from .families import ALIASES, LEFT_OUT, all_families, build
from .oracle import example_loss, make_batch, tiny_llama
from .test_families import REFUSED, examples

BATCHES = [make_batch(4, seed=1, padded=True), make_batch(3, seed=2)]
FAMILIES = ("llama", "gpt2", "gemma", "gemma2", "qwen2", "qwen3", "falcon", "gpt_neox", "phi")  # falcon on: parallel
LAST = {  # what a block adds to the residual stream goes through these
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "falcon": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "phi": ("self_attn.dense", "mlp.fc2"),
}
HEADS, HEAD = 4, 8  # of the tiny families
EXACT = 1e-6  # some families compute parts in float32


def own_loss(model: nn.Module, batch: dict, row: int) -> Tensor:
    """Mean cross-entropy of one example, unpadded and alone (padding stands on the right)."""
    real = batch["attention_mask"][row].bool()
    ids, labels = batch["input_ids"][row][real][None], batch["labels"][row][real]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits, labels[1:], ignore_index=-100)


@torch.no_grad()
def losses_alone(model: nn.Module, batches: list[dict] = BATCHES) -> np.ndarray:
    model.eval()
    return np.array([float(own_loss(model, b, row)) for b in batches for row in range(len(b["labels"]))])


@contextmanager
def zeroed(*parameters: Tensor | None) -> Iterator[None]:
    """Sets parameters, or views of them, to zero while the context lasts."""
    kept = [(p, p.detach().clone()) for p in parameters if p is not None]
    with torch.no_grad():
        for parameter, _ in kept:
            parameter.zero_()
    yield
    with torch.no_grad():
        for parameter, value in kept:
            parameter.copy_(value)


def expected(model: nn.Module, contexts: list) -> np.ndarray:
    """Changes (N, G) of the losses as each of the contexts is entered in turn."""
    base, columns = losses_alone(model), []
    for context in contexts:
        with context:
            columns.append(losses_alone(model) - base)
    return np.stack(columns, axis=1)


def last_matrices(kind: str, block: nn.Module) -> list[nn.Module]:
    return [block.get_submodule(path) for path in LAST.get(kind, ("self_attn.o_proj", "mlp.down_proj"))]


def worst(snapshot: Snapshot, truth: np.ndarray) -> float:
    found = snapshot.examples["ablation"]
    assert found.shape == truth.shape
    assert np.abs(truth).max() > 1e-3
    return float(np.abs(found - truth).max())


@pytest.mark.parametrize("kind", FAMILIES)
def test_layers_without_what_they_add_to_the_residual_stream(kind: str) -> None:
    model = build(kind)
    snapshot = probe(model, BATCHES, "ablation")
    blocks = find_blocks(model)[1]
    zeros = [zeroed(*(p for m in last_matrices(kind, b) for p in (m.weight, getattr(m, "bias", None)))) for b in blocks]
    assert worst(snapshot, expected(model, zeros)) < EXACT
    assert snapshot.meta["ablation"] == {"resumes": True, "tokens": 0}
    assert [g.name for g in snapshot.groups["ablation"]] == ["layer_00", "layer_01"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_matrices_with_their_weights_at_zero(kind: str) -> None:
    model = build(kind)
    snapshot = probe(model, BATCHES, ("taylor", "ablation"), ablate="matrix")
    parameters = dict(model.named_parameters())
    names = [group.name for group in snapshot.groups["ablation"]]
    assert names == [matrix.name for matrix in snapshot.table]
    assert worst(snapshot, expected(model, [zeroed(parameters[name]) for name in names])) < EXACT


@pytest.mark.parametrize("kind", FAMILIES)
def test_heads_with_their_columns_of_the_output_projection_at_zero(kind: str) -> None:
    model = build(kind)
    snapshot = probe(model, BATCHES, "ablation", ablate="head")
    zeros = []
    for block in find_blocks(model)[1]:
        module = last_matrices(kind, block)[0]
        weight = module.weight.detach()
        weight = weight.T if is_transposed(module) else weight  # a view
        zeros += [zeroed(weight[:, h * HEAD : (h + 1) * HEAD]) for h in range(HEADS)]
    assert worst(snapshot, expected(model, zeros)) < EXACT


@contextmanager
def replaced(module: nn.Module, seen: Callable[[Tensor, Tensor], Tensor], put: Callable[..., Tensor], mean: Tensor):
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        first = output if isinstance(output, Tensor) else output[0]
        changed = put(args[0], first, mean)
        return changed if first is output else (changed, *output[1:])

    handle = module.register_forward_hook(hook)
    yield
    handle.remove()


@torch.no_grad()
def mean_of(model: nn.Module, module: nn.Module, seen: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean over all positions of all examples, one example at a time."""
    rows: list[Tensor] = []

    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        rows.append(seen(args[0], output if isinstance(output, Tensor) else output[0])[0].clone())  # falcon adds to it

    handle = module.register_forward_hook(hook)
    losses_alone(model)
    handle.remove()
    return torch.cat(rows).mean(0)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "falcon"])
def test_means_over_the_content_of_the_probe_stand_in(kind: str) -> None:
    model = build(kind)
    blocks = find_blocks(model)[1]

    def truth(modules: list[nn.Module], seen, put) -> np.ndarray:
        return expected(model, [replaced(m, seen, put, mean_of(model, m, seen)) for m in modules])

    layers = probe(model, BATCHES, "ablation", ablate_with="mean")
    added = truth(list(blocks), lambda x, y: y - x, lambda x, y, mean: x + mean)
    assert worst(layers, added) < EXACT
    assert layers.meta["ablation"]["tokens"] == sum(int(b["attention_mask"].sum()) for b in BATCHES)

    matrices = probe(model, BATCHES, "ablation", ablate="matrix", ablate_with="mean")
    modules = [model.get_submodule(g.name.removesuffix(".weight")) for g in matrices.groups["ablation"]]
    assert worst(matrices, truth(modules, lambda x, y: y, lambda x, y, mean: mean.repeat(*y.shape[:-1], 1))) < EXACT

    heads = probe(model, BATCHES, "ablation", ablate="head", ablate_with="mean")
    assert worst(heads, expected(model, list(_mean_heads(model, kind)))) < EXACT


def _mean_heads(model: nn.Module, kind: str) -> Iterator:
    for block in find_blocks(model)[1]:
        module = last_matrices(kind, block)[0]
        mean = mean_of(model, module, lambda x, y: x)
        for h in range(HEADS):
            inside = slice(h * HEAD, (h + 1) * HEAD)
            yield _column_means(module, inside, mean[inside])


@contextmanager
def _column_means(module: nn.Module, inside: slice, mean: Tensor) -> Iterator[None]:
    plain = module.forward

    def forward(x: Tensor) -> Tensor:
        parts = [x[..., : inside.start], mean.expand(*x.shape[:-1], -1), x[..., inside.stop :]]
        return plain(torch.cat(parts, dim=-1))

    module.forward = forward
    yield
    del module.forward


@pytest.mark.parametrize(
    ("weights", "autocast"),
    [(torch.float32, None), (torch.bfloat16, None), (torch.float32, torch.bfloat16)],
    ids=["float32", "bfloat16", "autocast"],
)
def test_the_same_bits_as_whole_passes_over_zeroed_weights(weights: torch.dtype, autocast: torch.dtype | None) -> None:
    model = tiny_llama(layers=3).to(weights).eval()
    found = probe(model, BATCHES, "ablation", ablate="matrix", autocast=autocast)
    assert found.meta["ablation"]["resumes"]
    base, parameters = answer_losses(model, BATCHES, autocast)[0], dict(model.named_parameters())
    for index, group in enumerate(found.groups["ablation"]):
        with zeroed(parameters[group.name]):
            whole = answer_losses(model, BATCHES, autocast)[0] - base
        np.testing.assert_array_equal(found.examples["ablation"][:, index], whole)


def test_only_the_blocks_above_run_again() -> None:
    model = tiny_llama(layers=4)
    ran: list[int] = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, i=index: ran.append(i))
    probe(model, BATCHES[:1], "ablation")
    recorded = [0, 1, 2, 3]
    trial = [*recorded, *recorded, 3, 2, 1, 0]  # as it is, with other hidden states, each block alone
    assert ran == recorded + recorded + trial + recorded + [1, 2, 3] + [2, 3] + [3]  # rehearsal and losses come first


class Whispering(nn.Module):
    """A block that leaves a note for the next one on a shared module: a replay finds that of an earlier pass."""

    def __init__(self, index: int, notes: dict[int, Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.index, self.notes = index, notes

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.linear(hidden_states)
        if self.index:
            hidden_states = hidden_states + self.notes[self.index - 1]
        self.notes[self.index] = hidden_states.tanh()
        return hidden_states


class Whisperers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(61, 8), nn.Linear(8, 61)
        notes: dict[int, Tensor] = {}
        self.layers = nn.ModuleList([Whispering(index, notes) for index in range(3)])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        state = self.embedding(input_ids)
        for layer in self.layers:
            state = layer(state)
        return self.head(state)


def test_where_a_replay_would_differ_whole_passes_are_run_with_a_warning() -> None:
    torch.manual_seed(0)
    model = Whisperers()
    with pytest.warns(UserWarning, match="blocks of Whisperers cannot be run on their own"):
        found = probe(model, BATCHES, "ablation", ablate="matrix")
    assert not found.meta["ablation"]["resumes"]
    base = answer_losses(model, BATCHES)[0]
    for index, layer in enumerate(model.layers):
        with zeroed(layer.linear.weight):
            whole = answer_losses(model, BATCHES)[0] - base
        np.testing.assert_array_equal(found.examples["ablation"][:, index], whole)


@pytest.mark.filterwarnings("error")
def test_without_reuse_every_pass_is_a_whole_one_and_gives_the_same_bits() -> None:
    model = tiny_llama()
    calls = []
    for reuse in (True, False):
        passed = 0

        def count(*_: object) -> None:
            nonlocal passed
            passed += 1

        handle = model.model.layers[0].self_attn.register_forward_hook(count)
        found = probe(model, BATCHES, "ablation", reuse_blocks=reuse)
        handle.remove()
        assert found.meta["ablation"]["resumes"] is reuse
        assert "reuse_blocks" not in found.meta["options"]  # it changes no number
        calls.append((passed, found.examples["ablation"]))
    np.testing.assert_array_equal(calls[0][1], calls[1][1])
    layers = len(model.model.layers)
    runs = len(BATCHES) * (layers + 2)  # each group, the losses, what the changes are counted from; and the rehearsal
    assert calls[1][0] == runs + 1
    assert calls[0][0] < calls[1][0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_in_every_family_a_replay_has_the_bits_of_whole_passes_or_is_not_used() -> None:
    wrong, whole = [], []
    for kind in (k for k in all_families() if k not in LEFT_OUT and k not in ALIASES and k not in REFUSED):
        model, batches = build(kind), [examples()]
        found = probe(model, batches, "ablation")
        expected = probe(model, batches, "ablation", reuse_blocks=False)
        whole += [] if found.meta["ablation"]["resumes"] else [kind]
        wrong += [] if (found.examples["ablation"] == expected.examples["ablation"]).all() else [kind]
    assert not wrong
    assert whole == ["hrm_text"]  # runs its blocks several times


def test_padding_and_batching_change_nothing() -> None:
    model = tiny_llama()
    rows = [{k: v[i : i + 1] for k, v in b.items()} for b in BATCHES for i in range(len(b["labels"]))]
    for row in rows:
        stop = int(row["attention_mask"].sum())
        row.update({k: v[:, :stop] for k, v in row.items() if k != "ids"})
    for options in ({"ablate": "layer"}, {"ablate": "head", "ablate_with": "mean"}):
        together, alone = (probe(model, data, "ablation", **options) for data in (BATCHES, rows))
        np.testing.assert_allclose(together.examples["ablation"], alone.examples["ablation"], atol=1e-12)


def test_tied_embeddings_and_other_estimators_beside_it_change_nothing() -> None:
    model = tiny_llama(tied=True)
    beside = probe(model, BATCHES, ("ablation", "taylor", "signed_taylor"), include=("embeddings", "norms"))
    alone = probe(model, BATCHES, "ablation")
    np.testing.assert_array_equal(beside.examples["ablation"], alone.examples["ablation"])
    np.testing.assert_array_equal(
        beside.scores("taylor"), probe(model, BATCHES, "taylor", include=("embeddings", "norms")).scores("taylor")
    )
    blocks = model.model.layers
    truth = expected(model, [zeroed(b.self_attn.o_proj.weight, b.mlp.down_proj.weight) for b in blocks])
    assert worst(alone, truth) < 1e-12


def test_of_lora_the_effective_weight_is_taken_out() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=0.3, target_modules="all-linear")
    model = get_peft_model(tiny_llama(), config).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    merged = copy.deepcopy(model).merge_and_unload()
    for ablate in ("layer", "matrix", "head"):
        adapted, plain = (probe(m, BATCHES, "ablation", ablate=ablate) for m in (model.train(), merged))
        np.testing.assert_allclose(adapted.examples["ablation"], plain.examples["ablation"], atol=1e-10)
        assert adapted.groups == plain.groups


def test_equal_effects_count_once() -> None:
    """Without gate, up or down an MLP gives nothing all the same; likewise v and o, q and k."""
    found = probe(tiny_llama(), BATCHES, "ablation", ablate="matrix")
    counted = [g.kind for g in found.groups["ablation"] if g.layer == 0 and g.equal_to is None]
    assert counted == ["q", "v", "gate"]
    means = found.examples["ablation"].mean(0)
    of_layers = [sum(max(means[7 * layer + i], 0) for i in (0, 2, 4)) for layer in range(2)]
    np.testing.assert_allclose(list(found.shares("ablation").values()), np.array(of_layers) / sum(of_layers))
    assert found.total("ablation") == pytest.approx(sum(of_layers))


def test_shares_are_of_the_positive_part_of_the_mean() -> None:
    found = probe(tiny_llama(layers=3), BATCHES, "ablation")
    found.examples["ablation"] = np.array([[3.0, -1.0, 0.5], [1.0, -2.0, 1.5]])
    assert list(found.shares("ablation").values()) == [2 / 3, 0.0, 1 / 3]
    assert found.effects("ablation").tolist() == [2.0, -1.5, 1.0]


def test_a_snapshot_comes_back_from_disk_and_is_compared(tmp_path) -> None:
    before = probe(tiny_llama(layers=3), BATCHES, ("taylor", "ablation"))
    after = probe(tiny_llama(layers=3, seed=1), BATCHES, ("taylor", "ablation"))
    read = Snapshot.load(before.save(tmp_path / "before"))
    np.testing.assert_array_equal(read.examples["ablation"], before.examples["ablation"])
    assert read.groups == before.groups
    shift, same = compare(before, after, "ablation"), compare(read, after, "ablation")
    assert shift.as_dict() == same.as_dict()
    js = shift.metrics["js"]
    assert js.p is not None
    assert js.low <= js.corrected <= js.high
    other = probe(tiny_llama(layers=3), BATCHES, "ablation", ablate="matrix")
    with pytest.raises(ValueError, match=r"differ in groups|option ablate: 'layer' and 'matrix'"):
        compare(before, other, "ablation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablate": "neuron"}, "ablate='neuron' is unknown; allowed: layer, matrix, head"),
        ({"ablate_with": "noise"}, "ablate_with='noise' is unknown; allowed: zero, mean"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(tiny_llama(), BATCHES, "ablation", **options)


def test_a_model_without_known_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="no head of this model was recognised"):
        probe(Whisperers(), BATCHES, "ablation", ablate="head")


def test_the_model_and_the_random_numbers_are_as_they_were() -> None:
    model = tiny_llama().train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    random = torch.get_rng_state()
    probe(model, BATCHES, "ablation", ablate="head", ablate_with="mean")
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert all(module.training for module in model.modules())
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())


def test_what_progress_raises_ends_it_and_leaves_nothing_behind() -> None:
    model, told = tiny_llama(), []

    def stop(what: str, done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(model, BATCHES, "ablation", progress=stop)
    assert told == [(0, 4), (1, 4), (2, 4)]
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())


def test_its_losses_are_those_of_the_examples() -> None:
    model = tiny_llama()
    truth = [float(example_loss(model, b, row).detach()) for b in BATCHES for row in range(len(b["labels"]))]
    np.testing.assert_allclose(probe(model, BATCHES, "ablation").losses, truth, atol=1e-12)
