"""What a user of any verb but ``fit`` can get wrong: a line that says what, where and what is allowed, exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tests.support import tone_engine
from textkeep.cli.main import main
from textkeep.preparation.speech.engine import ENGINES

MISTAKES: dict[str, tuple[str, str]] = {
    "ask, nothing there": ("ask nope --text hi", "nope does not exist; allowed: a run directory, a checkpoint or"),
    "ask, a text file": ("ask note.txt --text hi", "note.txt is damaged (5 bytes: cut short or no checkpoint)"),
    "ask, an empty folder": ("ask empty --text hi", "empty cannot be loaded (Unrecognized model"),
    "ask, a list": (
        "ask list.ckpt --text hi",
        "list.ckpt cannot be loaded: its checkpoint is not one of",
    ),
    "ask, 0 bytes": ("ask zero --text hi", "zero/checkpoints/last.ckpt is damaged (0 bytes: empty)"),
    "ask, cut short": ("ask cut --text hi", "bytes: cut short or no checkpoint); there is no other"),
    "ask, broken config": ("ask broken_config --text hi", "broken_config/config.yaml is not a run's configuration"),
    "ask, export without prompts": (
        "ask half_export --text hi",
        "half_export/textkeep.json is no manifest of",
    ),
    "ask, damaged export": ("ask bad_export --text hi", "bad_export cannot be loaded, a file in it is damaged"),
    "ask, no audio": ("ask run --audio note.txt", "note.txt cannot be decoded"),
    "ask, no such clip": (
        "ask run --audio nope.wav",
        "nope.wav does not exist or is not a file; allowed: a sound file",
    ),
    "ask, silence of no length": ("ask run --audio zero.wav", "it has no samples"),
    "ask, no such device": ("ask run --text hi --device warp9", "device warp9"),
    "ask, negative length": ("ask run --text hi --max-new-tokens -1", "must be a whole number of at least 1, got '-1'"),
    "export, not a number": ("export run -o new --alpha nan", "argument --alpha: must be a number, got 'nan'"),
    "export, below a file": ("export run -o note.txt/x", "note.txt is a file; allowed: a folder below a folder"),
    "export, no run": ("export no_checkpoint -o new", "no_checkpoint is neither a checkpoint nor a run directory"),
    "export, no attribution": (
        "export run -o new --revert note.txt --top 1",
        "is not the JSON of `textkeep",
    ),
    "adaptor, wrong ending": (
        "adaptor run -o a.pt",
        "a.pt is not a .safetensors file; allowed: a name with that ending",
    ),
    "adaptor, no run": ("adaptor nope -o a.safetensors", "adaptor: nope does not exist"),
    "interpolate, no run": ("interpolate nope", "interpolate: nope does not exist; allowed: a run directory"),
    "interpolate, infinite": ("interpolate run --alphas inf", "argument --alphas: must be a number, got 'inf'"),
    "interpolate, skip": ("interpolate run --heldout-skip -1", "--heldout-skip: must be a whole number of at least 0"),
    "interpolate, picture": ("interpolate run --plot x.docx", "must end in .png, .pdf, .svg"),
    "probe, no checkpoint": (
        "importance probe no_checkpoint --data q.jsonl -o new",
        "nor a run directory (no no_",
    ),
    "probe, no model": ("importance probe empty --data q.jsonl -o new", "empty cannot be loaded"),
    "probe, no data": ("importance probe {llm} --data nope.jsonl -o new", "nope.jsonl: no such manifest"),
    "probe, nothing asked": ("importance probe {llm} --data empty.jsonl -o new", "empty.jsonl: no usable example"),
    "probe, negative step": ("importance probe {llm} --data q.jsonl -o new --step -4", "must be a whole number of at"),
    "show, a run": ("importance show run", "no snapshot in run (meta.json is missing)"),
    "show, damaged": ("importance show bad_snapshot", "bad_snapshot/meta.json is not a snapshot's meta.json"),
    "show, estimator": ("importance show snapshot --estimator nope", "no per-example scores of 'nope'"),
    "compare, one is none": ("importance compare snapshot empty", "no snapshot in empty"),
    "importance, no command": ("importance prob", "no command 'prob'; allowed: probe, compare"),
    "report, a file": ("report note.txt", "note.txt is a file, not a run directory"),
    "report, nothing": ("report empty", "empty is not a run directory: it holds none of config.yaml"),
    "watch, nothing": ("watch nope --once", "nope does not exist; allowed: the directory of a run"),
    "watch, pause": ("watch run --once --every nan", "argument --every: must be a number, got 'nan'"),
    "study, a run's config": ("study run/config.yaml --dry-run", "is the config of a run; allowed: a plan whose"),
    "study, a run": ("study run --dry-run", "no file run/study.yaml"),
    "study, no text": ("study bytes.yaml --dry-run", "bytes.yaml: UTF-16; allowed: text in UTF-8"),
    "study, place": ("study place.yaml --dry-run", "directory: 'note.txt' (allowed: a folder"),
    "study, number": ("study number.yaml --dry-run", "directory: 3 (allowed: a folder"),
    "study, archive": ("study new --unpack note.txt", "--unpack note.txt:"),
    "dashboard, damaged": (
        "dashboard --entity e --project p --run damaged --dry-run",
        "damaged: importance/summary.jsonl: ",
    ),
    "dashboard, no run": ("dashboard --entity e --project p --run nope --dry-run", "no importance/summary.jsonl"),
    "dashboard, no name": ("dashboard --entity= --project= --dry-run", "--entity and --project are empty; allowed"),
    "assets": ("assets whisper-bas", "no asset 'whisper-bas' (did you mean 'whisper-base'?)"),
    "speak, no file": ("speak nope.jsonl new --voices tone:low", "no such file: nope.jsonl"),
    "speak, voice": ("speak q.jsonl new --voices tone:nope", "tone has no voice 'nope'; allowed: low"),
    "speak, place": ("speak q.jsonl note.txt --voices tone:low", "note.txt is a file; allowed: the name of a folder"),
    "speak, tries": (
        "speak q.jsonl new --voices tone:low --verify x --max-wer 1 --retry -1",
        "--retry: must be a whole number of at least 0",
    ),
    "speak, nothing": ("speak empty.jsonl new --voices tone:low", "empty.jsonl: no question"),
    "rewrite, no model": ("rewrite q.jsonl -o n.jsonl --llm empty", "rewrite: empty cannot be loaded"),
    "rewrite, ending": ("rewrite q.jsonl -o n.json --llm {llm}", "n.json is not a .jsonl file"),
    "facts, number": ("facts new --prose -1 --wordnet empty", "--prose: must be a whole number of at least 1"),
    "facts, sources": (
        "facts new --sources empty",
        "countries.min.json is missing; run `textkeep assets",
    ),
    "benchmark, no model": ("benchmark empty", "benchmark: empty cannot be loaded"),
    "benchmark, examples": ("benchmark {llm} --num-fewshot -3", "--num-fewshot: must be a whole number of at least 0"),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict[str, Any]) -> Path:
    """A folder with a run of one step, and with what is damaged, missing or something else."""
    folder = tmp_path_factory.mktemp("desk")
    manifest = tiny_settings["data"]["train"][0]
    trainer = {
        **tiny_settings["trainer"],
        "max_steps": 1,
        "default_root_dir": str(folder / "run"),
        "logger": {"class_path": "RunCSVLogger"},
        "callbacks": [{"class_path": "ImportanceTracker", "init_args": {"estimators": ["taylor"]}}],
    }
    probes = {"p": {"source": manifest, "modality": "text", "examples": 4}}
    settings = {**tiny_settings, "trainer": trainer, "data": {**tiny_settings["data"], "probes": probes}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    assert main(["export", str(folder / "run"), "-o", str(folder / "bad_export")]) == 0
    _damage(folder)
    (folder / "empty").mkdir()
    (folder / "note.txt").write_text("hello")
    (folder / "q.jsonl").write_text('{"id": "a", "question": "Who?", "answers": ["x"]}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe")
    for name, directory in (("place", "note.txt"), ("number", 3)):
        plan = {"directory": directory, "configs": [str(folder / "run.yaml")], "arms": {"a": None}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(plan))
    soundfile.write(folder / "zero.wav", np.zeros(0), 16000)
    torch.save([1], folder / "list.ckpt")
    return folder


def _damage(folder: Path) -> None:
    """Copies of the run and its parts, each with one fault."""
    run = folder / "run"
    for name in ("no_checkpoint", "zero", "cut", "broken_config", "damaged"):
        shutil.copytree(run, folder / name)
    shutil.rmtree(folder / "no_checkpoint/checkpoints")
    for name, share in (("zero", 0.0), ("cut", 0.5)):
        for checkpoint in (folder / name / "checkpoints").iterdir():
            if not checkpoint.is_symlink():
                content = checkpoint.read_bytes()
                checkpoint.write_bytes(content[: int(share * len(content))])
    (folder / "broken_config/config.yaml").write_text("data: [1\n")
    (folder / "damaged/importance/summary.jsonl").write_text('{"step": 1}\n')
    (folder / "damaged/evaluation").mkdir(exist_ok=True)
    (folder / "damaged/evaluation/summary.jsonl").write_text('{"step": "x"}\n{"step": 1, "val/text_accuracy": "x"}\n')
    (folder / "damaged/config.yaml").write_text("trainer: 3\ndata: hello\n")
    shutil.copytree(folder / "bad_export", folder / "half_export")
    (folder / "half_export/textkeep.json").write_text('{"format": "textkeep-export-1"}')
    (folder / "bad_export/model.safetensors").write_bytes(b"1")
    snapshot = next((run / "importance/p").glob("step=*"))
    for name in ("snapshot", "bad_snapshot"):
        shutil.copytree(snapshot, folder / name)
    (folder / "bad_snapshot/meta.json").write_text("[]")


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(
    case: str, desk: Path, tiny_llm_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setitem(ENGINES, "tone", f"{tone_engine.__name__}:ToneEngine")
    words, message = MISTAKES[case]
    before = sorted(desk.rglob("*"))
    try:
        code: object = main(words.format(llm=tiny_llm_dir).split())
    except SystemExit as end:  # as argparse ends, after its usage
        code = end.code
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert sorted(desk.rglob("*")) == before


def test_damaged_files_of_a_run_are_noted_and_the_rest_is_shown(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(desk / "damaged"), "-o", str(tmp_path / "r.html")]) == 0
    shown = capsys.readouterr().out
    assert "damaged: config.yaml could not be read (trainer: a mapping is expected)" in shown
    assert "damaged: evaluation/summary.jsonl: 2 lines could not be read" in shown
    assert "damaged: importance/summary.jsonl: 1 line could not be read" in shown
    assert main(["watch", str(desk / "damaged"), "--once"]) == 0
    assert json.loads((desk / "snapshot/meta.json").read_text())["step"] in (0, 1)
