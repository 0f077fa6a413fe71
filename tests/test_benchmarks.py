"""What the benchmarks compare with computes what its name says, and their memory figures count what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.importance_memory import PLANS, Plan, memory_sum, table
from benchmarks.importance_models import batches, build
from benchmarks.importance_rivals import RIVALS
from benchmarks.live_memory import peak_mib
from benchmarks.training import Turns, arguments, measure, median_interval, the_batches, the_model
from benchmarks.training_loops import LOOPS
from textkeep.importance import probe
from textkeep.lightning_modules import SpeechLLM

SIZES = {  # no grouped heads: Torch-Pruning's tracing of a Llama with them did not end
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4,
}  # fmt: skip
NEEDS = {"BackPACK": "backpack", "Torch-Pruning": "torch_pruning"}


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", RIVALS)
def test_rivals_against_ours(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    model = build("small", "cpu", torch.float64, **SIZES)
    # four rows: a mean over a power of two scales gradients without rounding, also in RMSNorm's float32
    data = batches(61, 4, 9, 2, "cpu")
    ours = probe(model, data, ("taylor", "fisher"))
    for estimator, totals in RIVALS[name](model, data).items():
        for matrix, value in ours.matrices(estimator).items():
            off = abs(float(totals[matrix]) / (8 * value) - 1)
            assert off > 0.05 if name == "Torch-Pruning" else off < 1e-8  # the batch's gradient is another quantity


def test_live_memory_counts_tensors_while_they_live() -> None:
    weight = torch.ones(256, 1024)  # 1 MiB, at rest

    def work() -> torch.Tensor:
        kept = weight * 2  # 1 MiB
        assert (weight.view(-1) + kept.view(-1)).sum() > 0  # another, for a moment
        return (kept * 3)[:1]  # and another: two at once

    assert peak_mib(work, [weight]) == pytest.approx(2.0, abs=0.01)


def test_live_memory_sees_the_backward_pass() -> None:
    weight = torch.ones(256, 1024, requires_grad=True)

    def work() -> None:
        (weight * weight).sum().backward()

    assert peak_mib(work, [weight]) > 2.0


def test_the_memory_sum_has_what_can_be_counted_by_hand() -> None:
    small = Plan("", "small", maps=("taylor",), maps_on_cpu=True)
    entries = 3 * (4 * 512 * 512 + 3 * 512 * 1376)
    sums = memory_sum(small, torch.float32)
    assert sums["CPU"] * 2**30 == 4 * entries
    assert sums["weights"] * 2**30 == 4 * (entries + 2 * 2048 * 512 + 7 * 512)
    assert memory_sum(Plan("", "small", checkpointing=False))["activations"] > memory_sum(small)["activations"]
    assert len(list(table())) == 2 + len(PLANS)


@pytest.mark.parametrize(("count", "low", "high"), [(20, 6, 15), (11, 2, 10), (5, 1, 5)])
def test_the_interval_of_a_median_has_the_ranks_of_the_tables(count: int, low: int, high: int) -> None:
    """Conover, Practical Nonparametric Statistics: of 20 values ranks 6 and 15, of 11 ranks 2 and 10."""
    values = torch.randperm(count).add(1).tolist()
    assert median_interval(values) == ((count + 1) / 2, low, high)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("modality", ["speech", "text"])
def test_the_loops_train_alike_and_ours_as_a_bare_one_to_the_last_bit(modality: str, tmp_path: Path) -> None:
    words = ["--model", "tiny", "--tokens", "160", "--lr", "0.01", "--rounds", "4", "--warmup", "1"]
    options = arguments().parse_args(words)
    make = the_model(options, tmp_path)
    batches = the_batches(make(), modality, 160, 5)
    models: dict[str, SpeechLLM] = {}

    def kept(name: str) -> Callable[[], SpeechLLM]:
        return models.setdefault(name, make())

    names = iter(LOOPS)
    sample = measure(lambda: kept(next(names)), batches, LOOPS, warmup=1)
    weights = {name: dict(model.named_parameters()) for name, model in models.items()}
    before = dict(make().named_parameters())
    bare, ours, other = (weights[name] for name in ("bare torch loop", "TextKeep", "Hugging Face Trainer"))
    assert all(torch.equal(bare[name], ours[name]) for name in bare)
    assert not torch.equal(bare["llm.model.norm.weight"], before["llm.model.norm.weight"])
    torch.testing.assert_close(bare, other, rtol=1e-3, atol=1e-4)
    assert {name: len(seconds) for name, seconds in sample.seconds.items()} == dict.fromkeys(LOOPS, 4)


def test_what_breaks_in_a_loop_breaks_the_benchmark() -> None:
    def work(stepped: Callable[[], None]) -> None:
        stepped()
        raise ZeroDivisionError

    turns = Turns(work)
    assert turns.take() >= 0
    with pytest.raises(ZeroDivisionError):
        turns.take()
