from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.named import read_sources
from textkeep.preparation.assets.recorded_speech import build_recorded_speech


def tone(path: Path, seconds: float, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * rate)) / 9), rate, subtype="PCM_16")


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    """The three packages as they are laid out, with tones for voices."""
    texts = tmp_path / "texts"
    words = texts / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    words.parent.mkdir(parents=True)
    lines = [
        "; a comment",
        "hello: Hello there...",
        "digits/1: one",
        "beep: [a beep]",
        "gone: not recorded",
        "blip: too short",
    ]
    words.write_bytes(gzip.compress("\n".join(lines).encode()))
    sounds = tmp_path / "sounds" / "usr/share/asterisk/sounds/en_US_f_Allison"
    for name, seconds in (("hello", 1.0), ("digits/1", 0.5), ("beep", 0.5), ("blip", 0.1)):
        tone(sounds / f"{name}.wav", seconds, 8000)
    data = tmp_path / "sphinx" / "usr/share/pocketsphinx/test/data"
    tone(data / "librivox" / "a-1.wav", 0.7, 16000)
    (data / "librivox" / "transcription").write_text("<s> and mister dashwood </s> (a-1)\n<s> lost </s> (a-2)\n")
    tone(data / "cards" / "001.wav", 0.7, 16000)
    (data / "cards" / "cards.transcription").write_text("<s> ten of clubs </s> (001)\n")
    for name in ("goforward", "something"):
        np.full(16000, 100, "<i2").tofile(data / f"{name}.raw")
    return {
        "asterisk-core-sounds-en": texts,
        "asterisk-core-sounds-en-wav": tmp_path / "sounds",
        "pocketsphinx-testdata": tmp_path / "sphinx",
    }


def test_the_clips_that_have_plain_words_become_a_manifest(
    packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "home" / "tools" / "recorded-speech"
    out.mkdir(parents=True)
    build_recorded_speech(packages, out)
    rows = {row["id"]: row for row in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    words = {identity: row["question"] for identity, row in rows.items()}
    assert words == {
        "asterisk-hello": "Hello there",
        "asterisk-digits-1": "one",
        "librivox-a-1": "and mister dashwood",
        "cards-001": "ten of clubs",
        "goforward": "go forward ten meters",
        "something": "go somewhere and do something",
    }
    assert rows["goforward"]["seconds"] == 1.0
    samples, rate = soundfile.read(out / "clips" / "goforward.wav", dtype="int16")
    assert rate == 16000
    assert set(samples) == {100}
    assert {path.stem for path in (out / "clips").iterdir()} == set(rows)
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path / "home"))
    examples = read_sources("asset:recorded-speech", BadExamples("raise"))
    assert [example.has("speech") for example in examples] == [True] * 6


def test_a_set_that_was_not_fetched_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="run `textkeep assets recorded-speech`"):
        read_sources("asset:recorded-speech", BadExamples("raise"))
