"""English text to the phonemes that Kokoro reads, through the espeak-ng library.

Follows the text front end of kokoro-js (Apache-2.0): espeak-ng between punctuation marks, which stay, and some letters
of its alphabet replaced by Kokoro's.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

PUNCTUATION = ';:,.!?\u00a1\u00bf\u2014\u2026"\u00ab\u00bb\u201c\u201d(){}[]'
REPLACED = (("ʲ", "j"), ("r", "ɹ"), ("x", "k"), ("ɬ", "l"), ("_", ""))
HUNDRED = re.compile(r"(?<=[a-zɹː])(?=hˈʌndɹɪd)")  # noqa: RUF001 (these letters are phonemes)
NINETY = re.compile(r"(?<=nˈaɪn)ti(?!ː)")  # noqa: RUF001
NO_SOUND, UTF8, IPA = 2, 1, 2
"""Constants of espeak-ng's ``speak_lib.h``: AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_UTF8, espeakPHONEMES_IPA."""


class Phonemizer:
    """Pronunciation of English text."""

    def __init__(self, folder: Path):
        """Start espeak-ng.

        Args:
            folder: Holds ``libespeak-ng.so`` and ``espeak-ng-data``.

        Raises:
            FileNotFoundError: If the library is not there.
            ValueError: If it does not start.
        """
        path = folder / "libespeak-ng.so"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `textkeep assets kokoro`")
        self._library = ctypes.CDLL(str(path))
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = str(folder / "espeak-ng-data").encode()
        if self._library.espeak_Initialize(NO_SOUND, 0, data, 0) <= 0:
            raise ValueError(f"espeak-ng did not start with the data in {folder / 'espeak-ng-data'}")

    def _clause(self, text: str, language: str) -> str:
        if self._library.espeak_SetVoiceByName(language.encode()) != 0:
            raise ValueError(f"espeak-ng has no language {language!r}")
        buffer = ctypes.create_string_buffer(text.encode())
        position = ctypes.c_void_p(ctypes.addressof(buffer))
        found = []
        while position.value:  # one clause a call; null at the end
            phonemes = self._library.espeak_TextToPhonemes(ctypes.byref(position), UTF8, IPA)
            if phonemes:
                found.append(phonemes.decode().strip())
        return " ".join(found)

    def __call__(self, text: str, british: bool = False) -> str:
        """Phonemes of a text.

        Args:
            text: Plain English.
            british: Whether a British speaker says it.

        Returns:
            International phonetic alphabet with the text's punctuation.
        """
        text = re.sub(r"(?<=\d),(?=\d)", "", text.replace("\u2019", "'"))
        pieces = []
        for piece in re.split(rf"(\s*[{re.escape(PUNCTUATION)}]+\s*)", text):
            if not piece.strip():
                pieces.append(" " if piece else "")
            elif piece.strip()[0] in PUNCTUATION:
                pieces.append(piece)
            else:
                pieces.append(self._clause(piece, "en" if british else "en-us"))
        phonemes = "".join(pieces)
        for old, new in REPLACED:
            phonemes = phonemes.replace(old, new)
        phonemes = HUNDRED.sub(" ", phonemes)
        phonemes = re.sub(rf" z(?=[{re.escape(PUNCTUATION)} ]|$)", "z", phonemes)
        return phonemes.strip() if british else NINETY.sub("di", phonemes).strip()
