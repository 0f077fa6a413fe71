"""A score of one's own: a file from outside, of every family, goes through everything that ours go through."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from textkeep.callbacks import ImportanceTracker
from textkeep.importance import ESTIMATORS, Snapshot, Spec, compare, probe, register
from textkeep.importance.estimators import checked, registry
from textkeep.importance.faithfulness import verify
from textkeep.importance.removal import removal_test

from .oracle import Truth, error, input_norms, make_batch, per_example_gradients, recorded_probe, relative, tiny_llama

FILE = '''
"""Scores of one's own."""

from textkeep.importance import Spec, register


class Cubic:
    """|theta| |g_i|^3: nothing in place."""

    def totals(self, gradient, magnitude):
        return (gradient.abs() ** 3 * magnitude).flatten(1).sum(1)

    def add(self, gradient, sums):
        sums += (gradient.abs() ** 3).sum(0)

    def finish(self, sums, magnitude):
        return sums * magnitude


class Pull:
    """theta^2 |sum_i g_i|."""

    def finish(self, sums, magnitude):
        return sums.abs() * magnitude**2


class Energy:
    """theta^2 times the norm of the input."""

    def entries(self, weight, norms):
        return weight.square() * norms


class Square:
    """theta^2."""

    def entries(self, weight, norms):
        assert norms is None
        return weight.square()


