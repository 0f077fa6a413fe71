"""Losses by teacher forcing, written anew: prompts as text, weights from the checkpoint file, one example alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from textkeep.datamodules import Example
from textkeep.lightning_modules import SpeechLLM

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
INSTRUCTION = "\nPlease directly answer the questions in the user's speech."
SCALE = 2  # LoRA's alpha is twice the rank


def tuned_weights(llm: Any, checkpoint: Path) -> Any:
    """Puts the LLM weights of a checkpoint into the base LLM, in place: W + s BA where there is LoRA."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    parameters = dict(llm.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            own = name.removeprefix("llm.")
            if name.startswith("llm.") and own in parameters:
                parameters[own].copy_(value)
            elif ".lora_A." in name:
                down, up = value, state[name.replace(".lora_A.", ".lora_B.")]
                parameters[f"{own.partition('.lora_A.')[0]}.weight"].add_(SCALE * up @ down)
    return llm


def loss(llm: Any, tokenizer: Any, example: Example, ears: SpeechLLM | None = None) -> float:
    """Mean nats of an example's answer tokens and of what ends the turn.

    Args:
        llm: A plain causal LM.
        tokenizer: Its tokenizer.
        example: The question.
        ears: Encoder and adaptor to hear it with; None reads it.
    """
    answer = f"{example.target}<|im_end|>"
    heard = None if ears is None else hear(ears, example)
    before, after = ("<|im_start|>user\n", TURN.partition("{}")[2]) if ears else ("", TURN.format(example.question))
    if ears is not None:
        after = INSTRUCTION + after
    whole = tokenizer(after + answer, add_special_tokens=False).input_ids
    prompt = tokenizer(after, add_special_tokens=False).input_ids
    assert whole[: len(prompt)] == prompt
    embed = llm.get_input_embeddings()
    parts = [embed(torch.tensor(tokenizer(before, add_special_tokens=False).input_ids, dtype=torch.long))]
    parts += [heard] if heard is not None else []
    parts.append(embed(torch.tensor(whole)))
    with torch.no_grad():
        logits = llm(inputs_embeds=torch.cat(parts)[None].detach()).logits[0].double().log_softmax(-1)
    supervised = len(whole) - len(prompt)
    predicted = logits[-supervised - 1 : -1]
    return -float(predicted[torch.arange(supervised), torch.tensor(whole[-supervised:])].mean())


def hear(ears: SpeechLLM, example: Example) -> Tensor:
    """Gives the speech embeddings (P, H) of an example's clip, which is mono at 16 kHz."""
    samples, rate = soundfile.read(str(example.audio), dtype="float32")
    assert rate == 16000
    features = ears.front_end.extract(torch.from_numpy(samples))[None]
    with torch.no_grad():
        frames, lengths = ears.encoder(features, torch.tensor([features.shape[2]]))
        speech, positions = ears.adaptor(frames, lengths)
    return speech[0, : int(positions[0])]
