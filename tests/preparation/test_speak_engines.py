"""The real engines, where their assets were fetched; the ear's arithmetic everywhere."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from textkeep.foundation.assets import locate
from textkeep.preparation.speech.engine import SpeechEngine
from textkeep.preparation.speech.verify import TranscriptStore, WordErrorRate, join_letters


def test_word_error_rate_is_kind_to_case_numbers_and_spelling() -> None:
    rate = WordErrorRate()
    assert rate("What is the capital of France?", "what is the capital of france") == 0
    assert rate("Which element has the symbol F E?", "Which element has the symbol FE?") == 0
    assert rate("In nineteen seventy four it rained.", "In 1974, it rained.") == 0
    assert rate("What is the capital of Ghana?", "What is the capital of Canada?") == pytest.approx(1 / 6, abs=1e-3)
    assert rate("Yes", "No, not at all") == 4
    assert rate("", "") == 0


def test_single_letters_are_one_spelling() -> None:
    assert join_letters("the symbol f e is") == "the symbol fe is"
    assert join_letters("a b c") == "abc"
    assert join_letters("is it a dog") == "is it a dog"


def test_transcripts_survive_a_run_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    store = TranscriptStore(path)
    store.add({"a.ogg": "one", "b.ogg": "two"})
    with path.open("a") as file:
        file.write('{"clip": "c.ogg", "trans')
    assert TranscriptStore(path).transcripts == {"a.ogg": "one", "b.ogg": "two"}


def pitch(waveform: np.ndarray, sampling_rate: int) -> float:
    """Median fundamental frequency in Hz, by autocorrelation of frames of 64 ms."""
    found = []
    frame = int(0.064 * sampling_rate)
    for start in range(0, len(waveform) - frame, frame // 2):
        piece = waveform[start : start + frame] - waveform[start : start + frame].mean()
        correlation = np.correlate(piece, piece, "full")[frame - 1 :]
        low, high = sampling_rate // 300, sampling_rate // 60
        lag = low + int(correlation[low:high].argmax())
        if correlation[lag] > 0.5 * correlation[0] > 0.1:
            found.append(sampling_rate / lag)
    return float(np.median(found))


@pytest.fixture(scope="module")
def flite() -> SpeechEngine:
    try:
        locate("flite")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    from textkeep.preparation.speech.flite import FliteEngine

    return FliteEngine()


TEXT = "What is the capital of Burkina Faso, and where did we go last winter?"


def test_flite_obeys_speed_and_pitch_and_forgets_them(flite: SpeechEngine) -> None:
    for voice in flite.voices:
        plain, sampling_rate = flite.synthesize(TEXT, voice)
        assert sampling_rate == 16000
        assert 3 < len(plain) / sampling_rate < 6
        fast, _ = flite.synthesize(TEXT, voice, rate=1.25)
        assert len(plain) / len(fast) == pytest.approx(1.25, abs=0.03)
        high, _ = flite.synthesize(TEXT, voice, pitch=1.2)
        if voice != "rms":  # its pitch is fixed
            assert pitch(high, 16000) > 1.05 * pitch(plain, 16000)
        again, _ = flite.synthesize(TEXT, voice)
        np.testing.assert_array_equal(again, plain)


def test_flite_refuses_an_unknown_voice(flite: SpeechEngine) -> None:
    with pytest.raises(ValueError, match="flite has no voice 'nobody'; allowed: kal16"):
        flite.synthesize("Hello", "nobody")


@pytest.mark.slow
def test_processes_make_the_same_clips_as_one(flite: SpeechEngine, tmp_path: Path) -> None:
    from textkeep.cli.speak import main

    lines = [{"id": f"q{i}", "question": f"What is {i}?", "answers": ["x"]} for i in range(70)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for workers in ("1", "2"):
        options = ["--voices", "flite:slt,flite:kal16", "--workers", workers, "--format", "flac"]
        assert main([str(tmp_path / "qa.jsonl"), str(tmp_path / workers), *options]) == 0
    clips = sorted(path.name for path in (tmp_path / "1" / "clips").iterdir())
    assert len(clips) == 70
    for clip in clips:
        assert (tmp_path / "1" / "clips" / clip).read_bytes() == (tmp_path / "2" / "clips" / clip).read_bytes()


@pytest.mark.slow
def test_kokoro_is_understood_by_whisper(tmp_path: Path) -> None:
    pytest.importorskip("kokoro_onnx")
    try:
        locate("kokoro")
        locate("whisper-tiny.en")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    from textkeep.preparation.speech.clips import to_mono_16k
    from textkeep.preparation.speech.kokoro import KokoroEngine
    from textkeep.preparation.speech.verify import load_transcriber

    engine = KokoroEngine()
    assert len(engine.voices) == 28
    waveforms = [
        to_mono_16k(*engine.synthesize("What is the capital of France?", v)) for v in ("af_heart", "bm_george")
    ]
    assert all(math.isclose(np.abs(waveform).max(), 0.7, rel_tol=1e-3) for waveform in waveforms)
    heard = load_transcriber("asset:whisper-tiny.en")(waveforms)
    assert [WordErrorRate()("What is the capital of France?", text) for text in heard] == [0, 0]
    slow, _ = engine.synthesize("What is the capital of France?", "af_heart", rate=0.8)
    plain, _ = engine.synthesize("What is the capital of France?", "af_heart")
    assert len(slow) > 1.1 * len(plain)
    with pytest.raises(ValueError, match="kokoro has no voice 'nobody'; allowed: af_"):
        engine.synthesize("Hello", "nobody")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("What is 2 + 2?", "What is 2 + 2?"),
        ("Don\u2019t \u201csay\u201d it \u2013 now\u2026", 'Don\'t "say" it - now...'),
        ("S\u00e3o Tom\u00e9, Z\u00fcrich, \u00c5rhus", "Sao Tome, Zurich, Arhus"),
        ("\u0141\u00f3d\u017a, \u00c6r\u00f8, Stra\u00dfe", "Lodz, Aero, Strasse"),
        ("5 \u20ac \U0001f389", "5    "),
    ],
)
def test_flite_gets_english_letters(text: str, said: str) -> None:
    from textkeep.preparation.speech.flite import english_letters

    assert english_letters(text) == said


@pytest.mark.parametrize(
    "text", ["\u4f60\u597d\uff1f", "What is \u039b?", "\u041c\u043e\u0441\u043a\u0432\u0430", "\u0661\u0662"]
)
def test_flite_refuses_another_script(text: str) -> None:
    from textkeep.preparation.speech.flite import english_letters

    with pytest.raises(ValueError, match=r'flite cannot say .*; allowed: English text, or a "spoken"'):
        english_letters(text)
