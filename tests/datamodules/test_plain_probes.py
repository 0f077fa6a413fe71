"""Probes of plain text: the loss of every token, cut at a length, refusals; the embedded sets by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from textkeep.datamodules import PlainText, Probe, SpeechTextData
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.named import read_sources
from textkeep.importance import probe as measure

from .conftest import EnergyFrontEnd

TEXTS = ("The whale was white, and so was the ship.", "It rained.", "A long time ago there was a king " * 4)


@pytest.fixture
def passages(tmp_path: Path) -> str:
    path = tmp_path / "passages.txt"
    path.write_text("\n\n".join(TEXTS))
    return str(path)


def connected(front_end: EnergyFrontEnd, **arguments: Any) -> SpeechTextData:
    data = SpeechTextData(**arguments)
    data.connect(front_end)
    return data


@pytest.mark.parametrize("tokens", [None, 2, 7])
def test_the_loss_is_that_of_every_token_but_the_first(
    passages: str, front_end: EnergyFrontEnd, tiny_llm_dir: Path, tokens: int | None
) -> None:
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir).eval()
    data = connected(front_end, probes={"p": Probe(passages, examples=3, batch_size=2, tokens=tokens)})
    batches = data.probe_batches("p")
    fields = ("input_ids", "attention_mask", "labels", "ids")
    snapshot = measure(llm, [{name: getattr(batch, name) for name in fields} for batch in batches], ["taylor"])
    texts = {example.id: example.target for example in PlainText(passages).read(BadExamples("raise"))}
    expected = []
    for identity in (identity for batch in batches for identity in batch.ids):
        ids = torch.tensor(front_end.tokenizer(texts[identity])["input_ids"][:tokens])
        with torch.no_grad():
            expected.append(float(cross_entropy(llm(ids[None]).logits[0, :-1], ids[1:])))
    assert snapshot.losses == pytest.approx(expected, rel=1e-4)
    if tokens:
        assert max(batch.input_ids.shape[1] for batch in batches) == tokens


def test_contradictions_are_refused_in_one_line(write_lines: Callable[..., Path], front_end: EnergyFrontEnd) -> None:
    with pytest.raises(ValueError, match=r"probe tokens: 1 \(allowed: at least 2, or null for whole passages\)"):
        Probe("x", tokens=1)
    with pytest.raises(ValueError, match=r"probe tokens: 64 cuts plain text \(allowed: modality text, or no tokens\)"):
        Probe("x", "speech", tokens=64)
    path = str(write_lines({"id": "a", "question": "Q?", "answers": ["x"]}))
    data = connected(front_end, probes={"p": Probe(path, tokens=64), "whole": Probe(path)})
    with pytest.raises(ValueError, match=r"probe tokens: 64 cuts plain text, but 1 of the 1 examples of .* questions"):
        data.probe_batches("p")
    assert len(data.probe_batches("whole")) == 1
    written = connected(front_end, probes={"p": Probe("plain-text/probe", "speech")})
    with pytest.raises(ValueError, match="probe: none of the 150 examples of plain-text/probe has speech"):
        written.probe_batches("p")


def test_the_embedded_sets_are_read_by_name_whole_and_apart() -> None:
    halves = [read_sources(f"plain-text/{name}", BadExamples("raise")) for name in ("probe", "evaluation")]
    assert [len(half) for half in halves] == [150, 150]
    assert all(example.plain and len(example.target.split()) >= 80 for half in halves for example in half)
    targets = [{example.target for example in half} for half in halves]
    assert not targets[0] & targets[1]
    assert not {e.id for e in halves[0]} & {e.id for e in halves[1]}
    with pytest.raises(FileNotFoundError, match="allowed: plain-text/evaluation, plain-text/probe"):
        read_sources("plain-text/test", BadExamples("raise"))
