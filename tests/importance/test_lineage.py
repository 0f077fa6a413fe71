"""Lineage: cosines against numpy, what chance is against simulation, and the verdicts on models of known descent."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from textkeep.importance.lineage import Kinship, lineage


def build(seed: int, **other: Any) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, **other}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))


@torch.no_grad()
def moved(model: Any, share: float, seed: int = 7) -> Any:
    """A copy whose matrices each have noise added, ``share`` times as large as they are."""
    other, generator = deepcopy(model), torch.Generator().manual_seed(seed)
    for parameter in other.parameters():
        if parameter.dim() == 2:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (share * parameter.norm() / noise.norm()))
    return other


def test_figures_are_those_of_numpy() -> None:
    base, model = build(0), build(1)
    found = lineage(base, model)
    every: list[list[np.ndarray]] = [[], []]
    for name, kinship in found.matrices.items():
        a, b = (m.get_parameter(name).detach().numpy().astype(float).ravel() for m in (base, model))
        assert kinship.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
        assert kinship.change == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
        assert kinship.chance == pytest.approx(np.linalg.norm(a * b) / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
        every[0].append(a)
        every[1].append(b)
    a, b = map(np.concatenate, every)
    assert found.whole.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    assert len(found.matrices) == 14
    assert list(found.layers) == ["00", "01"]


@pytest.mark.parametrize("large", [1.0, 30.0], ids=["alike", "large columns"])
def test_chance_is_the_spread_of_the_cosines_of_independent_matrices(large: float) -> None:
    """Also where the same few columns are large in both, as in trained LLMs: 1 / sqrt(n) would be too small there."""
    from textkeep.importance.lineage import _kinship, _sums

    generator = torch.Generator().manual_seed(0)
    scale = torch.ones(48)
    scale[:2] = large
    found = []
    for _ in range(1000):
        a, b = (torch.randn(32, 48, generator=generator) * scale for _ in range(2))
        found.append(_kinship([_sums(a, b)]))
    scores = np.array([kinship.cosine / kinship.chance for kinship in found])
    assert abs(scores.mean()) < 4 / np.sqrt(len(scores))
    assert scores.std() == pytest.approx(1, abs=0.09)  # four standard errors of a standard deviation
    naive = np.std([kinship.cosine for kinship in found]) * np.sqrt(32 * 48)
    assert naive == pytest.approx(1, abs=0.09) if large == 1 else naive > 3


def test_a_model_is_its_own_parent_bit_for_bit() -> None:
    base = build(0)
    found = lineage(base, deepcopy(base))
    assert found.verdict == "parent"
    assert found.whole.cosine == pytest.approx(1, abs=1e-12)
    assert found.whole.change == 0
    assert found.counts == {"parent": 14, "relative": 0, "unrelated": 0, "equal": 14}


@pytest.mark.parametrize(("share", "verdict"), [(0.1, "parent"), (1.0, "relative")])
def test_what_was_trained_on_is_told_by_how_far(share: float, verdict: str) -> None:
    """Noise of the size s makes the cosine 1 / sqrt(1 + s^2)."""
    base = build(0)
    found = lineage(base, moved(base, share))
    assert found.whole.cosine == pytest.approx(1 / np.sqrt(1 + share**2), abs=0.02)
    assert found.whole.change == pytest.approx(share, rel=1e-5)
    assert found.counts[verdict] == 14


def test_another_initialisation_is_unrelated() -> None:
    found = lineage(build(0), build(1))
    assert found.verdict == "unrelated"
    assert found.counts["unrelated"] == 14
    assert found.whole.change == pytest.approx(np.sqrt(2), rel=0.05)


def test_one_new_layer_in_a_child_is_named() -> None:
    base, stranger = build(0), build(1)
    child = deepcopy(base)
    child.model.layers[1] = stranger.model.layers[1]
    found = lineage(base, child)
    assert found.verdict == "relative"
    assert (found.layers["00"].verdict, found.layers["01"].verdict) == ("parent", "unrelated")
    assert found.counts == {"parent": 7, "relative": 0, "unrelated": 7, "equal": 7}


def test_lora_counts_by_the_weight_that_acts() -> None:
    import peft

    base = build(0)
    tuned = deepcopy(base)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), tuned)
    found = lineage(base, tuned)
    assert set(found.matrices) == set(lineage(base, base).matrices)
    assert found.counts["equal"] == 12


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"hidden_size": 16}, "is .32, 32. in the first and .16, 16. in"),
        ({"num_hidden_layers": 1}, "no such matrix in the second"),
    ],
)
def test_other_sizes_have_no_lineage(other: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=rf"no lineage, the two are of other architectures or sizes: .*{named}"):
        lineage(build(0), build(0, **other))


def test_a_matrix_of_zeros_points_nowhere() -> None:
    base = build(0)
    other = deepcopy(base)
    torch.nn.init.zeros_(other.model.layers[0].mlp.up_proj.weight)
    found = lineage(base, other).matrices["model.layers.0.mlp.up_proj.weight"]
    assert found == Kinship(0.0, 0.0, 1.0)
    assert found.verdict == "unrelated"
