"""The directory of a study that ran in part, written with the code that writes real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.support.report_run import KINDS, write_run
from textkeep.evaluation import Prediction, write_predictions
from textkeep.runs.study.state import JobState, StateStore

ITEMS, LAYERS = 60, 4
SHARES = {"untouched": (0.6, 0.05), "full": (0.4, 0.5), "lora": (0.58, 0.55)}
HARM = {"full": 0.8, "lora": 0.2}


def write_study(folder: Path) -> Path:
    """Two arms with two seeds each, the untouched LLM, a further set; one point and one run of lora are missing."""
    plan: dict[str, Any] = {"configs": ["gone.yaml"], "seeds": [0, 1]}
    plan["arms"] = {"full": None, "lora": {"grid": {"m.lr": [1, 2, 3]}}}
    plan["selection"] = {"metric": "val/speech_accuracy"}
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(plan))
    store, rng = StateStore(folder), np.random.default_rng(0)
    runs = {"full,seed=0": "full/seed=0", "full,seed=1": "full/seed=1"}
    runs |= {"lora,lr=1,seed=0": "lora,lr=1/seed=0", "lora,lr=2,seed=0": "lora,lr=2/seed=0"}
    for number, (job, place) in enumerate({"untouched": "untouched-test", **runs}.items()):
        run, arm = folder / "runs" / place, job.split(",")[0]
        if job != "untouched":
            _train(run, arm, 0.5 if "lr=2" in job else 0.4, number)
        tested = job != "lora,lr=1,seed=0"  # a point that was not chosen meets the test questions never
        scored = run / ("evaluation/test" if tested else "evaluation")
        write_predictions(scored / "step=000030.jsonl", _records(arm, rng))
        prose = [Prediction(f"p{i}", "text", loss=3 + 0.1 * i + _worse(arm, number), tokens=9) for i in range(10)]
        write_predictions(scored / "prose/step=000030.jsonl", prose)
        store.write(JobState(job, "finished", fitted=True, tested=tested))
    store.write(JobState("lora,lr=2,seed=1", "failed", error="it burnt"))
    return folder


def _worse(arm: str, number: int) -> float:
    return {"untouched": 0.0, "full": 1.0, "lora": 0.1}[arm] + (0.02 * number if arm != "untouched" else 0.0)


def _records(arm: str, rng: np.random.Generator) -> list[Prediction]:
    text, speech = SHARES[arm]
    easy = np.random.default_rng(7).random(ITEMS)
    found = []
    for modality, share in (("text", text), ("speech", speech)):
        for i in range(ITEMS):
            right = easy[i] + 0.15 * rng.standard_normal() < share
            found.append(Prediction(f"q{i}", modality, prediction="x", correct=bool(right)))
    return found


def _train(run: Path, arm: str, rate: float, number: int) -> None:
    harm = HARM[arm] + 0.05 * number
    write_run(run, steps=(0, 30), layers=LAYERS, parts=("config", "importance"), harm=harm, seed=number)
    (run / "metrics.csv").write_text(f"step,val/speech_accuracy\n1,0.1\n2,{rate}\n")
    rng = np.random.default_rng(number)
    names = [(f"model.layers.{i}.{kind}", i, kind) for i in range(LAYERS) for kind in KINDS]
    matrices = [
        {"name": n, "layer": i, "kind": k, "norm": harm * rng.random(), "base_norm": 2 + rng.random(), "rank": None}
        for n, i, k in names
    ]
    matrices[0]["norm"] = 0.0
    overlap = {"estimator": "taylor", "matrices": [{"name": n, **_sides(rng, arm == "lora")} for n, _, _ in names]}
    change = {"step": 30, "relative": 0.1, "matrices": matrices, "overlap": {"heldout_text": overlap}}
    (run / "weight_change.json").write_text(json.dumps(change))
    if arm == "full":
        row = {"removed": "top", "data": "general, text", "perplexity": 1e5, "increase": 9.0, "low": 8.0, "high": 10.0}
        test = {"estimator": "taylor", "fraction": 0.03, "scope": "matrix", "rows": [row]}
        (run / "importance/removal.json").write_text(json.dumps(test))


def _sides(rng: np.random.Generator, adapted: bool) -> dict[str, Any]:
    def line(level: float) -> dict[str, Any]:
        spearman = level + 0.1 * rng.standard_normal()
        random = 0.1 * rng.standard_normal() if adapted else None
        return {"spearman": spearman, "shuffled_p95": 0.2, "percentile": 90, "random_median": random}

    return {"rows": line(0.5), "columns": line(0.0)}
