"""How well-known LLMs lay out their conversations, on tiny tokenizers of the same build as theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "What is the capital of France?\n\nThe capital of France is Paris.\n",
    "user system assistant model INST Human Assistant\n\n  two  \n\n\nPlease directly answer the questions in the",
    "123 456 speech. You are a helpful assistant\n",
] * 4


def byte_level(specials: list[AddedToken], split: str | None = None) -> Tokenizer:
    """GPT-2's build, or with another regular expression (Llama 3's, Qwen's)."""
    tokenizer = Tokenizer(models.BPE())
    pieces: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        pieces.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(specials)
    return tokenizer


LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama3_like(specials: list[AddedToken]) -> Tokenizer:
    """Byte-level BPE with three digits and line feeds together."""
    return byte_level(specials, LLAMA3_SPLIT)


def _byte_fallback(normalizer: Any, pre_tokenizer: Any, specials: list[AddedToken]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    own = ["<unk>", *[f"<0x{i:02X}>" for i in range(256)]]
    words = [" " + word for text in CORPUS for word in text.split()] * 20
    tokenizer.train_from_iterator(words + CORPUS, trainers.BpeTrainer(vocab_size=520, special_tokens=own))
    bare = Tokenizer.from_str(_without_added(tokenizer.to_str()))
    if normalizer is None:
        bare.normalizer = None  # type: ignore[assignment]
    else:
        bare.normalizer = normalizer
    if pre_tokenizer is not None:
        bare.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bare.decoder = decoders.Sequence(steps)
    bare.add_special_tokens([AddedToken("<unk>", normalized=False, special=True), *specials])
    return bare


def _without_added(text: str) -> str:
    """The byte tokens are part of the vocabulary, as in Llama 2's file, and no added ones."""
    import json

    return json.dumps({**json.loads(text), "added_tokens": []})


def legacy_sentencepiece(specials: list[AddedToken]) -> Tokenizer:
    """Llama 2's first build: a word mark before every stretch between special tokens."""
    mark = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _byte_fallback(mark, None, specials)


def sentencepiece(specials: list[AddedToken]) -> Tokenizer:
    """Its later build: a word mark at the very beginning only."""
    return _byte_fallback(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), specials)


def gemma_like(specials: list[AddedToken]) -> Tokenizer:
    """No word mark before a text."""
    return _byte_fallback(normalizers.Replace(" ", "▁"), None, specials)


