"""Words as a plain reader writes them, a voice spells them, and a search compares them."""

from __future__ import annotations

import re
import unicodedata


def plain(text: str) -> str:
    """Writes a text in ASCII, as a plain reader would (``Bogotá`` becomes ``Bogota``)."""
    text = text.replace("\u02bb", "'").replace("\u2019", "'").replace("&", "and")
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().strip()


def spelled(symbol: str) -> str:
    """Spells a chemical symbol as a voice does (``Fe`` becomes ``F E``)."""
    return " ".join(symbol.upper())


def capitalised(text: str) -> str:
    """Puts a text's first letter in upper case and leaves the others."""
    return text[:1].upper() + text[1:]


def words_of(text: str) -> list[str]:
    """Splits a text into lower-case words; an inner apostrophe is part of a word, a hyphen divides."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def contains_name(text: str, name: str) -> bool:
    """Returns whether the words of ``name`` occur in a row in ``text``, whatever their case."""
    return f" {' '.join(words_of(name))} " in f" {' '.join(words_of(text))} "
