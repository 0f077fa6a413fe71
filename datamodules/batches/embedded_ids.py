"""Whether the LLM has an embedding for every token of a text."""

from __future__ import annotations

from collections.abc import Sequence

from ..sources.bad_examples import BadExampleError
from .front_end import ProcessingFrontEnd, SpeechFrontEnd


def check_embedded(ids: Sequence[int], front_end: SpeechFrontEnd, location: str) -> None:
    """Refuses ids beyond the LLM's embedding: a look-up of them fails, on a GPU without a word about the text.

    Some tokenizers know tokens that their LLM does not (Gemma 3's text models lack the image token), and a user's text
    may hold one. A text that holds the token which stands for sound in an audio LLM is refused too.

    Raises:
        BadExampleError: With the token and the place of the text.
    """
    if isinstance(front_end, ProcessingFrontEnd) and front_end.audio_id in ids:
        token = front_end.tokenizer.convert_ids_to_tokens(front_end.audio_id)
        detail = f"{token!r} stands for a position of sound; allowed: a text without it"
        raise BadExampleError("token of sound in a text", location, detail)
    rows = front_end.vocabulary
    if rows is None or max(ids, default=0) < rows:
        return
    number = next(i for i in ids if i >= rows)
    token = front_end.tokenizer.convert_ids_to_tokens(number)
    detail = f"{token!r} is token {number}, and the LLM has embeddings of {rows}; allowed: a text without it"
    raise BadExampleError("token without an embedding", location, detail)
