"""Shift metrics against scipy, intervals and nulls against simulation, refusal of what cannot be compared."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from textkeep.importance import METRICS, Snapshot, compare, probe
from textkeep.importance.metrics import depth, shares
from textkeep.importance.shift import paired_test

from .oracle import make_batch, tiny_llama


@pytest.fixture(scope="module")
def profiles() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.gamma(2.0, size=(5, 12)), generator.gamma(2.0, size=(5, 12))


def test_metrics_against_scipy(profiles: tuple[np.ndarray, np.ndarray]) -> None:
    found = {name: metric(*profiles) for name, metric in METRICS.items()}
    for row, (a, b) in enumerate(zip(*profiles, strict=True)):
        p, q, d = shares(a), shares(b), depth(12)
        assert found["js"][row] == pytest.approx(distance.jensenshannon(p, q, base=2))
        assert found["wasserstein"][row] == pytest.approx(stats.wasserstein_distance(d, d, p, q))
        assert found["spearman"][row] == pytest.approx(stats.spearmanr(a, b).statistic)
        assert found["centre_move"][row] == pytest.approx((q * d).sum() - (p * d).sum())
        assert found["peak_move"][row] == int(b.argmax()) - int(a.argmax())
        assert found["log_total_ratio"][row] == pytest.approx(np.log(b.sum() / a.sum()))


def test_shares_and_no_shares_at_all_are_as_far_apart_as_can_be() -> None:
    """Where every effect of an ablation is negative nothing counts: no shift would be said of a total change."""
    some, none = np.array([[1.0, 2.0, 0.0]]), np.zeros((1, 3))
    assert [float(METRICS["js"](*pair)[0]) for pair in ((some, none), (none, some), (none, none))] == [1.0, 1.0, 0.0]


def test_extremes() -> None:
    first, last = np.eye(4)[0], np.eye(4)[3]
    assert METRICS["js"](first, last) == pytest.approx(1.0)
    assert METRICS["wasserstein"](first, last) == pytest.approx(1.0)
    assert METRICS["centre_move"](first, last) == pytest.approx(1.0)
    assert METRICS["peak_move"](last, first) == -3
    for name in ("js", "wasserstein", "centre_move", "peak_move", "log_total_ratio"):
        assert METRICS[name](first, first) == pytest.approx(0.0)


@pytest.fixture(scope="module")
def pair() -> tuple[Snapshot, Snapshot]:
    model = tiny_llama(layers=3)
    batches = [make_batch(4, seed=s) for s in range(4)]
    before = probe(model, batches, top_fraction=0.1)
    for parameter in model.model.layers[2].mlp.parameters():
        parameter.data *= 3.0
    return before, probe(model, batches, step=5, top_fraction=0.1)


def test_a_real_shift_is_beyond_half_against_half(pair: tuple[Snapshot, Snapshot]) -> None:
    js = compare(*pair, "taylor", replicates=400).metrics["js"]
    assert js.value > js.null_p95


@pytest.mark.parametrize("estimator", ["taylor", "fisher", "signed_taylor"])
def test_a_shift_lies_in_its_interval(pair: tuple[Snapshot, Snapshot], estimator: str) -> None:
    shift = compare(*pair, estimator, replicates=400)
    js = shift.metrics["js"]
    assert js.low <= js.corrected <= js.high
    assert max(js.expected, js.corrected) < js.value
    assert js.null_p95 > js.null > 0
    own = compare(pair[0], pair[0], estimator, replicates=50)
    assert own.metrics["js"].value == own.metrics["js"].high == 0.0
    assert own.metrics["js"].null_p95 > 0
    assert own.metrics["spearman"].value == pytest.approx(1.0)
    assert shift.loss_after != shift.loss_before
    ratio = shift.layers["layer_02"]
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(
        pair[1].shares(estimator)["layer_02"]
        * shift.total_after
        / (pair[0].shares(estimator)["layer_02"] * shift.total_before)
    )


def wider(count: int) -> list[float]:
    """Percentiles of the expanded interval, by the variance of a mean and Student's t, of ``count`` examples."""
    outer = 100 * stats.norm.sf(stats.t.isf(0.05, count - 1) * np.sqrt(count / (count - 1)))
    return [outer, 100 - outer]


