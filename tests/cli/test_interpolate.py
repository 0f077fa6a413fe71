"""``textkeep interpolate``: its ends are the untouched LLM's and the run's own scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.speech_run import write_manifest
from textkeep.cli.main import main
from textkeep.evaluation import read_predictions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict) -> Path:
    """A run of two steps that ``Retention`` scored before and after."""
    folder = tmp_path_factory.mktemp("interpolate")
    trainer = {
        **tiny_settings["trainer"],
        "max_steps": 2,
        "default_root_dir": str(folder / "run"),
        "logger": False,
        "callbacks": [{"class_path": "Retention", "init_args": {"max_new_tokens": 3}}],
    }
    train, val = write_manifest(folder, "train", 6), write_manifest(folder, "val", 4)
    data = {"train": [str(train)], "val": [str(val)], "tokens_per_batch": 256, "speech_instruction": " Answer."}
    rate = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}
    settings = {
        **tiny_settings,
        "trainer": trainer,
        "data": data,
        "model": {**tiny_settings["model"], "optimizer": rate, "adaptor_weights": None},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "run"


def test_the_ends_are_the_runs_own_scores(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    val = yaml.safe_load((run / "config.yaml").read_text())["data"]["val"][0]
    attribution = tmp_path / "attribution.json"
    names = [f"model.layers.{i}.mlp.{k}_proj.weight" for i in (0, 1) for k in ("up", "down")]
    attribution.write_text(json.dumps({"parameters": {name: 0.4 - i / 10 for i, name in enumerate(names)}}))
    words = ["interpolate", str(run), "--alphas", "1", "0", "0.5", "--heldout", val, "--heldout-examples", "3"]
    words += ["--revert", str(attribution), "--top", "1", "9", "--device", "cpu", "-o", str(tmp_path / "sweep")]
    capsys.readouterr()
    assert main([*words, "--plot", str(tmp_path / "sweep.png")]) == 0
    shown = capsys.readouterr().out
    assert "only 4 matrices are to blame (positive nats)" in shown
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "sweep" / "interpolation.json").read_text())
    points = {point["name"]: point for point in found["points"]}
    assert list(points) == ["alpha=0", "alpha=0.5", "alpha=1", "reverted=1", "reverted=4"]
    own = {r.id: r for r in read_predictions(run / "evaluation/step=000002.jsonl") if r.modality == "text"}
    for name, step in (("alpha=0", 0), ("alpha=1", 2)):
        mine = read_predictions(tmp_path / "sweep" / name / "evaluation/step=000000.jsonl")
        theirs = {(r.id, r.modality): r for r in read_predictions(run / f"evaluation/step={step:06d}.jsonl")}
        assert len(mine) == len(theirs) == 8
        for record in mine:
            if record.modality == "text" or step:  # at alpha 0 the adaptor is the trained one
                assert record == theirs[record.id, record.modality]
    held = points["alpha=1"]["scores"]["heldout_text_loss"][0]
    chosen = [own[i] for i in own]
    assert min(r.loss for r in chosen) <= held <= max(r.loss for r in chosen)
    assert points["alpha=1"]["against_tuned"] == {}
    assert points["alpha=0"]["against_tuned"]["text_loss_change"][0] == pytest.approx(
        points["alpha=0"]["scores"]["text_answer_loss"][0] - points["alpha=1"]["scores"]["text_answer_loss"][0]
    )
    assert points["reverted=4"]["reverted"] == names
    assert points["reverted=4"]["against_tuned"]["heldout_text_loss_change"][0] != 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/none"], "none does not exist; allowed: a run directory"),
        (["{tmp}"], "its config.yaml names no data.val; allowed: a run directory"),
        (["{run}", "--split", "test"], "names no data.test"),
        (["{run}", "--revert", "{tmp}/a.json"], "--revert and --top belong together"),
        (["{run}", "--revert", "{tmp}/a.json", "--top", "2"], "a.json: No such file"),
        (["{run}", "--heldout", "{tmp}/none.jsonl"], "none.jsonl"),
    ],
)
def test_refusals_are_one_line(
    run: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["interpolate", *(word.format(run=run, tmp=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
