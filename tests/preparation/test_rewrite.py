"""``textkeep rewrite``: the untouched LLM's own answers as targets, clips that stay valid, exact continuation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from textkeep.cli import rewrite
from textkeep.cli.rewrite import main
from textkeep.datamodules import ChatPrompt, Manifest
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.foundation.errors import UserError
from textkeep.lightning_modules.llm import generation
from textkeep.lightning_modules.llm.generation import Written


def question(number: int) -> str:
    return f"What is {'so ' * (number % 4)}number {number}?"


@pytest.fixture(scope="module")
def llm(tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLM, which ends its answers at tokens that it says of its own accord to every other question."""
    folder = tmp_path_factory.mktemp("llm") / "tiny"
    shutil.copytree(tiny_llm_dir, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for matrix in (p for p in model.parameters() if p.dim() == 2):
            matrix.add_(0.4 * torch.randn_like(matrix))  # else it repeats one token
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [torch.tensor([ChatPrompt(tokenizer).text(question(i))]) for i in range(0, 12, 2)]
    said = [model.generate(p, max_new_tokens=5, min_new_tokens=5, do_sample=False)[0, -1] for p in prompts]
    model.generation_config.eos_token_id = sorted({int(token) for token in said})
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "data/clips").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i in range(12):
        (tmp_path / f"data/clips/{i}.wav").write_bytes(b"clip %d" % i)
        rows.append(
            {
                "id": f"q{i}",
                "question": f"What is {'so ' * (i % 4)}number {i}?",
                "answers": [str(i), "x"],
                "target": "T",
            }
        )
        rows[-1] |= {"audio": f"clips/{i}.wav", "seconds": 1.5, "voice": "anna"}
    rows[3]["system"] = "Be short."
    del rows[4]["audio"]
    path = tmp_path / "data/train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(manifest: Path, output: Path, llm: Path, *more: str) -> list[str]:
    shared = ["--device", "cpu", "--max-new-tokens", "12", "--batch-size", "5"]
    return [str(manifest), "-o", str(output), "--llm", str(llm), *shared, *more]


