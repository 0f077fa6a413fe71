"""What measures weights is stopped between two matrices, leaves nothing half written, and is done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import GracefulStop, SubspaceOverlap, WeightChange
from textkeep.callbacks.importance import subspace_overlap, weight_change
from textkeep.callbacks.stopping.stop_signals import STOP_SIGNALS, Wish


@pytest.mark.parametrize(
    ("callback", "module", "called", "matrices"),
    [
        (lambda: SubspaceOverlap(k=4), subspace_overlap, "interference", 14),
        (lambda: WeightChange(shuffles=5, draws=2), weight_change, "Changes.__getitem__", 14),
    ],
    ids=["subspace", "weights"],
)
def test_a_stop_comes_between_two_matrices(
    callback: Any,
    module: Any,
    called: str,
    matrices: int,
    tmp_path: Path,
    tiny_llm_dir: Path,
    tiny_whisper_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, owner, name = 0, module, called
    if "." in called:
        owner, name = getattr(module, called.split(".")[0]), called.split(".")[1]
    measure = getattr(owner, name)

    def asked_at_the_third(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            STOP_SIGNALS.wish = Wish.INTERRUPT
        return measure(*args)

    monkeypatch.setattr(owner, name, asked_at_the_third)
    model, run = make_model(tiny_llm_dir, tiny_whisper_dir), tmp_path / "run"
    trainer = make_trainer(run, [GracefulStop(), callback()], max_epochs=-1, max_steps=2, val_check_interval=2)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(model, make_data(tmp_path / "data"))
    assert 3 <= count <= 4 < matrices  # one more is begun at most
    assert not (run / "weight_change.json").exists()
