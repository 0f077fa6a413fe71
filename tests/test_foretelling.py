"""The benchmarks of scores and of the null compute what their tables say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks import null
from benchmarks.foretelling.gradients import block_by_block, on_the_way, per_example
from benchmarks.foretelling.measuring import KINDS, effect, gradients, read, write
from benchmarks.foretelling.pieces import pieces, removed
from benchmarks.foretelling.scores import GRADIENT, scored
from benchmarks.foretelling.table import column, table
from benchmarks.foretelling.texts import rows
from textkeep.importance import probe
from textkeep.importance.evaluate import answer_losses
from textkeep.importance.resume import ResumedLosses
from textkeep.importance.sites import find_sites

from .importance.oracle import make_batch, tiny_llama


def test_gradient_sums_are_those_of_a_probe_and_removals_those_of_a_loop(tmp_path: Path) -> None:
    model = tiny_llama(layers=4).eval()
    batches = [make_batch(4, seed=s, padded=True) for s in (1, 2)]
    sites = [site for site in find_sites(model).sites if site.layer is not None and site.kind in KINDS]
    found = per_example(model, sites, rows(batches, 8))
    snapshot = probe(model, batches, ("taylor", "fisher", "signed_taylor"))
    order = [[m.name for m in snapshot.table].index(site.name) for site in sites]
    for ours, theirs in (("taylor", "taylor"), ("fisher", "fisher"), ("s", "signed_taylor")):
        np.testing.assert_allclose(found[ours], snapshot.examples[theirs][:, order], rtol=1e-3, atol=1e-6)
    outputs = [site.name for site in sites if site.kind == "o"]
    heads = np.array([snapshot.head_scores("taylor")[name] for name in outputs])
    np.testing.assert_allclose(found["taylor.heads"].mean(0), heads, rtol=1e-3)

    losses, out = ResumedLosses(model, batches), tmp_path / "rows.jsonl"
    order = pieces(sites, heads=2)
    assert {piece.level for piece in order} == {"layer", "matrix", "head"}
    index = {(site.layer, site.kind): site for site in sites}
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    for piece in order:
        row = effect(piece, sites, losses)
        with removed(piece, index):
            np.testing.assert_allclose(row["changes"], answer_losses(model, batches)[0] - losses.losses, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), kept, strict=True))

    setup = {
        "scored": 4,
        "examples": 8,
        "tokens": 9,
        "losses": losses.losses.tolist(),
        "model": "tiny",
        "text": "made up",
    }
    half, done = rows(batches, 4), set()
    write(out, done, "setup", lambda: setup)
    write(out, done, "data", lambda: gradients(lambda: per_example(model, sites, half), sites))
    write(out, done, "drawn", lambda: gradients(lambda: per_example(model, sites, half, sampled=True), sites))
    write(out, done, "path", lambda: gradients(lambda: on_the_way(model, sites, half, 2), sites))
    write(out, done, "blocks", lambda: gradients(lambda: block_by_block(model, sites, half[:2], 0.5), sites))
    for piece in order:
        write(out, done, piece.name, lambda piece=piece: effect(piece, sites, losses))
    write(out, done, order[0].name, lambda: pytest.fail("is measured already"))
    by_name = {row["name"]: row for row in read(out)}
    first = by_name["00.qk"]
    assert len(scored(by_name, first)) == 2
    place = [site.kind for site in sites if site.layer == 0].index("q")
    signed = found["s"][:4, place]
    assert scored(by_name, first)[0]["-E s, first order"] == pytest.approx(-signed.mean(), rel=1e-3)
    text = table([out])
    assert all(name in text for name in GRADIENT)
    chosen = [row for row in by_name.values() if row.get("level") == "head"]
    changes = np.array([row["changes"] for row in chosen])
    rho = spearmanr(changes[:, :4].mean(1), changes[:, 4:].mean(1)).statistic
    assert column(by_name, "head")["removal on all 4 scored examples (`ablation`)"].startswith(f"{rho:.2f}")


def test_simulated_examples_have_the_moments_that_were_fitted() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4000, 1))
    before = np.exp(np.linspace(0, 1, 5) + 0.5 * shared + 0.2 * rng.normal(size=(4000, 5)))
    after = before * np.exp(0.1 + 0.05 * rng.normal(size=(4000, 5)))
    profile = {name: np.array(values) for name, values in null.fit(before, after).items()}
    assert profile["change"] == pytest.approx(np.full(5, 0.1), abs=0.01)
    assert np.abs(profile["level_shared"]) == pytest.approx(np.full(5, 0.5), abs=0.04)
    made = null.draw(profile, 4000, 1.0, rng)
    assert np.log(made[1] / made[0]).mean(0) == pytest.approx(np.full(5, 0.1), abs=0.01)
    assert np.log(made[1] / made[0]).std(0) == pytest.approx(np.full(5, 0.05), abs=0.01)
    assert null.truth(profile, 1.0)["log_total_ratio"] == pytest.approx(0.1, abs=0.01)
    found = null.simulate(profile, 8, 1.0, trials=20)["log_total_ratio"]
    assert found["rejected"] > 0.9
    assert found["value"] == pytest.approx(0.1, abs=0.03)


def test_intervals_of_an_ablation_cover_where_most_groups_cost_nothing() -> None:
    """Four fifths of the heads; percentiles around the means would cover a third of the moves of the centre."""
    found = null.WORLDS["heads"].simulate(16, 1.0, trials=60)
    assert found["js"]["true"] > 0.1
    assert {name: row["covered"] >= 0.75 for name, row in found.items() if name != "wasserstein"} == {
        "js": True,
        "centre_move": True,
        "log_total_ratio": True,
    }
    assert found["wasserstein"]["covered"] >= 0.5  # docs/importance.md says how often
