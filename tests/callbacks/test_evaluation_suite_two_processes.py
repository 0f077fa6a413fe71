"""The evaluation suite on two processes scores every item once, and as one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from textkeep.evaluation import read_predictions

from .test_evaluation_suite import choice_rows, write_lines_in

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from textkeep.callbacks import ChoicesByLetter, ChoicesByLikelihood, EvaluationSuite, PlainTextLoss
from textkeep.callbacks import SpeechRecognition
from tests.support.speech_run import make_data, make_model, make_trainer
llm, whisper, folder, processes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
suite = EvaluationSuite(
    {
        "choices": ChoicesByLikelihood("choices"),
        "letters": ChoicesByLetter("choices"),
        "prose": PlainTextLoss(str(folder / "sets/prose.jsonl")),
        "recorded": SpeechRecognition("choices"),
    },
    max_new_tokens=3,
)
sets = {"choices": str(folder / "sets/choices.jsonl")}
trainer = make_trainer(folder / f"run{processes}", [suite], devices=processes, max_epochs=-1, max_steps=1,
                       limit_val_batches=0, strategy="ddp" if processes > 1 else "auto")
trainer.fit(make_model(llm, whisper), make_data(folder / "data", sets=sets))
"""


@pytest.mark.slow
def test_two_processes_score_what_one_scores(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    write_lines_in(tmp_path / "sets", "choices.jsonl", choice_rows(tmp_path / "sets"))
    write_lines_in(tmp_path / "sets", "prose.jsonl", [{"id": f"p{i}", "text": f"Line {i} is plain."} for i in range(7)])
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for processes in (1, 2):
        words = [sys.executable, str(script), str(tiny_llm_dir), str(tiny_whisper_dir), str(tmp_path), str(processes)]
        done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (tmp_path / f"run{n}/evaluation" for n in (1, 2))
    for name, items in (("choices", 10), ("letters", 5), ("prose", 7), ("recorded", 5)):
        first, second = (read_predictions(run / name / "step=000000.jsonl") for run in (one, two))
        assert len(first) == items, name
        assert sorted((r.id, r.modality) for r in second) == sorted((r.id, r.modality) for r in first), name
        found = {(r.id, r.modality): r for r in second}
        for record in first:
            other = found[record.id, record.modality]
            assert other.prediction == record.prediction
            for figures in (lambda r: list(r.scores or []), lambda r: [] if r.loss is None else [r.loss]):
                assert figures(other) == pytest.approx(figures(record), rel=1e-4)
        lines = [json.loads((run / name / "summary.jsonl").read_text().splitlines()[0]) for run in (one, two)]
        values = [{key: v for key, v in found.items() if key.startswith("val/")} for found in lines]
        assert len(values[0]) > 1
        assert values[1] == pytest.approx(values[0], rel=1e-4, nan_ok=True)
