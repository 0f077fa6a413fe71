"""What ``fit`` and ``test`` print, as a whole, with the numbers masked: a story in which nothing is told twice."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from tests.support.processes import Textkeep
from textkeep.callbacks import Measured, PlainTextLoss, RunProgressBar
from textkeep.callbacks.evaluations import evaluation_suite
from textkeep.callbacks.progress.run_summary import summary_line
from textkeep.cli.output import print_table
from textkeep.evaluation import Prediction
from textkeep.foundation.quiet import quieten

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
MEASURED = (
    "retention at step #, # items: text # [#, #]%, speech # [#, #]%, text loss # [#, #] nats/token, "
    "speech loss # [#, #] nats/token, hearing gap # [#, #] nats/token\n"
)
ENDED = (
    "verdict: t: It is not shown to listen, and no change in its text accuracy is established.\nrun directory: RUN\n"
)
FIT = "step #/#  train/loss #  # s/step, #:# left\n" * 3 + ENDED
FIT_REMARKS = (
    "loading PyTorch, Lightning and transformers ...\n# K of # K weights train: adaptor # K, llm # K\n" + MEASURED * 4
)
TEST_REMARKS = (
    "loading PyTorch, Lightning and transformers ...\n"
    "Loaded model weights from the checkpoint at RUN/checkpoints/step=#.ckpt\n" + MEASURED
)


def masked(text: str, run: Path) -> str:
    """Puts ``RUN`` for the run directory and ``#`` for each number."""
    return NUMBER.sub("#", text.replace(str(run), "RUN"))


@pytest.mark.slow
def test_the_story_of_a_fit_and_its_test(tiny_config: Path, textkeep: Textkeep) -> None:
    settings = yaml.safe_load(tiny_config.read_text())
    progress = {"class_path": "LogProgress", "init_args": {"every_seconds": 0}}
    own = {"callbacks": [progress, {"class_path": "Retention"}], "val_check_interval": 1, "logger": False}
    settings["trainer"] |= own
    tiny_config.write_text(yaml.safe_dump(settings))
    run = tiny_config.parent / "runs/t"
    fitted = textkeep("fit", "--config", tiny_config)
    assert fitted.returncode == 0, fitted.stderr
    assert masked(fitted.stdout, run) == FIT
    assert masked(fitted.stderr, run) == FIT_REMARKS
    tested = textkeep("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    assert tested.returncode == 0, tested.stderr
    assert masked(tested.stdout, run) == ENDED
    assert masked(tested.stderr, run) == TEST_REMARKS


@pytest.mark.slow
def test_without_a_callback_that_tells_them_the_losses_are_told(tiny_config: Path, textkeep: Textkeep) -> None:
    settings = yaml.safe_load(tiny_config.read_text())
    settings["trainer"] |= {"max_steps": 1, "val_check_interval": 1, "logger": False}
    tiny_config.write_text(yaml.safe_dump(settings))
    run = tiny_config.parent / "runs/t"
    fitted = textkeep("fit", "--config", tiny_config)
    assert masked(fitted.stdout, run) == (
        "step #/#  train/loss #  # s/step, #:# left\n"
        "step # validated  val/speech_ce #  val/text_ce #\n"
        "run directory: RUN\n"
    )
    tested = textkeep("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    assert masked(tested.stdout, run) == "tested  test/speech_ce #  test/text_ce #\nrun directory: RUN\n"


def test_a_bar_shows_the_step_and_nothing_that_was_told() -> None:
    trainer: Any = SimpleNamespace(
        loggers=[],
        progress_bar_metrics={"train/loss": 1.5, "val/speech_ce": 2.0, "val/text_ce": 2.5},
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        estimated_stepping_batches=12,
        global_step=3,
    )
    assert RunProgressBar().get_metrics(trainer, pl_module=None) == {"step": "3/12", "train/loss": 1.5}  # type: ignore[arg-type]


def test_a_line_goes_where_a_bar_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a bar is shown, rich takes the place of ``sys.stderr``: lines stand above the bar, not at its end."""
    before, during, logger = io.StringIO(), io.StringIO(), logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(sys, "stderr", before)
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])  # Lightning's own, where pytest has none
    quieten()
    rank_zero_info("first")
    monkeypatch.setattr(sys, "stderr", during)
    rank_zero_info("second")
    assert (before.getvalue(), during.getvalue()) == ("first\n", "second\n")


def test_a_set_is_told_by_its_main_figures() -> None:
    records = [Prediction(f"p{i}", "text", loss=2.0 + i, tokens=9, category=("law", "verse")[i % 2]) for i in range(6)]
    measured, summary = Measured(records), PlainTextLoss().summarize(records, records)
    assert {"loss_law", "loss_change_verse"} <= set(summary.values)
    line = evaluation_suite._headline("plain", 40, measured, summary)
    assert re.findall(r"(?:, |: )(\w+) \S+ \[", line) == ["loss", "loss_change", "perplexity"]


def test_what_trains_is_told_by_part() -> None:
    module = nn.Module()
    module.encoder, module.llm, module.objectives = nn.Linear(10, 100), nn.Linear(100, 1000, bias=False), nn.Module()
    module.encoder.requires_grad_(False)
    assert summary_line(module) == "100 K of 101 K weights train: llm 100 K"
    module.encoder.bias.requires_grad_(True)
    assert summary_line(module).endswith("train: encoder 100, llm 100 K")
    tied = nn.ModuleDict({"one": nn.Linear(10, 100, bias=False), "two": nn.Linear(10, 100, bias=False)})
    tied["two"].weight = tied["one"].weight
    assert summary_line(tied) == "1.0 K of 1.0 K weights train: one 1.0 K, two 1.0 K"
    assert isinstance(tied["one"].weight, torch.nn.Parameter)


SHIFT = ["log_total_ratio", "-0.05212", "<= 0.0078", "0.0123", "0.0506", "[-0.0412, 0.0713]", "0.0317 (95 %: 0.0482)"]


@pytest.mark.parametrize(("room", "whole"), [(130, SHIFT), (100, SHIFT[:6]), (60, [])])
def test_names_and_intervals_of_a_table_stay_whole_where_there_is_room(
    room: int, whole: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    heads = ["shift", "value", "paired p", "noise alone", "without it", "90 % interval", "half against half"]
    print_table("a shift", heads, [SHIFT])
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= room
    assert "…" not in told
    assert [text for text in whole if text not in told] == []
