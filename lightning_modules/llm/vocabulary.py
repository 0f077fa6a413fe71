"""The tokenizer of an LLM, and whether the two match."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...foundation.assets import resolve
from .pretrained import reading_from

_NAMED = ("bos_token", "eos_token", "pad_token")


def load_tokenizer(llm: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of an LLM for conversations; without a padding token it pads with its end token.

    Args:
        llm: Hub id, folder or ``asset:`` name.

    Raises:
        ValueError: If it cannot be read, has no chat template, or no end-of-sequence token.
    """
    path = resolve(llm)
    with reading_from("model.llm", llm):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    return prepared(tokenizer, llm)


def prepared(tokenizer: PreTrainedTokenizerBase, llm: str) -> PreTrainedTokenizerBase:
    """Prepares a tokenizer for conversations; without a padding token it pads with its end token.

    Args:
        tokenizer: Changed in place.
        llm: Where it came from, for messages.

    Raises:
        ValueError: If it has no chat template or no end-of-sequence token.
    """
    if tokenizer.chat_template is None:
        raise ValueError(f"model.llm: '{llm}' has no chat template; take an instruction-tuned model")
    if tokenizer.eos_token is None:
        raise ValueError(
            f"model.llm: the tokenizer of '{llm}' has no end-of-sequence token; "
            "allowed: one with eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_vocabulary(llm: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuses a tokenizer with tokens in use that lack an embedding (``[PAD]`` added to Llama 2's, but not to its LLM).

    Tokens that never occur in a conversation may lie beyond the embedding, like the image token of Gemma 3's text
    models.

    Args:
        llm: Any Hugging Face causal LM, with its weights.
        tokenizer: The one in its folder.
        name: Of the model, for the message.

    Raises:
        ValueError: If there are such tokens; the message lists them.
    """
    rows = llm.get_input_embeddings().weight.shape[0]
    named = {getattr(tokenizer, attribute) for attribute in _NAMED}
    template = str(tokenizer.chat_template or "")
    beyond = {
        token: number
        for token, number in tokenizer.get_added_vocab().items()
        if number >= rows and (token in named or token in template)
    }
    if beyond:
        listed = ", ".join(f"{token!r} is {number}" for token, number in sorted(beyond.items(), key=lambda p: p[1]))
        raise ValueError(
            f"{name}: the tokenizer has ids that the LLM's embedding lacks ({listed}; it has {rows} rows); "
            "allowed: a tokenizer without them, or an LLM saved after resize_token_embeddings(len(tokenizer))"
        )


def check_same_ids(
    ours: PreTrainedTokenizerBase,
    theirs: PreTrainedTokenizerBase,
    texts: Iterable[str],
    ids: Collection[int],
    names: tuple[str, str],
) -> None:
    """Refuses two tokenizers that tokenize the same text differently: measurements on it cannot be compared.

    Args:
        ours: Of the model that the ids were made for.
        theirs: Of the other one.
        texts: Texts to compare on.
        ids: Ids in the batches, the chat template's included; each must stand for the same token.
        names: Of the two models, for the message.

    Raises:
        ValueError: With the first text or token that differs.
    """
    for text in texts:
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (ours, theirs))
        if first != second:
            at = next(i for i in range(len(first) + 1) if first[i : i + 1] != second[i : i + 1])
            one, other = first[at : at + 1], second[at : at + 1]
            raise ValueError(
                f"{names[0]} and {names[1]} write the same text with other ids ({ours.decode(one)!r} is {one} in the "
                f"first, where the second has {other}); allowed: two models of one tokenizer"
            )
    for number in sorted(ids):
        tokens = [tokenizer.convert_ids_to_tokens(number) for tokenizer in (ours, theirs)]
        if tokens[0] != tokens[1]:
            raise ValueError(
                f"{names[0]} and {names[1]} have other tokens (id {number} is {tokens[0]!r} in the first and "
                f"{tokens[1]!r} in the second); allowed: two models of one tokenizer"
            )
