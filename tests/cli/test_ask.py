from __future__ import annotations

import io
import json
import os
import pty
import re
import termios
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tests.support.speech_run import write_manifest
from textkeep.cli.main import main
from textkeep.datamodules import SpeechTextData
from textkeep.evaluation import read_predictions
from textkeep.inference import load
from textkeep.inference.run_settings import data_settings
from textkeep.lightning_modules import SpeechLLM


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Path:
    """A run made by ``textkeep fit``, measured and scored, with prompts that are not the defaults."""
    folder = tmp_path_factory.mktemp("ask")
    train, val = write_manifest(folder, "train", 6), write_manifest(folder, "val", 4)
    source = str(val)
    config = {
        "seed_everything": 0,
        "trainer": {
            "default_root_dir": str(folder / "run"),
            "accelerator": "cpu",
            "max_steps": 2,
            "val_check_interval": 1,
            "num_sanity_val_steps": 0,
            "callbacks": [
                {"class_path": "Retention"},
                {"class_path": "ImportanceTracker", "init_args": {"replicates": 20}},
            ],
        },
        "model": {
            "llm": str(tiny_llm_dir),
            "encoder": {"class_path": "WhisperEncoder", "init_args": {"source": str(tiny_whisper_dir)}},
            "adaptor": {"class_path": "ConcatMLP", "init_args": {"hidden": 16}},
            "max_new_tokens": 5,
        },
        "data": {
            "train": [str(train)],
            "val": [source],
            "train_modalities": "both",
            "tokens_per_batch": 256,
            "speech_instruction": " Answer it.",
            "text_instruction": " Be short.",
            "system": "You know numbers.",
            "probes": {
                name: {"source": source, "modality": modality, "examples": 4}
                for name, modality in (("heldout_text", "text"), ("speech", "speech"))
            }
            | {"plain_text": {"source": "plain-text/probe", "examples": 4, "tokens": 24}},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path)]) == 0
    return folder / "run"


