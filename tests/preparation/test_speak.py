"""``textkeep speak`` with an engine of tones: who speaks, what is written, what a second run does."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.support import tone_engine
from textkeep.cli.main import main
from textkeep.preparation.speech import clips, speaking
from textkeep.preparation.speech.engine import ENGINES, Voice, parse_voices
from textkeep.preparation.speech.plan import Cast, plan, voice_text
from textkeep.preparation.speech.rows import read_questions

Speak = Callable[..., int]


def rows(count: int, split: str = "train") -> list[dict]:
    return [
        {"id": f"{split}-{i}", "question": f"How far is {i}, really?", "answers": ["far"], "split": split}
        for i in range(count)
    ]


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Speak:
    monkeypatch.setitem(ENGINES, "tone", f"{tone_engine.__name__}:ToneEngine")
    monkeypatch.setattr(clips, "_engines", {})
    tone_engine.said.clear()

    def run(*arguments: str, voices: str = "tone:low,tone:mid") -> int:
        return main(["speak", *arguments, str(tmp_path / "out"), "--voices", voices, "--workers", "1"])

    return run


def test_clips_are_16_khz_mono_at_one_loudness(speak: Speak, tmp_path: Path) -> None:
    assert speak(str(write(tmp_path / "qa.jsonl", rows(4))), "--format", "wav") == 0
    lines = read(tmp_path / "out" / "qa.jsonl")
    assert [line["id"] for line in lines] == [f"train-{i}" for i in range(4)]
    for line in lines:
        waveform, sampling_rate = soundfile.read(tmp_path / "out" / line["audio"], dtype="float32")
        assert (sampling_rate, waveform.ndim) == (16000, 1)
        assert len(waveform) == 8000 == 16000 * line["seconds"]  # five words
        assert np.abs(waveform).max() == pytest.approx(0.7, abs=0.01)
        spectrum = np.abs(np.fft.rfft(waveform))
        hertz = {"tone:low": 200, "tone:mid": 400}[line["voice"]]
        assert np.argmax(spectrum) * 2 == hertz  # bins are 2 Hz wide


@pytest.mark.parametrize("suffix", ["ogg", "flac"])
def test_encodings_keep_the_length(speak: Speak, tmp_path: Path, suffix: str) -> None:
    assert speak(str(write(tmp_path / "qa.jsonl", rows(1))), "--format", suffix) == 0
    (line,) = read(tmp_path / "out" / "qa.jsonl")
    info = soundfile.info(tmp_path / "out" / line["audio"])
    assert (info.samplerate, info.channels, info.frames) == (16000, 1, 8000)
    assert info.subtype == {"ogg": "OPUS", "flac": "PCM_16"}[suffix]


def test_heldout_voices_speak_validation_and_test_and_nothing_else(speak: Speak, tmp_path: Path) -> None:
    inputs = [str(write(tmp_path / f"{s}.jsonl", rows(20, s))) for s in ("train", "validation", "test")]
    assert speak(*inputs, "--heldout-voices", "tone:high", "--format", "wav") == 0
    voices = {s: Counter(r["voice"] for r in read(tmp_path / "out" / f"{s}.jsonl")) for s in ("train", "test")}
    assert set(voices["train"]) == {"tone:low", "tone:mid"}
    assert min(voices["train"].values()) >= 4
    assert set(voices["test"]) == {"tone:high"}


def test_a_second_run_speaks_only_what_is_missing_or_changed(speak: Speak, tmp_path: Path) -> None:
    lines = rows(3)
    manifest = write(tmp_path / "qa.jsonl", lines)
    assert speak(str(manifest), "--format", "wav") == 0
    first = (tmp_path / "out" / "qa.jsonl").read_bytes()
    tone_engine.said.clear()
    assert speak(str(manifest), "--format", "wav") == 0
    assert tone_engine.said == []
    assert (tmp_path / "out" / "qa.jsonl").read_bytes() == first
    (tmp_path / "out" / read(tmp_path / "out" / "qa.jsonl")[1]["audio"]).unlink()
    lines[2]["question"] = "Something else?"
    assert speak(str(write(manifest, lines)), "--format", "wav") == 0
    assert sorted(text for text, *_ in tone_engine.said) == ["How far is 1, really?", "Something else?"]


def test_jitter_changes_speed_and_pitch_by_id_and_is_off_by_default() -> None:
    cast = Cast((Voice("tone", "low"),), jitter=0.2)
    jobs = [plan(row, cast, "ogg") for row in rows(200)]
    assert jobs == [plan(row, cast, "ogg") for row in rows(200)]
    rates, pitches = [job.rate for job in jobs], [job.pitch for job in jobs]
    assert 0.8 <= min(rates) < 0.83 < 1.17 < max(rates) <= 1.2
    assert abs(np.corrcoef(rates, pitches)[0, 1]) < 0.2
    still = plan(rows(1)[0], Cast((Voice("tone", "low"),)), "ogg")
    assert (still.rate, still.pitch) == (1.0, 1.0)
    assert still.clip != jobs[0].clip


def test_lines_whose_ids_are_of_another_script_have_clips_of_their_own() -> None:
    cast = Cast((Voice("flite", "slt"),))
    # Two of 100,000 lines whose recipes begin with the same eight digits.
    lines = [{"id": "\u977a\u4e01", "question": "38810"}, {"id": "\u647a\u4e04", "question": "92914"}]
    assert len({plan(line, cast, "ogg").clip for line in lines}) == 2
    known = plan({"id": "a b", "question": "38810"}, cast, "ogg")  # clips that are there keep their names
    assert known.clip == "clips/a-b-9e4e0e93.ogg"


def test_the_voice_says_the_spoken_text_without_signs() -> None:
    assert (
        voice_text({"question": "Which element is Fe?", "spoken": "Which element is F E?"}) == "Which element is F E?"
    )
    assert voice_text({"question": 'Is "R & B" (music) at 5%?'}) == "Is R and B music at 5 percent?"


def test_a_rejected_clip_is_retried_by_another_voice_then_set_aside(
    speak: Speak, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(jobs: list, folder: Path, source: str, bar: object) -> dict[str, tuple[str, float]]:
        """An ear that understands the voice ``mid`` alone, and never the third question."""
        bad = {job.id: 0.9 if job.id == "train-2" else 0.8 * (job.voice.name == "low") for job in jobs}
        return {name: ("heard", rate) for name, rate in bad.items()}

    monkeypatch.setattr(speaking, "listen", listen)
    manifest = str(write(tmp_path / "qa.jsonl", rows(12)))
    options = ("--format", "wav", "--verify", "ear", "--max-wer", "0.5")
    assert speak(manifest, *options) == 0
    assert len(read(tmp_path / "out" / "qa.jsonl")) < 11
    assert speak(manifest, *options, "--retry", "1") == 0
    accepted, rejected = read(tmp_path / "out" / "qa.jsonl"), read(tmp_path / "out" / "rejected.jsonl")
    assert {line["voice"] for line in accepted} == {"tone:mid"}
    assert [line["id"] for line in rejected] == ["train-2"]
    assert rejected[0]["wer"] == 0.9
    assert (tmp_path / "out" / rejected[0]["audio"]).is_file()
    kept = {Path(line["audio"]).name for line in accepted}
    assert {path.name for path in (tmp_path / "out" / "clips").iterdir()} == kept
    tone_engine.said.clear()
    assert speak(manifest, *options, "--retry", "1") == 0
    assert tone_engine.said == []  # what was set aside is not spoken again


def test_a_whisper_listens_once(
    speak: Speak, tmp_path: Path, tiny_whisper_dir: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from textkeep.preparation.speech import verify

    model = tmp_path / "whisper"
    shutil.copytree(tiny_whisper_dir, model)
    tiny_tokenizer.save_pretrained(model)
    generation = {"decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 0, "is_multilingual": False}
    generation |= {"no_timestamps_token_id": 60, "max_length": 40}
    (model / "generation_config.json").write_text(json.dumps(generation))
    manifest = str(write(tmp_path / "qa.jsonl", rows(3)))
    options = ("--format", "wav", "--verify", str(model))
    assert speak(manifest, *options) == 0
    lines = read(tmp_path / "out" / "qa.jsonl")
    assert all(line["wer"] > 0.5 and isinstance(line["transcript"], str) for line in lines)  # random weights
    monkeypatch.delattr(verify.Transcriber, "__call__")
    assert speak(manifest, *options) == 0
    assert read(tmp_path / "out" / "qa.jsonl") == lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "a"}\n', "qa.jsonl:1: a line must be an object with an id and a question"),
        ('{"id": "a", "question": "b"}\n{oops\n', "qa.jsonl:2: not JSON"),
        ('{"id": "a", "question": "b"}\n{"id": "a", "question": "c"}\n', "qa.jsonl:2: id 'a' was already used in"),
    ],
)
def test_bad_lines_are_named(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, message: str
) -> None:
    (tmp_path / "qa.jsonl").write_text(lines)
    assert speak(str(tmp_path / "qa.jsonl")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--voices", "tone:bass"), "tone has no voice 'bass'; allowed: low, mid, high, mute"),
        (("--voices", "bells:low"), "unknown engine 'bells'; allowed: "),
        (("--voices", "low"), "must be written engine:name"),
        (("--voices", "tone:low", "--heldout-voices", "tone:low"), "must not be in --voices too: tone:low"),
        (("--voices", ","), "--voices is empty"),
        (("--voices", "tone:low", "--jitter", "0.7"), "--jitter must be at least 0 and below 0.5"),
        (("--voices", "tone:low", "--max-wer", "0.5"), "--max-wer needs --verify"),
        (("--voices", "tone:low", "--retry", "1"), "--retry needs --max-wer"),
    ],
)
def test_bad_options_are_one_line(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    manifest = write(tmp_path / "qa.jsonl", rows(1))
    assert main(["speak", str(manifest), str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_text_without_a_sound_names_the_line(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speak(str(write(tmp_path / "qa.jsonl", rows(1))), voices="tone:mute") == 2
    assert "speak: train-0: tone:mute made no sound of" in capsys.readouterr().err
    assert not list((tmp_path / "out" / "clips").iterdir())


def test_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    paths = [write(tmp_path / "qa.jsonl", rows(1)), write(tmp_path / "a" / "qa.jsonl", rows(1))]
    with pytest.raises(ValueError, match=r"two inputs are named qa\.jsonl"):
        read_questions(paths)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_questions([tmp_path / "none.jsonl"])


def test_voices_are_parsed_without_repetition(speak: Speak) -> None:
    assert parse_voices(["tone:low", "tone:mid", "tone:low"]) == (Voice("tone", "low"), Voice("tone", "mid"))