def test_targets_are_the_greedy_answers_and_the_rest_stays(
    manifest: Path, llm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = manifest.with_name("own.jsonl")
    assert main(words(manifest, output, llm)) == 0
    before, after = {row["id"]: row for row in lines(manifest)}, {row["id"]: row for row in lines(output)}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(llm), AutoTokenizer.from_pretrained(llm)
    left_out = 0
    for identity, row in before.items():
        prompt = ChatPrompt(tokenizer).text(row["question"], row.get("system"))
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
        ends = [at for at, i in enumerate(ids.tolist()) if i in model.generation_config.eos_token_id]
        ended = bool(ends)
        text = tokenizer.decode(ids[: ends[0] if ends else None], skip_special_tokens=True).strip()
        if not ended or not text:
            left_out += 1
            assert identity not in after
            continue
        assert after[identity] == {**row, "target": text, "source": "train", "target_by": str(llm)}
    assert len(after) == 12 - left_out > 3
    assert list(after) == [identity for identity in before if identity in after]  # in the order of the manifest
    told = capsys.readouterr().out
    assert f"{output}: {len(after)} of 12 questions (" in told
    assert not list(output.parent.glob("*.part"))
    read = Manifest(str(output)).read(BadExamples())
    assert (
        [e.audio.read_bytes() for e in read if e.audio]
        == [  # type: ignore[union-attr]
            b"clip %d" % int(e.id[1:]) for e in read if e.audio
        ]
    )


def test_what_is_learned_as_the_end_is_a_stop(
    manifest: Path, tiny_llm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"  # whose eos is not what its chat template ends a turn with
    shutil.copytree(tiny_llm_dir, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    ends: list[int | None] = []

    def ended(llm: Any, tokenizer: Any, embeds: Any, mask: Any, longest: int, end_id: int | None = None) -> Written:
        ends.append(end_id)
        return Written(torch.zeros(len(mask), 1), [True] * len(mask), ["x"] * len(mask))

    monkeypatch.setattr(generation, "greedy_tokens", ended)
    assert main(words(manifest, manifest.with_name("own.jsonl"), folder)) == 0
    assert {*ends} == {AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")}


def test_an_interrupted_command_goes_on(manifest: Path, llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, output = manifest.with_name("whole.jsonl"), manifest.with_name("own.jsonl")
    main(words(manifest, whole, llm))
    asked: list[list[str]] = []
    real = rewrite._answers

    def dies(examples: Any, *rest: Any) -> Any:
        asked.append([example.id for example in examples])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(examples, *rest)

    monkeypatch.setattr(rewrite, "_answers", dies)
    with pytest.raises(KeyboardInterrupt):
        main(words(manifest, output, llm))
    part = output.with_name("own.jsonl.part")
    assert not output.exists()
    assert len(lines(part)) == 1 + 5
    with part.open("a") as file:
        file.write('{"id": "q1", "ques')  # killed in the middle of a line
    assert main(words(manifest, output, llm)) == 0
    assert sorted(i for batch in [asked[0], *asked[2:]] for i in batch) == sorted(f"q{i}" for i in range(12))
    assert output.read_text() == whole.read_text()


def test_answers_with_any_character_are_gone_on_with(tmp_path: Path) -> None:
    from textkeep.preparation.rewriting.part_file import Answer, PartFile

    path, settings = tmp_path / "own.jsonl.part", {"llm": "x"}
    answers = [Answer(str(i), "Q?", f"one{end}two", True) for i, end in enumerate("\u2028\u2029\u0085\x0b\x0c\x1c\r\0")]
    with PartFile(path, settings) as part:
        part.add(answers)
    with PartFile(path, settings) as part:
        assert list(part.answers.values()) == answers
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    with pytest.raises(UserError, match=r"own\.jsonl\.part was not written by this command"):
        PartFile(path, settings)


def test_other_settings_do_not_go_on(manifest: Path, llm: Path) -> None:
    output = manifest.with_name("own.jsonl")
    part = output.with_name("own.jsonl.part")
    part.write_text(json.dumps({"settings": {"llm": "another"}}) + "\n")
    with pytest.raises(UserError, match=r"own\.jsonl\.part was begun with .*llm 'another', now '.*tiny'.*remove it"):
        main(words(manifest, output, llm))
    part.write_text("something else\n")
    with pytest.raises(UserError, match=r"own\.jsonl\.part was not written by this command"):
        main(words(manifest, output, llm))


def test_only_correct_answers_are_kept_if_asked(
    manifest: Path, llm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textkeep.preparation.rewriting.part_file import Answer

    def says(examples: Any, *_: Any) -> Any:
        for e in examples:
            number = int(e.id[1:])
            yield Answer(e.id, e.question, f"It is {number}." if number % 2 else "No idea.", number < 10)

    monkeypatch.setattr(rewrite, "_answers", says)
    output = manifest.with_name("own.jsonl")
    assert main(words(manifest, output, llm, "--keep", "correct")) == 0
    assert [row["target"] for row in lines(output)] == [f"It is {i}." for i in (1, 3, 5, 7, 9)]
    told = capsys.readouterr().out
    assert "5 of 12 questions" in told
    assert "5 with an accepted answer" in told
    assert "5 without an accepted answer, left out" in told
    assert "2 not ended within 12 tokens, left out" in told


def test_clips_elsewhere_are_copied_or_refused(manifest: Path, llm: Path, tmp_path: Path) -> None:
    output = tmp_path / "other/own.jsonl"
    with pytest.raises(UserError, match=r"train\.jsonl:1: the clip .*0\.wav is not under .*--copy-clips"):
        main(words(manifest, output, llm))
    assert not output.parent.exists()
    assert main(words(manifest, output, llm, "--copy-clips")) == 0
    read = Manifest(str(output)).read(BadExamples())
    assert len(read) > 3
    for example in read:
        if example.audio is not None:
            assert Path(example.audio).read_bytes() == b"clip %d" % int(example.id[1:])  # type: ignore[arg-type]
    above = tmp_path / "above.jsonl"
    assert main(words(manifest, above, llm)) == 0
    assert all(row["audio"].startswith("data/clips/") for row in lines(above) if "audio" in row)


def test_the_embedded_set_can_be_rewritten(llm: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.jsonl"
    arguments = ["spoken-facts/train", *words(Path(), output, llm, "--copy-clips", "--limit", "8")[1:]]
    assert main(arguments) == 0
    read = Manifest(str(output)).read(BadExamples())
    assert read
    assert all(Path(e.audio).stat().st_size > 500 for e in read)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"-o": "{folder}/train.jsonl"}, r"-o .*train\.jsonl exists; allowed: a new name, or --overwrite"),
        ({"-o": "{folder}/x.json"}, r"x\.json is not a \.jsonl file"),
        ({"manifest": "{folder}/text.txt"}, r"text\.txt has no written questions"),
        ({"--llm": "{folder}/nothing"}, r"nothing cannot be loaded"),
    ],
)
def test_bad_input_is_one_line(manifest: Path, llm: Path, change: dict[str, str], message: str) -> None:
    (manifest.parent / "text.txt").write_text("Some text.")
    asked = {"manifest": str(manifest), "-o": str(manifest.with_name("o.jsonl")), "--llm": str(llm), "--device": "cpu"}
    asked |= {key: value.format(folder=manifest.parent) for key, value in change.items()}
    arguments = [asked.pop("manifest"), *[word for pair in asked.items() for word in pair]]
    with pytest.raises(ValueError, match=message):
        main(arguments)


def test_the_chat_template_gets_its_options(
    manifest: Path, llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = tmp_path / "marked"
    shutil.copytree(llm, marked)
    tokenizer = AutoTokenizer.from_pretrained(marked)
    tokenizer.chat_template = "{{ mood if mood is defined else '' }}" + tokenizer.chat_template
    tokenizer.save_pretrained(marked)
    asked: list[str] = []

    def note(llm: Any, tokenizer: Any, embeds: Any, mask: Any, *_: Any) -> Written:
        table = llm.get_input_embeddings().weight
        ids = [int((table - row).abs().sum(dim=1).argmin()) for row in embeds[0][mask[0].bool()]]
        asked.append(tokenizer.decode(ids))
        return Written(torch.zeros(len(embeds), 1), [True] * len(embeds), ["x"] * len(embeds))

    monkeypatch.setattr(generation, "greedy_tokens", note)
    output = manifest.with_name("own.jsonl")
    assert main(words(manifest, output, marked, "--template-options", '{"mood": "Gladly."}')) == 0
    assert asked
    assert all(text.startswith("Gladly.<|im_start|>") for text in asked)
    for wrong in ("[1]", "{mood: glad}"):
        with pytest.raises(SystemExit):
            main(words(manifest, output, marked, "--overwrite", "--template-options", wrong))
        assert "is not a JSON object; allowed: e.g." in capsys.readouterr().err
