"""Replay: its share, its draws, its batches, plain text, exact continuation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textkeep.datamodules import Batch, ChatPrompt, PlainText, Replay, SpeechTextData
from textkeep.datamodules.batches.token_budget_sampler import TokenBudgetSampler
from textkeep.datamodules.sources.bad_examples import BadExamples

from .conftest import EnergyFrontEnd, ManifestMaker
from .test_speech_text_data import rank_of


def connected(front_end: EnergyFrontEnd, **arguments: Any) -> SpeechTextData:
    data = SpeechTextData(**arguments)
    data.connect(front_end)
    return data


@pytest.fixture
def questions(write_lines: Callable[..., Path]) -> str:
    """60 written questions of different lengths."""
    rows = [{"id": f"r{i}", "question": "Why " + "so " * (i % 7) + "?", "answers": ["x"]} for i in range(60)]
    return str(write_lines(*rows, name="replay.jsonl"))


def is_replay(batch: Batch) -> bool:
    return all(identity.startswith("r") for identity in batch.ids)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_a_kind_with_a_share_gives_so_many_rows_whatever_it_has(world: int, share: float) -> None:
    rng = np.random.default_rng(0)
    kinds = ["speech"] * 400 + ["text"] * 200 + ["replay"] * 300
    lengths = rng.integers(10, 100, len(kinds)).tolist()
    ranks = [
        TokenBudgetSampler(lengths, 500, kinds=kinds, rank=r, world_size=world, shares={"replay": share})
        for r in range(world)
    ]
    seen, shares = [], []
    for epoch in range(12):
        batches = [sampler.batches(epoch) for sampler in ranks]
        assert {len(own) for own in batches} == {len(ranks[0])}  # every rank, every epoch
        for step in zip(*batches, strict=True):
            assert len({kinds[i] for batch in step for i in batch}) == 1
        rows = [i for own in batches for batch in own for i in batch]
        replayed = [i for i in rows if kinds[i] == "replay"]
        shares.append(len(replayed) / len(rows))  # batches of short texts hold more of them than others
        assert {i for i in rows if kinds[i] != "replay"} == set(range(600))  # the rest is all there
        seen.append(frozenset(replayed))
    # Whole steps, of up to 10 rows a rank: the share of few rows is coarse.
    assert np.mean(shares) == pytest.approx(share, abs=0.05 * share + 5 * world / 630)
    assert share > 0.3 or len(set(seen)) == 12  # another draw in each epoch
    assert ranks[0].rows("replay") == sum(kinds[i] == "replay" for s in ranks for b in s.batches(0) for i in b)


def test_replayed_questions_are_read_in_batches_of_their_own(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, questions: str
) -> None:
    path = str(make_manifest(40))
    options: dict[str, Any] = {"train_modalities": "speech", "tokens_per_batch": 500}
    data = connected(front_end, train=path, replay=Replay(questions, 0.2), **options)
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = [list(loader), list(loader)]
    for batches in epochs:
        again = [batch for batch in batches if is_replay(batch)]
        rows = sum(map(len, batches))
        assert sum(map(len, again)) / rows == pytest.approx(0.2, abs=0.06)
        assert all(set(batch.modality) == {"text"} for batch in again)
        heard = [i for batch in batches if not is_replay(batch) for i in batch.ids]
        assert sorted(heard) == sorted(f"questions-{i}" for i in range(40))
    drawn = [{i for batch in batches if is_replay(batch) for i in batch.ids} for batches in epochs]
    assert drawn[0] != drawn[1]
    texts = {i for batch in data.training_texts() for i in batch.ids}
    assert texts == {f"questions-{i}" for i in range(40)} | {f"r{i}" for i in range(60)}


def test_a_run_continues_in_mid_epoch(make_manifest: ManifestMaker, front_end: EnergyFrontEnd, questions: str) -> None:
    path = str(make_manifest(20))

    def loader() -> Any:
        return connected(
            front_end, train=path, train_modalities="both", tokens_per_batch=400, replay=Replay(questions, 0.3)
        ).train_dataloader()

    whole = loader()
    epochs = [[batch.ids for batch in whole], [batch.ids for batch in whole]]
    for stop in (1, len(epochs[1]) // 2):
        again = loader()
        again.load_state_dict({**again.state_dict(), "epoch": 1, "batches": stop})
        assert [batch.ids for batch in again] == epochs[1][stop:]


def test_ranks_get_the_same_kind_at_each_step(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, questions: str
) -> None:
    path, ranks = str(make_manifest(21)), []
    for rank in range(2):
        data = connected(
            front_end, train=path, train_modalities="both", tokens_per_batch=400, replay=Replay(questions, 0.3)
        )
        ranks.append(list(rank_of(data, rank, 2).train_dataloader()))
    assert len(ranks[0]) == len(ranks[1])
    assert all((a.modality[0], is_replay(a)) == (b.modality[0], is_replay(b)) for a, b in zip(*ranks, strict=True))
    assert any(is_replay(batch) for batch in ranks[0])


def test_plain_text_is_supervised_whole_and_without_template(
    tmp_path: Path, make_manifest: ManifestMaker, front_end: EnergyFrontEnd
) -> None:
    path = tmp_path / "book.txt"
    path.write_text("The capital of France\nis Paris.\n\n\n" + "one two three four five six seven\n")
    examples = PlainText(str(path), max_words=4).read(BadExamples())
    assert [e.target for e in examples] == [
        "The capital of France",
        "is Paris.",
        "one two three four",
        "five six seven",
    ]
    assert [e.location for e in examples] == [f"{path}:1"] * 2 + [f"{path}:5"] * 2
    data = connected(front_end, train=str(make_manifest(3)), train_modalities="speech", replay=Replay(str(path), 0.5))
    again = [b for b in data.train_dataloader() if b.modality[0] == "text"]
    assert again
    prompt = ChatPrompt(front_end.tokenizer)
    for batch in again:
        for row, example in enumerate(batch.examples):
            ids = prompt.plain(example.target)
            assert batch.input_ids[row][batch.attention_mask[row].bool()].tolist() == ids
            labels = batch.labels[row][batch.attention_mask[row].bool()].tolist()
            assert labels == [-100, *ids[1:]]
            assert front_end.tokenizer.decode(ids) == example.target


def test_lines_with_a_text_are_read_and_others_named(tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl"
    path.write_text('{"text": "Some text."}\n\n{"question": "Q?"}\n{"text": ""}\nno json\n')
    with pytest.raises(ValueError, match=r"wiki\.jsonl:3: no \"text\" in '\{\"question\".*; allowed: objects"):
        PlainText(str(path)).read(BadExamples())
    bad = BadExamples("skip")
    with pytest.warns(UserWarning, match="no text|skipped"):
        found = PlainText(str(path)).read(bad)
    assert [e.target for e in found] == ["Some text."]
    assert bad.counts == {"no text": 2, "bad json": 1}


def test_what_cannot_be_replayed_is_named(tmp_path: Path, front_end: EnergyFrontEnd, questions: str) -> None:
    with pytest.raises(ValueError, match=r"replay\.ratio: 1\.0 \(allowed: between 0 and 1"):
        Replay(questions, 1.0)
    with pytest.raises(ValueError, match=r"PlainText\.path: x\.pdf \(allowed: a \.txt or a \.jsonl file\)"):
        PlainText("x.pdf")
    with pytest.raises(ValueError, match=r"max_words: 0"):
        PlainText("x.txt", max_words=0)
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such text"):
        SpeechTextData(train=questions, replay=Replay(str(tmp_path / "none.txt"))).setup("fit")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt:1: not UTF-8"):
        PlainText(str(tmp_path / "latin.txt")).read(BadExamples())
    (tmp_path / "long.txt").write_text("word " * 90)
    data = connected(
        front_end,
        train=questions,
        train_modalities="text",
        tokens_per_batch=60,
        replay=Replay(str(tmp_path / "long.txt")),
    )
    with pytest.raises(
        ValueError, match=r"long\.txt:1: the example takes \d+ positions; allowed: .*tokens_per_batch = 60"
    ):
        data.train_dataloader()


def test_what_is_replayed_is_logged_and_yaml_builds_it(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, questions: str, tmp_path: Path
) -> None:
    import jsonargparse

    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(SpeechTextData, "data")
    parser.add_argument("--config", action="config")
    (tmp_path / "c.yaml").write_text(
        f"data:\n  train: {make_manifest(20)}\n  train_modalities: speech\n"
        f"  replay: {{source: {{class_path: PlainText, init_args: {{path: {tmp_path}/t.txt}}}}, ratio: 0.1}}\n"
    )
    (tmp_path / "t.txt").write_text("\n\n".join(f"Passage number {i}." for i in range(30)))
    data = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "c.yaml")]))["data"]
    data.connect(front_end)
    logged: list[dict[str, float]] = []
    rank_of(data, 0, 1)
    data.trainer.loggers = [type("Log", (), {"log_metrics": lambda _, m, step: logged.append(m)})()]
    data.trainer.global_step = 0
    loader = data.train_dataloader()
    rows = [i for batch in loader for i in batch.ids]
    replayed = sum(i.startswith("t:") for i in rows)
    assert json.loads(json.dumps(logged)) == [
        {"data/replay_examples": replayed, "data/replay_share": replayed / len(rows)}
    ]
