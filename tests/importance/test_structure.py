"""Concentration and overlap against oracles, and against changes whose answer is known."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from textkeep.importance import Snapshot, compare, probe
from textkeep.importance.changes import Changes
from textkeep.importance.overlap import change_overlap, top_entries
from textkeep.importance.structure import entropy, gini, line_share, permuted, stable_rank, structure

from .learned import TRAIN, adapted, learned

__all__ = ["learned"]


@pytest.fixture(scope="module")
def snapshot(learned: nn.Module) -> Snapshot:
    return probe(learned, TRAIN, "taylor", top_fraction=0.05, keep_maps=("taylor",))


def test_measures_of_concentration_at_their_limits() -> None:
    assert gini(np.ones(10)) == pytest.approx(0.0)
    assert gini(np.eye(10)[0]) == pytest.approx(0.9)
    assert gini(np.zeros(10)) == 0.0
    assert entropy(np.ones(10)) == pytest.approx(1.0)
    assert entropy(np.eye(10)[0]) == pytest.approx(0.0)
    assert stable_rank(torch.eye(6)) == pytest.approx(6.0)
    assert stable_rank(torch.outer(torch.arange(4.0), torch.ones(5))) == pytest.approx(1.0)
    assert stable_rank(torch.zeros(3, 4)) == 0.0


@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_measures_of_concentration_against_oracles(scale: float) -> None:
    generator = np.random.default_rng(0)
    values = scale * generator.gamma(0.5, size=30)
    values[3] = 0.0
    differences = sum(abs(a - b) for a in values for b in values)  # the definition
    assert gini(values) == pytest.approx(differences / (2 * 30**2 * values.mean()))
    assert entropy(values) == pytest.approx(stats.entropy(values) / np.log(30))
    matrix = scale * generator.standard_normal((9, 14))
    expected = np.linalg.norm(matrix, "fro") ** 2 / np.linalg.norm(matrix, 2) ** 2
    assert stable_rank(torch.from_numpy(matrix)) == pytest.approx(expected, rel=1e-5)


def test_line_share_against_a_loop() -> None:
    mask = torch.rand(40, 60, generator=torch.Generator().manual_seed(0)) < 0.1
    mask[3], mask[:, 7] = True, True
    rows = sorted(range(40), key=lambda i: -int(mask[i].sum()))[:2]
    columns = sorted(range(60), key=lambda j: -int(mask[:, j].sum()))[:3]
    inside = sum(bool(mask[i, j]) for i in range(40) for j in range(60) if i in rows or j in columns)
    # ties at the cut may be broken otherwise, by lines that hold equally many
    assert line_share(mask) == pytest.approx(inside / int(mask.sum()), abs=0.03)
    only = torch.zeros(40, 60, dtype=torch.bool)
    only[3], only[:, 7] = True, True
    assert line_share(only) == 1.0
    assert line_share(permuted(only)) < 0.35
    assert permuted(only).sum() == only.sum()


def test_structure_uses_what_the_snapshot_has(learned: nn.Module, snapshot: Snapshot) -> None:
    lean, full = structure(probe(learned, TRAIN, "taylor")), structure(snapshot)
    assert lean[0].line_share is None
    assert full[0].gini_rows == pytest.approx(lean[0].gini_rows, rel=1e-6)
    assert full[0].line_share > full[0].line_share_chance
    scores = snapshot.parameters("taylor")[full[0].name]
    assert full[0].gini_columns == pytest.approx(gini(scores.sum(0).numpy()), rel=1e-4)
    assert 1 <= full[0].stable_rank <= 24
    with pytest.raises(ValueError, match="no row and column sums of 'fisher'"):
        structure(snapshot, "fisher")


def test_a_snapshot_without_vectors_says_so(learned: nn.Module, tmp_path: Path) -> None:
    full = probe(learned, TRAIN[:1], ("taylor", "signed_taylor")).save(tmp_path / "full")
    lean = probe(learned, TRAIN[:1], ("taylor", "signed_taylor"), vectors=False).save(tmp_path / "lean")
    sizes = [(folder / "stats.safetensors").stat().st_size for folder in (full, lean)]
    assert sizes[1] < sizes[0] / 3
    before, after = Snapshot.load(full), Snapshot.load(lean)
    assert before.shares("taylor") == after.shares("taylor")
    assert compare(before, after, "taylor", replicates=10).metrics["js"].value == pytest.approx(0.0, abs=1e-6)
    delta = {m.name: torch.ones(m.shape) for m in after.table}
    for needs in (
        lambda: structure(after),
        lambda: change_overlap(after, delta),
        lambda: after.head_scores("taylor"),
        lambda: after.head_scores("signed_taylor"),
    ):
        with pytest.raises(ValueError, match=r"no row and column sums of .* measure with vectors .*--no-vectors"):
            needs()


def test_overlap_sees_a_change_on_important_lines(snapshot: Snapshot) -> None:
    deltas = {
        m.name: torch.from_numpy(np.outer(snapshot.rows["taylor"][i], snapshot.columns["taylor"][i]))
        for i, m in enumerate(snapshot.table)
    }
    found = change_overlap(snapshot, deltas, ranks=dict.fromkeys(deltas, 2), shuffles=200)
    assert len(found) == len(snapshot.table)
    for overlap in found:
        for lines in (overlap.rows, overlap.columns):
            assert lines.spearman == pytest.approx(1.0)
            assert lines.percentile == lines.random_percentile == 100.0
            assert lines.shuffled_p95 < 0.7
            assert abs(lines.random_median) < 0.6
        assert overlap.shared > 2 * overlap.shared_shuffled
        assert overlap.shared > 2 * overlap.shared_random
        assert overlap.line_share > overlap.line_share_chance


def test_overlap_of_an_unrelated_change_is_luck(snapshot: Snapshot) -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = {m.name: torch.randn(m.shape, generator=generator) for m in snapshot.table}
    found = change_overlap(snapshot, deltas)
    percentiles = [p for o in found for p in (o.rows.percentile, o.columns.percentile)]
    assert 30 < np.mean(percentiles) < 70
    assert np.mean([abs(o.rows.spearman) > o.rows.shuffled_p95 for o in found]) < 0.25
    assert found[0].rows.random_median is None
    assert np.mean([o.shared for o in found]) == pytest.approx(0.05, abs=0.03)


def test_overlap_against_scipy_and_loops(snapshot: Snapshot) -> None:
    place, matrix = 4, snapshot.table[4]
    delta = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1))
    found = change_overlap(snapshot, {matrix.name: delta}, shuffles=4000)[0]
    lines = delta.abs().sum(1).numpy()
    side = snapshot.rows["taylor"][place]
    assert found.rows.spearman == pytest.approx(stats.spearmanr(side, lines).statistic)
    generator = np.random.default_rng(9)
    luck = np.array([stats.spearmanr(side, generator.permutation(lines)).statistic for _ in range(2000)])
    assert found.rows.shuffled_p95 == pytest.approx(np.percentile(np.abs(luck), 95), abs=0.02)
    assert found.rows.percentile == pytest.approx(100 * (luck < found.rows.spearman).mean(), abs=4)
    mask = snapshot.top("taylor")[matrix.name]
    order = delta.abs().flatten().argsort(descending=True)[: int(mask.sum())]
    assert found.shared == pytest.approx(float(mask.flatten()[order].float().mean()))
    assert found.norm == pytest.approx(float(delta.norm()))
    assert top_entries(delta.abs(), 0.1).sum() == round(0.1 * delta.numel())


def test_changes_of_a_full_fine_tuning(learned: nn.Module) -> None:
    tuned = copy.deepcopy(learned)
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight.add_(0.5)
    changes = Changes(learned, tuned)
    assert len(changes) == 21
    assert changes.ranks() == {}
    moved = [name for name in changes if changes[name].any()]
    assert moved == ["model.layers.1.mlp.up_proj.weight"]
    torch.testing.assert_close(changes[moved[0]], torch.full((40, 24), 0.5))


def test_changes_of_an_adapted_model_are_the_adapters(learned: nn.Module, snapshot: Snapshot) -> None:
    tuned = adapted(learned, rank=3)
    changes = Changes(learned, tuned)
    assert list(changes) == [m.name for m in snapshot.table]  # peft's names are the base model's
    assert set(changes.ranks().values()) == {3}
    layer = tuned.model.layers[0].self_attn.q_proj
    expected = 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # alpha / r = 2
    torch.testing.assert_close(changes["model.layers.0.self_attn.q_proj.weight"], expected.detach())
    found = change_overlap(snapshot, changes, ranks=changes.ranks(), shuffles=100, draws=10)
    assert len(found) == 21
    assert all(0 <= o.rows.random_percentile <= 100 for o in found)


def test_models_that_do_not_fit_are_refused(learned: nn.Module, snapshot: Snapshot) -> None:
    from .oracle import tiny_llama

    with pytest.raises(ValueError, match=r"the base model has no model\.layers\.2\."):
        Changes(tiny_llama(layers=2), learned)
    with pytest.raises(ValueError, match="base and tuned model are equal"):
        change_overlap(snapshot, Changes(learned, learned))
