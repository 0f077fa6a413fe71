"""Layer-wise learning rates: equation 3 by hand, its controls, and what reaches optimizer and schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textkeep.importance import Matrix, Snapshot
from textkeep.lightning_modules import (
    ConcatMLP,
    ExponentialDepthRates,
    FullFineTuning,
    ImportanceRates,
    LayerRates,
    LinearDepthRates,
    ListedRates,
    PermutedRates,
    ReversedRates,
    SpeechLLM,
    UniformRates,
    WhisperEncoder,
)
from textkeep.lightning_modules.optimization import build_optimizer, scale_layers
from textkeep.lightning_modules.schedule import Schedule
from textkeep.lightning_modules.tuning.tuning import llm_groups

# Two matrices a layer; layer totals 3, 1, 5, 2. By hand with lambda 0.4, least 1, most 5, so 0.1 a unit of importance:
# 1 - 0.1 * (3 - 1) = 0.8, 1.0, 1 - 0.1 * (5 - 1) = 0.6, 1 - 0.1 * (2 - 1) = 0.9.
TOTALS = [(1.0, 2.0), (0.25, 0.75), (4.0, 1.0), (1.5, 0.5)]
BY_HAND = [0.8, 1.0, 0.6, 0.9]


def make_snapshot(totals: list[tuple[float, float]] = TOTALS, estimator: str = "taylor") -> Snapshot:
    table = [
        Matrix(f"model.layers.{layer}.mlp.{kind}_proj.weight", (2, 2), layer, kind)
        for layer in range(len(totals))
        for kind in ("up", "down")
    ]
    flat = np.array(totals).reshape(1, -1)
    examples = np.concatenate([flat * 0.5, flat * 1.5])  # their mean is what counts
    meta = {"step": 0, "layers": len(totals), "options": {}, "heads": [], "probe": {"ids": ["a", "b"]}}
    return Snapshot(table, {estimator: examples}, {}, {}, {}, [], np.ones(2), np.ones(2, dtype=np.int64), meta)


def saved(folder: Path, **options: Any) -> str:
    return str(make_snapshot(**options).save(folder / "step=000000"))


def test_equation_3_by_hand(tmp_path: Path) -> None:
    assert ImportanceRates(saved(tmp_path)).multipliers(4) == pytest.approx(BY_HAND)
    full = ImportanceRates(saved(tmp_path), strength=1.0).multipliers(4)
    assert full == pytest.approx([0.5, 1.0, 0.0, 0.75])
    assert ImportanceRates(saved(tmp_path), strength=0.0).multipliers(4) == [1.0] * 4


def test_equally_important_layers_keep_the_rate(tmp_path: Path) -> None:
    assert ImportanceRates(saved(tmp_path, totals=[(1.0, 1.0)] * 3)).multipliers(3) == [1.0] * 3


def test_controls_by_hand(tmp_path: Path) -> None:
    rates = ImportanceRates(saved(tmp_path))
    assert ReversedRates(rates).multipliers(4) == pytest.approx([0.8, 0.6, 1.0, 0.7])
    assert UniformRates(rates).multipliers(4) == pytest.approx([0.825] * 4)
    permuted = PermutedRates(rates, seed=1).multipliers(4)
    assert sorted(permuted) == pytest.approx(sorted(BY_HAND))
    assert permuted != pytest.approx(BY_HAND)
    assert permuted == PermutedRates(rates, seed=1).multipliers(4)
    assert any(PermutedRates(rates, seed=s).multipliers(4) != permuted for s in range(2, 5))


def test_depth_profiles_by_hand() -> None:
    assert ExponentialDepthRates(0.5).multipliers(4) == [0.125, 0.25, 0.5, 1.0]
    assert LinearDepthRates(0.4, 1.0).multipliers(4) == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert LinearDepthRates(0.4, 1.0).multipliers(1) == [0.4]
    assert ListedRates([0.1, 0.0]).multipliers(2) == [0.1, 0.0]


@pytest.mark.parametrize("control", [lambda rates: rates, ReversedRates, UniformRates, PermutedRates])
def test_a_measurement_is_asked_for_taken_and_kept(control: Any) -> None:
    rates: LayerRates = control(ImportanceRates(probe="heldout_text", estimator="fisher", every_n_steps=50))
    assert rates.request is not None
    assert (rates.request.probe, rates.request.estimator, rates.request.every_n_steps) == ("heldout_text", "fisher", 50)
    assert rates.waiting
    assert rates.multipliers(4) == [1.0] * 4
    rates.use(make_snapshot(estimator="fisher"))
    assert not rates.waiting
    assert rates.multipliers(4) != [1.0] * 4
    resumed: LayerRates = control(ImportanceRates(probe="heldout_text", estimator="fisher"))
    resumed.load_state_dict(rates.state_dict())
    assert not resumed.waiting
    assert resumed.multipliers(4) == rates.multipliers(4)


def test_a_snapshot_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of 4 decoder layers, but the LLM has 2"):
        ImportanceRates(saved(tmp_path)).multipliers(2)
    with pytest.raises(ValueError, match="has no 'fisher'; it has taylor"):
        ImportanceRates(saved(tmp_path), estimator="fisher").multipliers(4)
    with pytest.raises(FileNotFoundError, match="no snapshot in"):
        ImportanceRates(str(tmp_path / "nothing")).multipliers(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceRates(), "either a snapshot .* or a probe .* got neither"),
        (lambda: ImportanceRates("folder", "speech"), "got both"),
        (lambda: ImportanceRates(probe="speech", estimator="tailor"), "'tailor' is unknown; allowed: taylor, fisher"),
        (lambda: ImportanceRates(probe="speech", strength=1.5), r"must lie in \[0, 1\]"),
        (lambda: ImportanceRates("folder", every_n_steps=5), "needs a probe"),
        (lambda: ExponentialDepthRates(0.0), r"must lie in \(0, 1\]"),
        (lambda: ListedRates([0.0, 0.0]), "not all 0"),
        (lambda: LinearDepthRates(-0.1, 1.0), "must be 0 or more"),
    ],
)
def test_bad_settings_are_refused_at_construction(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_listed_rates_must_fit_the_model(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    tuning = FullFineTuning(rates=ListedRates([0.5, 0.6, 0.7]))
    model = SpeechLLM(str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16), tuning)
    model.configure_model()
    with pytest.raises(ValueError, match="3 values given, but the LLM has 2 decoder layers"):
        tuning.parameter_groups(model.llm, model.encoder, model.adaptor)


def test_new_factors_reach_the_present_step_and_the_rest_of_the_schedule(model: SpeechLLM) -> None:
    """As if the factors had been there from the beginning, also after a factor of 0."""
    torch.manual_seed(0)

    def make(multipliers: list[float]) -> tuple[Any, Any]:
        groups = llm_groups(model.llm, multipliers)
        made = build_optimizer(lambda g: torch.optim.AdamW(g, lr=0.1), groups, [], Schedule("cosine", 0.25), 8)
        return made["optimizer"], made["lr_scheduler"]["scheduler"]  # type: ignore[index, typeddict-item]

    changing, expected = make([1.0, 1.0]), make([0.6, 0.7])
    for step in range(8):
        if step == 3:
            scale_layers(*changing, [0.0, 0.3])
            assert changing[0].param_groups[0]["lr"] == 0.0
            scale_layers(*changing, [0.6, 0.7])
        if step >= 3:
            assert [g["lr"] for g in changing[0].param_groups] == [g["lr"] for g in expected[0].param_groups]
            assert changing[1].get_last_lr() == expected[1].get_last_lr()
        for optimizer, schedule in (changing, expected):
            optimizer.step()
            schedule.step()
    rates = {g["name"]: g["initial_lr"] for g in expected[0].param_groups}
    assert rates == pytest.approx({"llm.00": 0.06, "llm.01": 0.07, "llm.other": 0.1})
