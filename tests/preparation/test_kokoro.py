"""Kokoro's engine around a model that only notes what it is given: phonemes, styles, speed, trimmed ends."""

# ruff: noqa: RUF001 - phonemes look like other letters

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kokoro_onnx", reason="needs the extra `speak`")

from kokoro_onnx.config import DEFAULT_VOCAB, MAX_PHONEME_LENGTH

from textkeep.preparation.speech.kokoro import MARGIN, MODEL, KokoroEngine

ROWS = 510
LOUD = 100
"""Samples that the model gives for a token."""


class NotingSession:
    """Stands for ONNX Runtime's session of the model."""

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        self._model_path = path
        self.threads = options.intra_op_num_threads
        self.given: list[dict[str, np.ndarray]] = []
        self.amplitude = 0.5

    def get_inputs(self) -> list[SimpleNamespace]:
        kinds = {"tokens": "tensor(int64)", "style": "tensor(float)", "speed": "tensor(float)"}
        return [SimpleNamespace(name=name, type=kind) for name, kind in kinds.items()]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="audio")]

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={})

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.given.append(inputs)
        loud = np.full(LOUD * inputs["tokens"].shape[1], self.amplitude, np.float32)
        silence = np.zeros(5000, np.float32)
        return [np.concatenate([silence, loud, silence])]

    @property
    def phonemes(self) -> list[str]:
        sounds = {number: sound for sound, number in DEFAULT_VOCAB.items()}
        return ["".join(sounds[number] for number in inputs["tokens"][0, 1:-1].tolist()) for inputs in self.given]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KokoroEngine:
    (tmp_path / "voices").mkdir()
    (tmp_path / MODEL).touch()
    for number, voice in enumerate(("af_heart", "bm_george", "jf_alpha")):
        table = np.repeat(np.arange(ROWS, dtype=np.float32)[:, None] + 1000 * number, 256, axis=1)
        table.tofile(tmp_path / "voices" / f"{voice}.bin")
    monkeypatch.setattr("onnxruntime.InferenceSession", NotingSession)
    return KokoroEngine(tmp_path)


def session(engine: KokoroEngine) -> NotingSession:
    return engine._model.sess  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "american", "british"),
    [
        (
            "What is the capital of Kyrgyzstan?",
            "wˌʌt ɪz ðə kˈæpɪɾəl ʌv kˌɜːɹɡɪstˈɑːn?",
            "wˌɒt ɪz ðə kˈapɪtəl ɒv kˌɜːɹɡɪstˈɑːn?",
        ),
        (
            "On which continent is Liechtenstein?",
            "ˌɔn wˌɪtʃ kˈɑːntɪnənt ɪz lˈɪktənstˌaɪn?",
            "ˌɒn wˌɪtʃ kˈɒntɪnənt ɪz lˈɪktənstˌaɪn?",
        ),
        (
            "He said “no” (twice) — then left…",
            "hiː sˈɛd “nˈoʊ” (twˈaɪs) — ðˈɛn lˈɛft…",
            "hiː sˈɛd “nˈəʊ” (twˈaɪs) — ðˈɛn lˈɛft…",
        ),
        ("It’s 3.25 m.", "ɪts θɹˈiː pˈɔɪnt tˈuː fˈaɪv ˈɛm.", "ɪts θɹˈiː pˈɔɪnt tˈuː fˈaɪv ˈɛm."),
    ],
)
def test_text_becomes_the_sounds_that_kokoro_learned(
    engine: KokoroEngine, text: str, american: str, british: str
) -> None:
    engine.synthesize(text, "af_heart")
    engine.synthesize(text, "bm_george")
    assert session(engine).phonemes == [american, british]


def test_thousands_are_one_number(engine: KokoroEngine) -> None:
    for text in ("Is it 2,300?", "Is it 2300?"):
        engine.synthesize(text, "af_heart")
    first, second = session(engine).phonemes
    assert first == second


def test_style_speed_and_threads_reach_the_model(engine: KokoroEngine) -> None:
    engine.synthesize("Hello", "bm_george", rate=0.8)
    assert session(engine).threads == 1
    (given,) = session(engine).given
    count = given["tokens"].shape[1] - 2
    assert given["tokens"][0, [0, -1]].tolist() == [0, 0]
    assert given["style"].shape == (1, 256)
    assert given["style"][0, 0] == 1000 + count - 1  # the row of so many phonemes, of the second voice
    assert given["speed"].tolist() == pytest.approx([0.8])


def test_the_ends_keep_a_margin_of_silence(engine: KokoroEngine) -> None:
    waveform, sampling_rate = engine.synthesize("Hello", "af_heart")
    assert sampling_rate == 24000
    tokens = session(engine).given[0]["tokens"].shape[1]
    assert len(waveform) == MARGIN + LOUD * tokens - 1 + MARGIN
    assert not waveform[:MARGIN].any()
    assert waveform[MARGIN] == 0.5


def test_a_long_text_is_said_to_its_end(engine: KokoroEngine) -> None:
    sentences = [f"The {name} of the country lies beside the river." for name in ("north", "south", "east", "west")]
    text = " ".join(sentences * 6)
    engine.synthesize(text, "af_heart")
    pieces = session(engine).phonemes
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= MAX_PHONEME_LENGTH
    assert " ".join(pieces).count("ɹˈɪvɚ") == 24


def test_what_cannot_be_said_is_named(engine: KokoroEngine) -> None:
    assert engine.voices == ("af_heart", "bm_george")
    with pytest.raises(ValueError, match="kokoro has no voice 'jf_alpha'; allowed: af_heart, bm_george"):
        engine.synthesize("Hello", "jf_alpha")
    session(engine).amplitude = 0.001
    with pytest.raises(ValueError, match="kokoro:af_heart made no sound of 'Hello'"):
        engine.synthesize("Hello", "af_heart")
