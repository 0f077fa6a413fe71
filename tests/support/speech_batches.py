"""Batches for a small SpeechLLM."""

from __future__ import annotations

import torch

from textkeep.datamodules.batches.batch import Batch, Examples
from textkeep.lightning_modules import SpeechLLM


def make_batch(model: SpeechLLM, clips: list[int | None], left: bool = False) -> Batch:
    """Rows with random text; ``clips`` gives each row's feature length, or None for a text row."""
    generator = torch.Generator().manual_seed(1)
    front_end = model.front_end
    rows, labels, audio, features = [], [], [], []
    for index, length in enumerate(clips):
        head = torch.randint(3, 300, (3 + index,), generator=generator)
        answer = torch.randint(3, 300, (2 + index,), generator=generator)
        positions = 0 if length is None else front_end.num_positions(length)
        ids = torch.cat([head, torch.zeros(positions, dtype=torch.long), answer])
        mask = torch.zeros(len(ids), dtype=torch.bool)
        mask[len(head) : len(head) + positions] = True
        rows.append(ids)
        audio.append(mask)
        labels.append(torch.where(torch.arange(len(ids)) >= len(ids) - len(answer), ids, -100))
        if length is not None:
            features.append(torch.randn(front_end.feature_dim, length, generator=generator))

    def pad(values: list[torch.Tensor], fill: int) -> torch.Tensor:
        size = max(len(v) for v in values)
        room = [(size - len(v), 0) if left else (0, size - len(v)) for v in values]
        return torch.stack([torch.nn.functional.pad(v, r, value=fill) for v, r in zip(values, room, strict=True)])

    longest = max((f.shape[1] for f in features), default=0)
    stacked = torch.zeros(len(features), front_end.feature_dim, longest)
    for index, feature in enumerate(features):
        stacked[index, :, : feature.shape[1]] = feature
    return Batch(
        input_ids=pad(rows, 0),
        attention_mask=pad([torch.ones_like(r) for r in rows], 0),
        labels=pad(labels, -100),
        audio_mask=pad(audio, 0).bool(),
        features=stacked,
        feature_lengths=torch.tensor([f.shape[1] for f in features], dtype=torch.long),
        transcripts=torch.full((len(features), 2), 7),
        ids=[str(i) for i in range(len(rows))],
        modality=["text" if c is None else "speech" for c in clips],
        examples=Examples(),
    )
