"""Recorded speech with its transcripts, from Debian packages, as a manifest with clips beside it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ASTERISK, SPHINX = "asterisk-core-sounds-en", "pocketsphinx-testdata"
SHORTEST, LONGEST = 0.2, 30.0  # seconds
RAW_WORDS = {"goforward.raw": "go forward ten meters", "something.raw": "go somewhere and do something"}


def build_recorded_speech(packages: Mapping[str, Path], out: Path) -> None:
    """Writes ``manifest.jsonl`` and ``clips/``: prompts of a telephone system, read sentences, cards, commands.

    Args:
        packages: Unpacked packages by name.
        out: Folder of the asset.
    """
    import soundfile

    (out / "clips").mkdir()
    lines = []
    for name, source, words, facts in [*_asterisk(packages), *_sphinx(packages[SPHINX])]:
        clip = out / "clips" / f"{name}.wav"
        if source.suffix == ".raw":  # 16 kHz, 16 bit, little endian
            samples, _ = soundfile.read(
                source, samplerate=16000, channels=1, format="RAW", subtype="PCM_16", endian="LITTLE", dtype="int16"
            )
            soundfile.write(clip, samples, 16000, subtype="PCM_16")
        else:
            shutil.copyfile(source, clip)
        seconds = soundfile.info(clip).duration
        if not SHORTEST <= seconds <= LONGEST:
            clip.unlink()
            continue
        row = {"id": name, "question": words, "answers": [words], "target": words, "audio": f"clips/{clip.name}"}
        lines.append({**row, **facts, "seconds": round(seconds, 3)})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (out / "manifest.jsonl").write_text(text, encoding="utf-8")


Clip = tuple[str, Path, str, dict[str, Any]]


def _asterisk(packages: Mapping[str, Path]) -> Iterator[Clip]:
    """Yields prompts spoken by Allison Smith, 8 kHz; those whose text is not plain words are left out."""
    texts = packages[ASTERISK] / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    sounds = packages[f"{ASTERISK}-wav"] / "usr/share/asterisk/sounds/en_US_f_Allison"
    facts = {"speaker": "allison", "source": ASTERISK, "licence": "CC-BY-SA-3.0"}
    with gzip.open(texts, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = re.match(r"([\w/.-]+): (.+)", line.strip())
            if not match:
                continue
            words, clip = match.group(2).replace("...", "").strip(), sounds / f"{match.group(1)}.wav"
            spoken = re.search(r"[A-Za-z]{2}", words) and not re.search(r"[\[\]<>()]", words)
            if spoken and clip.is_file():
                yield f"asterisk-{match.group(1).replace('/', '-')}", clip, words, facts


def _sphinx(package: Path) -> Iterator[Clip]:
    """Yields sentences of a LibriVox reading, playing cards, and two commands, at 16 kHz."""
    data = package / "usr/share/pocketsphinx/test/data"
    facts = {"source": SPHINX, "licence": "BSD-2-Clause"}
    for folder, name in (("librivox", "transcription"), ("cards", "cards.transcription")):
        for line in (data / folder / name).read_text(encoding="utf-8").splitlines():
            match = re.match(r"<s>(.*)</s> \((.+)\)", line.strip())
            clip = data / folder / f"{match.group(2)}.wav" if match else None
            if match and clip is not None and clip.is_file():
                yield f"{folder}-{match.group(2)}", clip, match.group(1).strip(), {"speaker": folder, **facts}
    for name, words in RAW_WORDS.items():
        yield Path(name).stem, data / name, words, {"speaker": Path(name).stem, **facts}