register("cubic", Spec("E_i |theta| |g_i|^3", block=Cubic()))
register("cubic_sampled", Spec("E_i E_y |theta| |g_i(y)|^3", block=Cubic(), labels="sampled"))
register("pull", Spec("theta^2 |E_i g_i|", batch=Pull()))
register("energy", Spec("theta^2 (E_i |a_i|^2)^1/2", forward=Energy(), input_norms=True))
register("square", Spec("theta^2", forward=Square()))
'''
OWN = ("cubic", "cubic_sampled", "pull", "energy", "square")
BATCHES = [make_batch(4, seed=1, padded=True), make_batch(3, seed=2, padded=True, left=True)]
DRAWS = 2


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module ``own_scores`` that can be imported; what it registers is forgotten afterwards."""
    (tmp_path / "own_scores.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with mock.patch.dict(registry._registered), mock.patch.dict(sys.modules):
        yield tmp_path / "own_scores.py"


def expected_entries(model: torch.nn.Module, drawn: list[list[dict]]) -> Truth:
    """Every score of every weight, by loops over plain autograd."""
    gradients = per_example_gradients(model, BATCHES)
    draws = [per_example_gradients(model, labelled) for labelled in drawn]
    norms = input_norms(model, BATCHES)
    found: Truth = {}
    for name, parameter in model.named_parameters():
        if name in norms:
            size = parameter.detach().abs()
            g = torch.stack([example[name] for example in gradients])
            sampled = [torch.stack([example[name] for example in draw]) for draw in draws]
            found[name] = {
                "cubic": size * g.abs() ** 3,
                "cubic_sampled": sum(size * drawn.abs() ** 3 for drawn in sampled) / max(len(sampled), 1),
                "pull": size**2 * g.mean(0).abs(),
                "energy": size**2 * norms[name],
                "square": size**2,
            }
    return found


def test_scores_of_every_family_equal_their_loops_beside_ours_and_alone(own: Path) -> None:
    estimators = checked(["taylor", "fisher", "own_scores:cubic", "signed_taylor", "wanda", *OWN])
    assert estimators == ("taylor", "fisher", "cubic", "signed_taylor", "wanda", *OWN[1:])
    model = tiny_llama()
    ours = probe(model, BATCHES, ("taylor", "fisher", "signed_taylor", "wanda"), draws=DRAWS)
    together, drawn = recorded_probe(model, BATCHES, DRAWS, estimators=estimators, keep_maps=OWN)
    expected = expected_entries(model, drawn)
    for name in OWN:
        assert error(together, expected, name) <= 1e-10, name
        assert error(probe(model, BATCHES, name, vectors=False, draws=DRAWS), expected, name) <= 1e-10, name
    for name in ours.estimators:  # a score from outside changes none of ours
        assert np.array_equal(together.scores(name), ours.scores(name))
    assert set(together.examples) == {"taylor", "fisher", "signed_taylor", "cubic", "cubic_sampled"}
    assert set(together.totals) == {"wanda", "pull", "energy", "square"}


def test_the_score_in_the_docs_is_the_one_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(__file__).parents[2].joinpath("docs/importance.md").read_text(encoding="utf-8")
    (tmp_path / "my_scores.py").write_text(re.findall(r"```python\n(# my_scores.py\n.*?)```", text, re.DOTALL)[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    with mock.patch.dict(registry._registered), mock.patch.dict(sys.modules):
        snapshot = probe(tiny_llama(), BATCHES, ("taylor", "my_scores:cubic"), keep_maps=["my_scores:cubic"])
        assert error(snapshot, expected_entries(tiny_llama(), []), "cubic") <= 1e-10


def test_masks_of_every_family_are_the_largest_entries(own: Path) -> None:
    checked("own_scores:cubic")
    model = tiny_llama()
    snapshot, drawn = recorded_probe(model, BATCHES, DRAWS, estimators=OWN, top_fraction=0.1)
    expected = expected_entries(model, drawn)
    for name in OWN:
        for matrix, mask in snapshot.top(name, 0.1).items():
            entries = expected[matrix][name].reshape(-1, *mask.shape).mean(0)
            assert int(mask.sum()) == max(1, round(0.1 * mask.numel()))
            assert float(entries[mask].min()) >= float(entries[~mask].max()) * (1 - 1e-6)


def test_a_snapshot_is_read_and_compared_where_nobody_registered_its_scores(own: Path, tmp_path: Path) -> None:
    checked("own_scores:cubic")
    model, folders = tiny_llama(), []
    for step in (0, 7):
        folders.append(probe(model, BATCHES, OWN, step=step, top_fraction=0.1, draws=DRAWS).save(tmp_path / f"{step}"))
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    for name in OWN:
        del registry._registered[name]
    before, after = map(Snapshot.load, folders)
    assert set(before.estimators) == set(OWN)
    for name in OWN:
        shift = compare(before, after, name, replicates=50)
        shares = [np.array([*snapshot.shares(name).values()]) for snapshot in (before, after)]
        assert shift.metrics["wasserstein"].value == pytest.approx(abs(shares[0][0] - shares[1][0]))
        assert shift.metrics["log_total_ratio"].value == pytest.approx(np.log(after.total(name) / before.total(name)))
        assert shift.top_overlap is not None
        assert (shift.metrics["js"].p is None) == (name in before.totals) == bool(shift.untested)
    after.meta["options"]["draws"] = 5
    compare(before, after, "cubic", replicates=0)
    with pytest.raises(ValueError, match="differ in option draws: 2 and 5"):
        compare(before, after, "cubic_sampled", replicates=0)


def test_removal_verify_and_the_tracker_take_it_by_its_module(own: Path) -> None:
    result = removal_test(tiny_llama(), BATCHES, {"same": BATCHES}, estimator="own_scores:cubic", fraction=0.1)
    assert result.estimator == "cubic"
    assert len(result.rows) == 4
    tested = verify(tiny_llama(), BATCHES, BATCHES, estimators=["own_scores:cubic", "pull"], groups=4, shrinks=(1.0,))
    assert [found.score for found in tested.results] == ["cubic", "pull", "magnitude", "random"]
    assert set(tested.reliability) == {"cubic"}
    assert ImportanceTracker(estimators=["taylor", "own_scores:cubic"]).estimators == ("taylor", "cubic")


def test_a_module_may_register_again_but_nobody_else(own: Path) -> None:
    checked("own_scores:cubic")
    known = dict(ESTIMATORS)
    for _ in range(2):
        importlib.reload(sys.modules["own_scores"])  # classes of the same name, but not the same
    assert list(ESTIMATORS) == list(known)
    assert ESTIMATORS["cubic"] is not known["cubic"]
    register("taylor", ESTIMATORS["taylor"])
    with pytest.raises(ValueError, match="another estimator taylor already"):
        register("taylor", ESTIMATORS["cubic"])
    assert ESTIMATORS["taylor"].formula == "E_i |theta g_i|"
    with pytest.raises(TypeError):
        ESTIMATORS["cubic"] = ESTIMATORS["taylor"]  # type: ignore[index]


@pytest.mark.parametrize(
    "name", ["", "a/b", "../up", "a b", "a,b", "a:b", "Cubic", "3rd", "a.b", "naïve", "x" * 65, "a\n"]
)
def test_a_name_that_cannot_be_part_of_a_file_or_key_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a file name or metric key"):
        register(name, ESTIMATORS["taylor"])
    assert name not in ESTIMATORS


class Score:
    def finish(self, sums: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
        return sums

    def entries(self, weight: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
        return weight


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "give one of block, batch, forward, signed and ablated, not 0"),
        ({"batch": Score(), "signed": True}, "give one of .*, not 2"),
        ({"batch": Score(), "labels": "sampled"}, "are for block scores"),
        ({"batch": Score(), "squared_norm": True}, "are for block scores"),
        ({"batch": Score(), "input_norms": True}, "is for forward scores"),
        ({"batch": Score(), "labels": "none"}, "labels='none'; allowed: data, sampled"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(facts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spec("x", **facts)


def test_what_cannot_be_measured_is_refused(own: Path) -> None:
    model = tiny_llama()
    with pytest.raises(ValueError, match="'no_such_scores' cannot be imported"):
        probe(model, BATCHES, "no_such_scores:cubic")
    with pytest.raises(
        ValueError, match=r"estimator own_scores:quartic \(own_scores was imported .*\); allowed: taylor, .*cubic"
    ):
        probe(model, BATCHES, "own_scores:quartic")
    with pytest.raises(ValueError, match="energy scores the inputs of Linear layers; leave include empty"):
        probe(model, BATCHES, "energy", include=("norms",))
    register("signed_too", Spec("E_i |<theta, g_i>| again", signed=True))
    with pytest.raises(ValueError, match="signed_taylor and signed_too both score signs"):
        probe(model, BATCHES, ("signed_taylor", "signed_too"))
    register("negative", Spec("theta", forward=Score()))
    with pytest.raises(ValueError, match=r"negative of model\.layers\..* is -.*must not be negative"):
        probe(model, BATCHES, "negative")
    register("bare", Spec("sum_i g_i", batch=Score()))
    with pytest.raises(ValueError, match=r"bare of .* must not be negative"):
        probe(model, BATCHES, "bare")


def test_a_name_that_the_scratch_memory_uses_too_does_no_harm(own: Path) -> None:
    checked("own_scores:cubic")
    register("gradient", ESTIMATORS["cubic"])
    found = probe(tiny_llama(), BATCHES, ("cubic", "gradient"))
    for side in (found.rows, found.columns):
        assert all(np.array_equal(one, two) for one, two in zip(side["cubic"], side["gradient"], strict=True))


def test_a_signed_score_of_another_name_equals_ours(own: Path) -> None:
    register("signed_too", Spec("E_i |<theta, g_i>| again", signed=True))
    model = tiny_llama()
    ours, other = probe(model, BATCHES, "signed_taylor"), probe(model, BATCHES, "signed_too")
    assert np.array_equal(ours.examples["signed_taylor"], other.examples["signed_too"])
    assert ours.shares("signed_taylor", "kind") == other.shares("signed_too", "kind")
    for one, two in zip(ours.heads, other.heads, strict=True):
        assert np.array_equal(one, two)
    assert relative(ours.rows["signed_taylor"][0], other.rows["signed_too"][0]) == 0