def unigram(specials: list[AddedToken]) -> Tokenizer:
    """A Unigram model, words apart, with a word mark everywhere."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    alphabet = sorted({*"".join(CORPUS), *"你好🎉'<>b{}|[]/xOkt:#▁"})
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(specials)
    return tokenizer


@dataclass(frozen=True)
class Layout:
    """A chat template and its tokenizer.

    Args:
        template: Retyped, shortened to what a question and its answer need.
        build: The tokenizer's kind.
        specials: Its special tokens.
        eos: The end-of-sequence token of the tokenizer, which need not be what ends a turn.
        end: What ends an answer.
        bos: The beginning-of-sequence token.
        strips: Special tokens that take white space from their right (Phi-3's).
        lead: What the model says before an answer.
        system: Whether the template takes a system prompt.
        opens_thought: Whether the generation prompt has what a conversation has not.
        prints_end: Whether the template prints the end after the last turn.
        options: More variables of the template.
    """

    template: str
    build: Callable[[list[AddedToken]], Tokenizer]
    specials: list[str]
    eos: str
    end: str
    bos: str | None = None
    strips: bool = False
    lead: str = ""
    system: bool = True
    opens_thought: bool = False
    prints_end: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def tokenizer(self) -> Any:
        """A fast tokenizer of transformers with the template."""
        from transformers import PreTrainedTokenizerFast

        added = [AddedToken(text, rstrip=self.strips, normalized=False, special=True) for text in self.specials]
        named = {"eos_token": self.eos} | ({"bos_token": self.bos} if self.bos else {})
        made = PreTrainedTokenizerFast(tokenizer_object=self.build(added), **named)
        made.chat_template = self.template
        return made


_CHATML_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_CHATML = _CHATML_TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_GEMMA = (
    "{{ bos_token }}"
    + _NO_SYSTEM
    + "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set ms = messages[1:] %}{% set sys = '<<SYS>>\n' + messages[0].content "
    "+ '\n<</SYS>>\n\n' %}{% else %}{% set ms = messages %}{% set sys = '' %}{% endif %}{% for m in ms %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (sys if loop.first else '') + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}"
    + _NO_SYSTEM
    + "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
_ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
_GRANITE = (
    "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
_DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<\uff5cUser\uff5c>' + m.content }}"
    "{% elif m.role == 'assistant' %}"
    "{{ '<\uff5cAssistant\uff5c>' + m.content.split('</think>')[-1] + '<\uff5cend▁of▁sentence\uff5c>' }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c>' }}"
)
_GLM4 = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% set content = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{{ ('<think>\n\n</think>\n\n' if loop.last else '') + content }}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
_VICUNA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}{% elif m.role == 'user' %}"
    "{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_TURNS = ["<start_of_turn>", "<end_of_turn>"]
_HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_PHI = ["<s>", "</s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
_SEEK = [
    "<\uff5cbegin▁of▁sentence\uff5c>",
    "<\uff5cend▁of▁sentence\uff5c>",
    "<\uff5cUser\uff5c>",
    "<\uff5cAssistant\uff5c>",
]
_GLM = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"]
_ROLES = ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]
_GIST = {"eos": "</s>", "bos": "<s>", "end": "</s>"}

LAYOUTS: dict[str, Layout] = {
    "smollm2": Layout(_CHATML, byte_level, _IM, "<|im_end|>", "<|im_end|>", "<|im_start|>"),
    "qwen2.5-base": Layout(_CHATML, llama3_like, _IM, "<|endoftext|>", "<|im_end|>"),
    "chatml-unigram": Layout(_CHATML, unigram, _IM, "<|im_end|>", "<|im_end|>"),
    "gemma": Layout(
        _GEMMA, gemma_like, ["<pad>", "<eos>", "<bos>", *_TURNS], "<eos>", "<end_of_turn>", "<bos>", system=False
    ),
    "llama-3": Layout(
        _LLAMA3, llama3_like, ["<|bot|>", "<|end_of_text|>", *_HEADERS], "<|end_of_text|>", "<|eot_id|>", "<|bot|>"
    ),
    "llama-2": Layout(_LLAMA2, legacy_sentencepiece, ["<s>", "</s>"], **_GIST),
    "llama-2-later": Layout(_LLAMA2, sentencepiece, ["<s>", "</s>"], **_GIST),
    "mistral-1": Layout(_MISTRAL, legacy_sentencepiece, ["<s>", "</s>"], **_GIST, system=False),
    "mistral-3": Layout(_MISTRAL, sentencepiece, ["<s>", "</s>", "[INST]", "[/INST]"], **_GIST, system=False),
    "mistral-3-legacy": Layout(
        _MISTRAL, legacy_sentencepiece, ["<s>", "</s>", "[INST]", "[/INST]"], **_GIST, system=False
    ),
    "tinyllama": Layout(_ZEPHYR, legacy_sentencepiece, ["<s>", "</s>"], **_GIST),
    "zephyr": Layout(_ZEPHYR, sentencepiece, ["<s>", "</s>"], **_GIST),
    "phi-3": Layout(_PHI3, legacy_sentencepiece, _PHI, "<|endoftext|>", "<|end|>", "<s>", strips=True),
    "phi-4": Layout(_PHI4, llama3_like, ["<|im_sep|>", *_IM], "<|endoftext|>", "<|im_end|>"),
    "granite": Layout(_GRANITE, byte_level, _ROLES, "<|end_of_text|>", "<|end_of_text|>"),
    "deepseek-v3": Layout(_DEEPSEEK + "{% endif %}", llama3_like, _SEEK, _SEEK[1], _SEEK[1], _SEEK[0]),
    "deepseek-r1": Layout(
        _DEEPSEEK + "{{ '<think>\n' }}{% endif %}", llama3_like, _SEEK, _SEEK[1], _SEEK[1], _SEEK[0], opens_thought=True
    ),
    "glm-4": Layout(_GLM4, llama3_like, _GLM, "<|endoftext|>", "<|user|>", prints_end=False),
    "qwen3": Layout(_QWEN3, llama3_like, _IM, "<|im_end|>", "<|im_end|>", lead="<think>\n\n</think>\n\n"),
    "qwen3-off": Layout(_QWEN3, llama3_like, _IM, "<|im_end|>", "<|im_end|>", options={"enable_thinking": False}),
    "vicuna": Layout(_VICUNA, legacy_sentencepiece, ["<s>", "</s>"], **_GIST, lead=" "),
}
"""By model family."""
