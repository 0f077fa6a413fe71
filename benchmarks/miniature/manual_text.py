"""Paragraphs of Python's own language reference, for the miniature study: long text, far from questions and answers.

    python benchmarks/miniature/manual_text.py data/miniature/manual.txt

They come with every Python (``pydoc_data``, PSF licence). The study's figures are from CPython 3.11.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

from textkeep.foundation.files import replacing

ITEMS = 120
CHARACTERS = range(300, 701)


def paragraphs() -> list[str]:
    """Paragraphs of prose, without code and tables, in an order unrelated to their subject."""
    blocks = (" ".join(block.split()) for text in topics.values() for block in re.split(r"\n\s*\n", text))
    prose = {b for b in blocks if len(b) in CHARACTERS and sum(c.isalpha() or c in " ,." for c in b) > 0.95 * len(b)}
    found = sorted(prose)
    random.Random(0).shuffle(found)
    return found[:ITEMS]


if __name__ == "__main__":
    with replacing(Path(sys.argv[1])) as temporary:
        temporary.write_text("\n\n".join(paragraphs()) + "\n", encoding="utf-8")