def test_the_interval_is_the_paired_bootstrap(pair: tuple[Snapshot, Snapshot]) -> None:
    """Against an explicit loop that draws examples with replacement, the same ones in both snapshots."""
    shift = compare(*pair, "taylor", replicates=4000).metrics["log_total_ratio"]
    first, second = (s.per_example("taylor").sum(1) for s in pair)
    generator = np.random.default_rng(1)
    draws = [generator.integers(len(first), size=len(first)) for _ in range(4000)]
    looped = [np.log(second[d].mean() / first[d].mean()) for d in draws]
    np.testing.assert_allclose([shift.low, shift.high], np.percentile(looped, wider(len(first))), rtol=0.05)


def test_examples_are_paired_by_id_not_by_position(pair: tuple[Snapshot, Snapshot]) -> None:
    before, after = pair
    order = np.random.default_rng(0).permutation(len(after.ids))
    meta = copy.deepcopy(after.meta)
    meta["probe"]["ids"] = [after.ids[i] for i in order]
    shuffled = replace(after, examples={k: v[order] for k, v in after.examples.items()}, meta=meta)
    first, second = compare(before, after, "taylor"), compare(before, shuffled, "taylor")
    assert first.metrics["js"].high == pytest.approx(second.metrics["js"].high)


def test_top_overlap_against_the_masks(pair: tuple[Snapshot, Snapshot]) -> None:
    shift = compare(*pair, "taylor", replicates=0)
    masks = [s.top("taylor", 0.1) for s in pair]
    both = sum(int((masks[0][n] & masks[1][n]).sum()) for n in masks[0])
    assert shift.top_overlap == pytest.approx(both / sum(int(m.sum()) for m in masks[0].values()))
    assert shift.top_chance == 0.1
    with pytest.raises(ValueError, match=r"no top-0\.2 mask"):
        pair[0].top("taylor", 0.2)


def test_estimators_without_examples_have_values_only() -> None:
    model = tiny_llama()
    snapshot = probe(model, [make_batch()], ("taylor_batch", "magnitude"))
    shift = compare(snapshot, snapshot, "taylor_batch")
    assert (shift.metrics["js"].low, shift.metrics["js"].p, shift.p_floor) == (None, None, None)
    assert shift.untested == "no paired test of taylor_batch: no per-example scores at step 0"
    with pytest.raises(ValueError, match="no paired test of taylor_batch"):
        paired_test(snapshot, snapshot, "taylor_batch")


def test_a_snapshot_whose_vectors_were_left_out_has_values_and_says_that_it_has_no_test(
    pair: tuple[Snapshot, Snapshot],
) -> None:
    before, after = pair
    totals = {name: after.scores(name) for name in after.examples}
    bare = replace(after, examples={}, totals=totals)
    shift, whole = compare(before, bare, "taylor"), compare(before, after, "taylor")
    assert shift.metrics["js"].value == pytest.approx(whole.metrics["js"].value)
    assert shift.metrics["js"].p is None
    assert shift.untested.endswith("no per-example scores at step 5")
    assert not whole.untested
    assert whole.metrics["js"].p == whole.p_floor == paired_test(before, after, "taylor").floor


