"""Flite 2.2, called in process: four English voices at 16 kHz, some hundred times faster than speech.

The library is used through ctypes instead of the ``flite`` program: no process and no temporary file for a clip, and no
search path to set. Its functions are not safe in threads; use one engine a process.
"""

from __future__ import annotations

import ctypes
import unicodedata
from functools import cached_property
from pathlib import Path

import numpy as np

from ...foundation.assets import locate
from .waveform import Waveform

SHARED = ("libasound.so.2", "libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1")
"""Libraries that the voices need, in order of dependency."""

MEAN_PITCH = {"kal16": 95.0, "awb": 122.0, "rms": 101.0, "slt": 169.0}
"""Mean fundamental frequency of each voice in Hz, as measured; ``rms`` keeps its own whatever is asked for."""

PITCH_FEATURE = b"int_f0_target_mean"
DIPHONE_VOICE = "kal16"
"""The voice that has no pitch without the feature; the others fall back on their statistical models."""

NOISE_SEED = 1

_WRITTEN = {
    "'": "\u2018\u2019\u02bc",
    '"': "\u201c\u201d\u201e\u00ab\u00bb",
    "-": "\u2010\u2011\u2013\u2014",
    "/": "\u2044",
}
_LETTERS = {
    "ss": "\u00df",
    "ae": "\u00e6",
    "oe": "\u0153",
    "o": "\u00f8",
    "l": "\u0142",
    "d": "\u0111\u00f0",
    "th": "\u00fe",
    "i": "\u0131",
}
SPELLED = str.maketrans(
    {sign: plain for plain, signs in _WRITTEN.items() for sign in signs}
    | {letter: plain for plain, letters in _LETTERS.items() for letter in letters}
    | {
        letter.upper(): plain.capitalize()
        for plain, letters in _LETTERS.items()
        for letter in letters
        if plain not in ("ss", "i")
    }
)
"""Quotes, dashes and letters without an accent to drop, as English writes them."""


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


class FliteEngine:
    """CMU Flite with the voices of Debian's packages."""

    name = "flite"
    voices = tuple(MEAN_PITCH)

    def __init__(self, folder: Path | None = None):
        """Finds the libraries.

        Args:
            folder: Unpacked asset; by default the asset ``flite``.

        Raises:
            FileNotFoundError: If the asset is not there.
        """
        self._libraries = (folder or locate("flite")) / "lib"
        self._loaded: dict[str, tuple[ctypes.CDLL, ctypes._Pointer[_Voice]]] = {}

    @cached_property
    def _flite(self) -> ctypes.CDLL:
        # Global symbols and known names: libraries loaded here are found by those that need them.
        libraries = {name: ctypes.CDLL(str(self._libraries / name), mode=ctypes.RTLD_GLOBAL) for name in SHARED}
        flite = libraries["libflite.so.1"]
        flite.flite_init()
        flite.flite_text_to_wave.argtypes = (ctypes.c_char_p, ctypes.POINTER(_Voice))
        flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
        flite.delete_wave.argtypes = (ctypes.POINTER(_Wave),)
        flite.delete_wave.restype = None
        flite.flite_feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)
        flite.flite_feat_set_float.restype = None
        flite.flite_feat_remove.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        return flite

    def _voice(self, name: str) -> ctypes._Pointer[_Voice]:
        if name not in self._loaded:
            _ = self._flite
            library = ctypes.CDLL(str(self._libraries / f"libflite_cmu_us_{name}.so.1"), mode=ctypes.RTLD_GLOBAL)
            register = getattr(library, f"register_cmu_us_{name}")
            register.argtypes, register.restype = (ctypes.c_char_p,), ctypes.POINTER(_Voice)
            self._loaded[name] = library, register(None)
        return self._loaded[name][1]

    def synthesize(self, text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> tuple[Waveform, int]:
        """Says a text.

        Raises:
            ValueError: If the voice is unknown, cannot read the text or made no sound.
        """
        if voice not in MEAN_PITCH:
            raise ValueError(f"flite has no voice {voice!r}; allowed: {', '.join(self.voices)}")
        speaker = self._voice(voice)
        features = speaker.contents.features
        self._flite.flite_feat_set_float(features, b"duration_stretch", 1.0 / rate)
        if pitch != 1.0 or voice == DIPHONE_VOICE:
            self._flite.flite_feat_set_float(features, PITCH_FEATURE, MEAN_PITCH[voice] * pitch)
        else:
            self._flite.flite_feat_remove(features, PITCH_FEATURE)
        # The voices' breath is noise from the C library: seeded, a text sounds the same in every run.
        self._flite.srand(NOISE_SEED)
        wave = self._flite.flite_text_to_wave(english_letters(text).encode("ascii"), speaker)
        if not wave or wave.contents.num_samples <= 0:
            raise ValueError(f"flite:{voice} made no sound of {text!r}")
        samples = np.ctypeslib.as_array(wave.contents.samples, (wave.contents.num_samples,))
        waveform = samples.astype(np.float32) / 32768.0
        sampling_rate = int(wave.contents.sample_rate)
        self._flite.delete_wave(wave)
        return waveform, sampling_rate


def english_letters(text: str) -> str:
    """Writes a text in the characters that flite knows: without accents, with plain quotes and dashes.

    Raises:
        ValueError: If it holds letters of another script, of which there would be no sound.
    """
    plain = unicodedata.normalize("NFKD", text.translate(SPELLED))
    found = "".join(letter for letter in plain if not unicodedata.combining(letter))
    if unknown := [letter for letter in found if letter.isalnum() and not letter.isascii()]:
        allowed = 'English text, or a "spoken" beside the question that says it in English letters'
        raise ValueError(f"flite cannot say {unknown[0]!r} of {text!r}; allowed: {allowed}")
    return "".join(letter if letter.isascii() else " " for letter in found)