def test_answers_are_those_of_the_evaluation(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = {(r.id, r.modality): r for r in read_predictions(fitted / "evaluation/step=000002.jsonl")}
    clip = fitted.parent / "clips/val-1.wav"
    capsys.readouterr()
    assert main(["ask", str(fitted), "--audio", str(clip), "--text", "What is number 1?", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["modality"] for line in lines] == ["speech", "text"]
    assert lines[0]["audio"] == str(clip)
    assert lines[1]["question"] == "What is number 1?"
    assert lines[0]["answer"] == records["val-1", "speech"].prediction
    assert lines[1]["answer"] == records["val-1", "text"].prediction


def test_the_runs_prompts_are_used_for_its_checkpoints_too(fitted: Path) -> None:
    config = data_settings(fitted)
    assert config["system"] == "You know numbers."
    checkpoint = next((fitted / "checkpoints").glob("step=*.ckpt"))
    assert data_settings(checkpoint) == config


def test_one_question_gives_its_answer_alone(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = next((fitted / "checkpoints").glob("step=*.ckpt"))
    capsys.readouterr()
    assert main(["ask", str(checkpoint), "--text", "What is number 1?", "--max-new-tokens", "2"]) == 0
    model = SpeechLLM.from_run(checkpoint)
    data = SpeechTextData(**{key: value for key, value in data_settings(fitted).items() if key != "probes"})
    data.connect(model.front_end)
    example = next(e for e in data.eval_pairs("val") if e.question == "What is number 1?")
    (batch,) = data.loader([example], "text", answers=False)
    with torch.no_grad():
        expected = model.generate(batch, max_new_tokens=2)[0]
    assert capsys.readouterr().out.rstrip("\n") == expected


def test_any_sampling_rate_and_channel_count(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "stereo.flac"
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal((44100, 2)), 44100)
    capsys.readouterr()
    assert main(["ask", str(fitted), "--audio", str(clip)]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= 1


def test_the_report_of_a_real_run_misses_nothing(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["report", str(fitted)]) == 0
    verdict, _ = capsys.readouterr().out.splitlines()  # and where the page is; no note of anything missing
    assert re.search(r"[Tt]ext.*: [+-]\d\S* \[-?\d\S*, -?\d\S*\] nats a token of plain text", verdict)
    text = (fitted / "report.html").read_text(encoding="utf-8")
    for words in ("Hearing (validation)", "What training did on each probe", "plain text", "LlamaForCausalLM"):
        assert words in text


def test_a_conversation_loads_the_model_once(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, loaded = fitted.parent / "clips/val-1.wav", []
    monkeypatch.setattr("textkeep.inference.load", lambda *given: loaded.append(load(*given)) or loaded[-1])
    lines = f"What is number 1?\n\n  '{clip}'\nnone.wav\n{'long ' * 2000}\nWhat is number 2?"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    capsys.readouterr()
    assert main(["ask", str(fitted), "--json"]) == 2  # one of them could not be asked
    out, err = capsys.readouterr()
    (model,) = loaded
    first, spoken, _, last = [json.loads(line) for line in out.splitlines()]
    assert (first["question"], first["answer"]) == ("What is number 1?", model.ask("What is number 1?"))
    assert (spoken["audio"], spoken["answer"]) == (str(clip), model.ask(audio=clip))
    assert last["answer"] == model.ask("What is number 2?")
    assert err == "textkeep: error: none.wav does not exist or is not a file; allowed: a sound file\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["ask", str(fitted)]) == 2
    assert "ask: nothing was asked; give --audio FILE or --text QUESTION, or type" in capsys.readouterr().err


def test_a_conversation_at_a_terminal(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    screen = os.dup(theirs)
    with os.fdopen(ours, "r+b", buffering=0) as keyboard, os.fdopen(theirs) as typed, os.fdopen(screen, "w") as shown:
        for stream, opened in (("stdin", typed), ("stdout", shown), ("stderr", shown)):
            monkeypatch.setattr(f"sys.{stream}", opened)
        keyboard.write(b"What is number 1?\nnone.flac\n\n\x04")  # the last is Ctrl-D
        code = main(["ask", str(fitted), "--max-new-tokens", "2"])
        monkeypatch.undo()
        shown.flush()
        seen = b""
        while not seen.endswith(b"> > \r\n"):
            seen += keyboard.read(4096)
    assert code == 0
    greeting, answer, complaint, *rest = seen.decode().replace("\r\n", "\n").splitlines()
    assert greeting == "Type a question, or the path of a sound file; each is asked on its own. Ctrl-D ends."
    assert answer == "> " + str(load(fitted, "cpu").ask("What is number 1?", max_new_tokens=2))
    assert complaint == "> textkeep: error: none.flac does not exist or is not a file; allowed: a sound file"
    assert rest == ["> > "]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--audio", "{tmp}/none.wav"], "none.wav does not exist or is not a file"),
        (["{run}", "--audio", "{tmp}/corrupt.wav"], "corrupt.wav cannot be decoded"),
        (["{run}", "--audio", "{tmp}/empty.wav"], "it has no samples"),
        (["{run}", "--audio", "{tmp}/long.wav"], "allowed: at most max_seconds = 30 s"),
        (["{run}", "--text", "  "], "--text is empty"),
        (["{run}", "--text", "caf\udce9"], "ask: --text: half a surrogate pair in 'caf\\udce9'"),
        (["{run}", "--text", "a", "--device", "quantum"], "device quantum: "),
        (["{tmp}/none", "--text", "a"], "none does not exist; allowed: a run directory, a checkpoint or an export"),
        (["{tmp}", "--text", "a"], "cannot be loaded (Unrecognized model"),
        (["{tmp}/bad.ckpt", "--text", "a"], "bad.ckpt is damaged (13 bytes: cut short or no checkpoint)"),
    ],
)
def test_bad_input_gives_one_line(
    fitted: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF and then nothing")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * 8000), 8000)
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    capsys.readouterr()
    assert main(["ask", *(part.format(run=fitted, tmp=tmp_path) for part in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("textkeep: error: ")
    assert error.count("\n") == 1
