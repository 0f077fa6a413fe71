"""Ids of texts that are alike in most of their parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT = 4096
_TRIED = "a b\n {0}a\n {0} b{0}{0}\n\nA\u4f60 1 "


class PieceTokenizer:
    """Tokenizes texts as the tokenizer does, but each piece of them only once.

    A special token separates the text before and after it: nothing merges across it. A conversation is therefore
    tokenized in pieces that begin with one, and the pieces that all conversations share come from memory. A tokenizer
    for which this does not hold receives its texts whole; so does one whose tokens take white space from before them.

    Args:
        tokenizer: Adds no special tokens itself here: templates print the beginning of a sequence themselves.
        sample: A text as they are going to be; the special tokens in it begin the pieces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sample: str) -> None:
        self.tokenizer = tokenizer
        self._memory: dict[str, list[int]] = {}
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
        inner = "\n".join(token.content[1:] for token in added)  # a piece must not begin within a longer token
        plain = [
            token.content
            for token in added
            if token.special and token.content in sample and token.content not in inner
            if not (token.lstrip or token.single_word or token.normalized)
        ]
        alternatives = "|".join(re.escape(text) for text in sorted(plain, key=len, reverse=True))
        self._begin = re.compile(f"(?={alternatives})") if plain else None
        tried = [sample, *map(_TRIED.format, plain)]
        if self(tried) != self._whole(tried):
            self._begin = None
            self._memory.clear()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text."""
        if self._begin is None:
            return self._whole(texts)
        split = [[piece for piece in self._begin.split(text) if piece] for text in texts]
        new = list({piece: None for pieces in split for piece in pieces if piece not in self._memory})
        known = self._memory
        if new:
            found = dict(zip(new, self._whole(new), strict=True))
            known = self._memory | found if len(found) > _KEPT else self._remembered(found)
        return [[i for piece in pieces for i in known[piece]] for pieces in split]

    def _remembered(self, found: dict[str, list[int]]) -> dict[str, list[int]]:
        """Adds new findings; if that is too much, the oldest half is then dropped."""
        known = self._memory
        known.update(found)
        if len(known) > 2 * _KEPT:
            self._memory = dict(list(known.items())[_KEPT:])
        return known

    def _whole(self, texts: Sequence[str]) -> list[list[int]]:
        ids = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [list(row) for row in ids]