def test_each_metric_has_an_interval_and_a_null_that_sampling_stays_within(pair: tuple[Snapshot, Snapshot]) -> None:
    """Against loops: the same examples drawn in both snapshots, and halves of the reference's examples."""
    before, after = pair
    _, member = before.membership("taylor")
    first, second = (s.per_example("taylor") @ member for s in pair)
    generator, count = np.random.default_rng(3), len(first)
    draws = [generator.integers(count, size=count) for _ in range(2000)]
    splits = [np.split(generator.permutation(count), 2) for _ in range(2000)]
    metrics = compare(before, after, "taylor", replicates=4000).metrics
    assert set(metrics) == set(METRICS)
    for name, metric in METRICS.items():
        looped = [metric(first[d].mean(0), second[d].mean(0)) for d in draws]
        found, scale = metrics[name], max(np.std(looped), 1e-3)
        ends = np.percentile(looped, wider(count))
        observed = metric(first.mean(0), second.mean(0))
        if name in ("js", "wasserstein"):  # the square is moved back by the bias of resampling and by that of sampling
            ends = np.sqrt(np.maximum(ends**2 - 2 * (np.mean(np.square(looped)) - observed**2), 0))
        if name == "spearman":
            ends = np.minimum(ends - 2 * (np.mean(looped) - observed), 1)
        np.testing.assert_allclose([found.low, found.high], ends, atol=0.3 * scale)
        halves = np.array([metric(first[a].mean(0), first[b].mean(0)) for a, b in splits])
        bound = np.percentile(halves, 5) if name == "spearman" else np.percentile(np.abs(halves), 95)
        assert found.null_p95 == pytest.approx(bound, abs=0.3 * max(np.std(halves), 1e-3)), name


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("probe", "fingerprint"),
            "x",
            "differ in probe (other examples, answers or tokens); no paired test is possible",
        ),
        (("masking",), "every token", "differ in masking"),
        (("normalisation",), "sum", "differ in normalisation"),
        (("options", "autocast"), "torch.bfloat16", "option autocast: None and 'torch.bfloat16'"),
        (("options", "include"), ["norms"], "option include: [] and ['norms']"),
    ],
)
def test_other_measurements_are_refused_in_one_line(
    pair: tuple[Snapshot, Snapshot], place: tuple[str, ...], value: object, message: str
) -> None:
    meta = copy.deepcopy(pair[1].meta)
    inner = meta
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        compare(pair[0], replace(pair[1], meta=meta), "taylor")
    assert "\n" not in str(caught.value)


def test_other_draws_of_the_sampled_fisher_are_refused() -> None:
    batches = [make_batch()]
    first, second = (probe(tiny_llama(), batches, "fisher_sampled", draws=n) for n in (1, 2))
    with pytest.raises(ValueError, match="option draws: 1 and 2"):
        compare(first, second, "fisher_sampled")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "probe"),
        ({"include": ("norms",)}, "matrices"),
        ({"estimators": ("fisher",)}, "no 'taylor'"),
    ],
)
def test_what_differs_is_refused(pair: tuple[Snapshot, Snapshot], change: dict, message: str) -> None:
    seed = change.pop("seed", None)
    batches = [make_batch(4, seed=s) for s in range(4)] if seed is None else [make_batch(4, seed=seed)]
    other = probe(tiny_llama(layers=3), batches, **change)
    with pytest.raises(ValueError, match=message):
        compare(pair[0], other, "taylor")


def test_a_snapshot_survives_the_disk(pair: tuple[Snapshot, Snapshot], tmp_path: Path) -> None:
    before, after = pair
    for snapshot, name in zip(pair, ("step=000000", "step=000005"), strict=True):
        snapshot.save(tmp_path / name)
    snapshot.save(tmp_path / name)  # replaces
    loaded = [Snapshot.load(tmp_path / name) for name in ("step=000000", "step=000005")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step=000000", "step=000005"]
    assert compare(*loaded, "taylor").as_dict() == compare(before, after, "taylor").as_dict()
    for estimator in before.examples:
        assert np.array_equal(loaded[0].examples[estimator], before.examples[estimator])
        for a, b in zip(loaded[0].rows[estimator], before.rows[estimator], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert loaded[1].table == after.table
    assert loaded[1].step == 5
    head = loaded[0].head_scores("signed_taylor")["model.layers.0.self_attn.q_proj.weight"]
    assert head.shape == (4,)
    assert loaded[0].head_scores("taylor")["model.layers.0.self_attn.o_proj.weight"].shape == (4,)


def test_damaged_and_newer_folders_are_refused(pair: tuple[Snapshot, Snapshot], tmp_path: Path) -> None:
    folder = pair[0].save(tmp_path / "s")
    meta = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(meta.replace('"format": 2', '"format": 99'))
    with pytest.raises(ValueError, match="format 99"):
        Snapshot.load(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"not a snapshot's meta\.json"):
        Snapshot.load(folder)
    (folder / "meta.json").write_text(meta)
    (folder / "stats.safetensors").write_bytes(b"123")
    with pytest.raises(ValueError, match="cannot be read"):
        Snapshot.load(folder)
    with pytest.raises(FileNotFoundError, match="no snapshot"):
        Snapshot.load(tmp_path / "nothing")
