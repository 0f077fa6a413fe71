from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.trainer.states import TrainerFn

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import (
    Cascade,
    ChoicesByLetter,
    ChoicesByLikelihood,
    EvaluationSuite,
    InstructionFollowing,
    PlainTextLoss,
    Refusals,
    SpeechRecognition,
    TextBenchmarks,
)
from textkeep.callbacks.evaluations.gathered_scorer import GatheredScorer
from textkeep.callbacks.evaluations.item_scorer import exchange_clips
from textkeep.evaluation import Prediction, paired_difference, qa_match, read_predictions


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def choice_rows(folder: Path) -> list[dict[str, Any]]:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for index in range(5):
        clip = f"clips/choice-{index}.wav"
        noise = np.random.default_rng(index).standard_normal(16000 // 2)
        soundfile.write(folder / clip, 0.1 * noise, 16000)
        options = ["one", "two and a half", "three"]
        row = {"id": f"c{index}", "question": f"How many is {index}?", "answers": ["one"], "audio": clip}
        rows.append({**row, "choices": options, "gold": index % 3, "category": "count"})
    return rows


@pytest.fixture
def run(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Any:
    """(model, data, run directory); ``data.sets`` has ``choices``, with clips."""
    folder = tmp_path / "sets"
    path = write_lines_in(folder, "choices.jsonl", choice_rows(folder))
    data = make_data(tmp_path / "data", sets={"choices": str(path)})
    return make_model(tiny_llm_dir, tiny_whisper_dir), data, tmp_path / "run"


def write_lines_in(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write_lines(folder / name, rows)


def scorer_of(run: Any, **options: Any) -> GatheredScorer:
    """A scorer as the callback makes it, of a model that was not trained."""
    model, data, folder = run
    trainer = make_trainer(folder, [], **options)
    trainer.strategy.connect(model)
    model.trainer, data.trainer = trainer, trainer
    trainer.datamodule = data
    model.eval()
    return GatheredScorer(trainer, model, max_new_tokens=3)


def test_likelihoods_are_those_of_single_answers(run: Any) -> None:
    model, data, _ = run
    with torch.no_grad():
        records = ChoicesByLikelihood("choices").measure(scorer_of(run), "choices").records
    assert sorted((r.id, r.modality) for r in records) == [(f"c{i}", m) for i in range(5) for m in ("speech", "text")]
    examples = {example.id: example for example in data.evaluation_set("choices")}
    for record in records:
        prompt = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": record.question}], tokenize=False, add_generation_prompt=True
        )
        if record.modality == "text":
            for option, score in zip(record.choices, record.scores, strict=True):
                head = model.tokenizer(prompt, add_special_tokens=False)["input_ids"]
                tail = model.tokenizer(option + "<|im_end|>", add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logits = model.llm(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
                total = sum(float(logits[len(head) + i - 1, token]) for i, token in enumerate(tail))
                assert score == pytest.approx(total, rel=1e-4)
        gold = examples[record.id].metadata["gold"]
        assert record.correct == (int(np.argmax(record.scores)) == gold)
        assert record.prediction == record.choices[int(np.argmax(record.scores))]
        assert record.loss == pytest.approx(-record.scores[gold] / record.tokens)


def test_spoken_options_differ_from_written_ones(run: Any) -> None:
    with torch.no_grad():
        records = ChoicesByLikelihood("choices").measure(scorer_of(run), "choices").records
    by_modality = {m: [r.scores for r in records if r.modality == m] for m in ("speech", "text")}
    assert by_modality["speech"] != by_modality["text"]


def test_the_exchange_is_the_right_option_with_another_clip(run: Any, tmp_path: Path) -> None:
    """Against a manifest in which the clips were exchanged by hand."""
    _, data, _ = run
    rows = choice_rows(tmp_path / "sets")
    with torch.no_grad():
        records = ChoicesByLikelihood("choices", exchange=True).measure(scorer_of(run), "choices").records
        plain = ChoicesByLikelihood("choices").measure(scorer_of(run), "choices").records
    assert [record.scores for record in records] == [record.scores for record in plain]
    swapped = {e.id: e.audio.name for e in exchange_clips(data.evaluation_set("choices"), seed=0)}
    own = {row["id"]: Path(row["audio"]).name for row in rows}
    assert sorted(swapped.values()) == sorted(own.values())
    assert all(swapped[identity] != own[identity] for identity in own)
    by_hand = [{**row, "audio": f"clips/{swapped[row['id']]}"} for row in rows]
    path = write_lines_in(tmp_path / "sets", "swapped.jsonl", by_hand)
    with torch.no_grad():
        expected = ChoicesByLikelihood(str(path)).measure(scorer_of(run), "swapped").records
    right = {record.id: float(record.correct or 0) for record in expected if record.modality == "speech"}
    spoken = [record for record in records if record.modality == "speech"]
    assert {record.id: record.figures["right_with_another_clip"] for record in spoken} == right
    assert all(not record.figures for record in (*plain, *records) if record not in spoken)


def choice_record(identity: str, modality: str, correct: bool, other: bool | None = None) -> Prediction:
    figures = {} if other is None else {"right_with_another_clip": float(other)}
    return Prediction(identity, modality, correct=correct, figures=figures)


def test_what_the_clip_adds_and_what_the_ear_loses_are_differences_of_the_same_items() -> None:
    """Ten items, by hand: 8 right when written, 6 when heard, 3 with another's clip (one of them not when heard)."""
    written = [choice_record(f"c{i}", "text", i < 8) for i in range(10)]
    spoken = [choice_record(f"c{i}", "speech", i < 6, other=i in (0, 1, 9)) for i in range(10)]
    summary = ChoicesByLikelihood().summarize(spoken + written[::-1], [])
    assert summary.values["speech_exchanged_accuracy"] == pytest.approx(0.3)
    assert summary.values["speech_hearing_gain"] == pytest.approx((4 + 0 - 1) / 10)
    assert summary.values["speech_minus_text"] == pytest.approx(-2 / 10)
    ears = paired_difference([i in (0, 1, 9) for i in range(10)], [i < 6 for i in range(10)])
    assert summary.intervals["speech_hearing_gain"] == (ears.low, ears.high)
    lost = paired_difference([i < 8 for i in range(10)], [i < 6 for i in range(10)])
    assert summary.intervals["speech_minus_text"] == (lost.low, lost.high)
    alone = ChoicesByLikelihood().summarize(written, []).values
    assert not {"speech_exchanged_accuracy", "speech_hearing_gain", "speech_minus_text"} & set(alone)


def test_bytes_normalise_by_length(run: Any) -> None:
    with torch.no_grad():
        records = ChoicesByLikelihood("choices", normalisation="bytes").measure(scorer_of(run), "choices").records
    for record in records:
        scaled = [s / len(c.encode()) for s, c in zip(record.scores, record.choices, strict=True)]
        assert record.prediction == record.choices[int(np.argmax(scaled))]


def test_letters_are_asked_in_writing_only(run: Any) -> None:
    with torch.no_grad():
        records = ChoicesByLetter("choices").measure(scorer_of(run), "choices").records
    assert [r.modality for r in records] == ["text"] * 5
    assert (
        records[1].question
        == "How many is 1?\nA. one\nB. two and a half\nC. three\nAnswer with the letter of the right option."
    )
    assert [r.answers for r in records] == [("A",), ("B",), ("C",), ("A",), ("B",)]


def test_a_set_with_letters_in_its_questions_is_asked_in_both_modalities(run: Any, tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("id", "question", "audio")} for row in choice_rows(tmp_path / "sets")]
    path = write_lines_in(tmp_path / "sets", "voicebench.jsonl", [{**row, "answers": ["b"]} for row in rows])
    evaluation = ChoicesByLetter(str(path))
    with torch.no_grad():
        records = evaluation.measure(scorer_of(run), "mmsu").records
    assert {(r.modality, r.answers) for r in records} == {("speech", ("B",)), ("text", ("B",))}
    assert 0 <= evaluation.summarize(records, []).values["speech_named"] <= 1


def test_the_suite_scores_at_the_start_every_so_many_steps_and_at_the_end(run: Any, tmp_path: Path) -> None:
    model, data, folder = run
    harmful = write_lines_in(
        tmp_path / "sets", "harmful.jsonl", [{"id": f"h{i}", "question": f"Do {i}."} for i in range(3)]
    )
    evaluations = {
        "choices": ChoicesByLikelihood("choices"),
        "prose": PlainTextLoss(limit=6),
        "refusals": Refusals(str(harmful), max_new_tokens=2),
        "hearing": SpeechRecognition("choices", max_new_tokens=2),
    }
    suite = EvaluationSuite(evaluations, every_n_steps=2)  # type: ignore[arg-type]
    trainer = make_trainer(folder, [suite], max_epochs=-1, max_steps=5, limit_val_batches=0)
    trainer.fit(model, data)
    keys = {"choices": "text_accuracy", "prose": "perplexity", "refusals": "text_accuracy", "hearing": "wer"}
    for name, key in keys.items():
        lines = [json.loads(x) for x in (folder / "evaluation" / name / "summary.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [0, 2, 4, 5]
        value = lines[-1][f"val/{name}/{key}"]
        low, high = lines[-1]["intervals"][f"val/{name}/{key}"]
        assert low <= value <= high
        assert read_predictions(folder / "evaluation" / name / "step=000005.jsonl")
    assert "val/prose/loss_change" in lines_of(folder, "prose")[-1]
    assert lines_of(folder, "prose")[-1]["val/prose/loss_change"] != 0
    trainer = make_trainer(folder, [EvaluationSuite({"prose": PlainTextLoss(limit=3)})])
    trainer.test(model, data, verbose=False)
    assert (folder / "evaluation" / "test" / "prose" / "summary.jsonl").is_file()


def test_a_suite_may_be_left_out_of_tests(run: Any) -> None:
    """It neither measures nor refuses what a test would replace."""
    model, data, folder = run
    kept = folder / "evaluation" / "test" / "prose" / "step=000000.jsonl"
    for in_tests, measured in ((False, False), (True, True), (False, True)):
        suite = EvaluationSuite({"prose": PlainTextLoss(limit=3)}, in_tests=in_tests)
        trainer = make_trainer(folder, [suite])
        trainer.test(model, data, verbose=False)
        assert kept.is_file() is measured
        trainer.state.fn = TrainerFn.TESTING
        assert (suite.would_lose(trainer) is not None) is in_tests


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (folder / "evaluation" / name / "summary.jsonl").read_text().splitlines()]


def test_training_with_the_suite_is_bit_identical(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    states = []
    for name in ("without", "with"):
        model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data")
        suite = EvaluationSuite(
            {"choices": ChoicesByLikelihood(limit=2), "prose": PlainTextLoss(limit=2)}, every_n_steps=1
        )
        trainer = make_trainer(tmp_path / name, [suite] if name == "with" else [], max_steps=3, limit_val_batches=0)
        trainer.fit(model, data)
        states.append({key: value.clone() for key, value in model.state_dict().items()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EvaluationSuite({}), "names fit for a folder"),
        (lambda: EvaluationSuite({"a/b": PlainTextLoss()}), "names fit for a folder"),
        (lambda: EvaluationSuite({"a": PlainTextLoss()}, every_n_steps=0), "every_n_steps"),
        (lambda: ChoicesByLikelihood(normalisation="words"), "allowed: none, bytes"),  # type: ignore[arg-type]
        (lambda: Refusals("x", max_new_tokens=0), "at least 1"),
    ],
)
def test_wrong_settings_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_set_that_is_not_there_is_named(run: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl.*or a name of data.sets \(choices\)"):
        Refusals("nowhere.jsonl").measure(scorer_of(run), "x")
    with pytest.raises(FileNotFoundError, match="no file nowhere"):
        PlainTextLoss("nowhere.txt").measure(scorer_of(run), "x")


def test_a_line_without_options_is_named(run: Any, tmp_path: Path) -> None:
    path = write_lines_in(tmp_path / "sets", "bad.jsonl", [{"id": "a", "question": "b", "choices": ["c"], "gold": 0}])
    with pytest.raises(ValueError, match=r'bad.jsonl:1: "choices" is \[\'c\'\]; allowed: a list of two'):
        ChoicesByLikelihood(str(path)).measure(scorer_of(run), "x")


@pytest.fixture
def recogniser(tmp_path: Path, tiny_whisper_dir: Path, tiny_tokenizer: Any) -> Path:
    """The tiny Whisper with a tokenizer, so that it can write down what it hears."""
    folder = tmp_path / "recogniser"
    shutil.copytree(tiny_whisper_dir, folder)
    tiny_tokenizer.save_pretrained(folder)
    generation = {"decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 0, "is_multilingual": False}
    generation |= {"no_timestamps_token_id": 60, "max_length": 40}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_the_cascade_asks_the_untouched_llm_what_the_recogniser_heard(run: Any, recogniser: Path) -> None:
    model, data, _ = run
    scorer = scorer_of(run)
    untouched = copy.deepcopy(model.llm)
    with torch.no_grad():
        for parameter in model.llm.parameters():
            parameter.add_(torch.randn_like(parameter))
        evaluation = Cascade(str(recogniser))
        records = evaluation.measure(scorer, "cascade").records
        tuned = scorer.responses(data.eval_pairs(), "text")
        model.llm = untouched  # the model as it was: its answers are the expected ones
        expected = scorer.responses(data.eval_pairs(), "text")
    written = {r.id: r for r in records if r.modality == "text"}
    assert {r.id: r.prediction for r in written.values()} == expected
    assert expected != tuned
    spoken = {r.id: r for r in records if r.modality == "speech"}
    assert spoken.keys() == written.keys()
    for record in spoken.values():
        assert record.transcript is not None
        assert record.figures["words"] == len(record.question.split())
        assert record.correct == qa_match(record.prediction or "", record.answers)
    assert evaluation.summarize(records, []).values["wer"] > 0.5  # random weights


def test_text_benchmarks_generate_greedily(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from textkeep.callbacks.evaluations import text_benchmarks
    from textkeep.evaluation.text_benchmarks import BenchmarkScores

    model, data, _ = run
    model.llm.generation_config.update(repetition_penalty=1.1, do_sample=True, eos_token_id=0)
    met: list[Any] = []

    def benchmarks(llm: Any, *_: Any) -> BenchmarkScores:
        met.append(llm.generation_config)
        return BenchmarkScores()

    monkeypatch.setattr(text_benchmarks, "run_benchmarks", benchmarks)
    TextBenchmarks(["any"]).measure(scorer_of(run), "any")
    assert (met[0].repetition_penalty, met[0].do_sample) == (None, False)
    assert met[0].eos_token_id == [0, data.end_id]
    assert data.end_id == model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.llm.generation_config.repetition_penalty == 1.1


needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval")


@needs_lm_eval
def test_the_shipped_instructions_are_asked_in_writing(run: Any) -> None:
    evaluation = InstructionFollowing("spoken-facts/instructions", max_new_tokens=2, limit=4)
    with torch.no_grad():
        records = evaluation.measure(scorer_of(run), "instructions").records
    assert [record.modality for record in records] == ["text"] * 4
    assert all(record.figures["instructions"] == 1 for record in records)


@pytest.mark.slow
@needs_lm_eval
def test_instructions_and_text_benchmarks_in_the_suite(run: Any, tmp_path: Path) -> None:
    model, data, folder = run
    rows = [
        {"id": "i0", "question": "Be brief.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {
            "id": "i1",
            "question": "Say much.",
            "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
            "kwargs": [{"num_words": 500, "relation": "at least"}, None],
        },
    ]
    path = write_lines_in(tmp_path / "sets", "ifeval.jsonl", rows)
    evaluations = {
        "ifeval": InstructionFollowing(str(path), max_new_tokens=3),
        "benchmarks": TextBenchmarks(["textkeep_general"], limit=12),
    }
    suite = EvaluationSuite(evaluations)  # type: ignore[arg-type]
    trainer = make_trainer(folder, [suite], max_epochs=-1, max_steps=2, limit_val_batches=0)
    trainer.fit(model, data)
    line = lines_of(folder, "ifeval")[-1]
    assert line["val/ifeval/text_accuracy"] <= 0.5
    assert line["val/ifeval/text_strict_instructions"] <= line["val/ifeval/text_loose_instructions"]
    line = lines_of(folder, "benchmarks")[-1]
    assert line["step"] == 2
    assert line["items"] == 12
    records = read_predictions(folder / "evaluation" / "benchmarks" / "step=000002.jsonl")
    assert line["val/benchmarks/textkeep_general/acc"] == sum(bool(r.correct) for r in records) / 12
    assert "val/benchmarks/text_accuracy_change" in line


def test_plain_text_is_also_scored_by_kind(run: Any, tmp_path: Path) -> None:
    kinds = ("prose", "verse", "prose", "verse", "prose")
    rows = [{"id": f"{i}", "text": f"It {'really ' * i}rained.", "kind": kind} for i, kind in enumerate(kinds)]
    evaluation = PlainTextLoss(str(write_lines_in(tmp_path / "sets", "kinds.jsonl", rows)))
    records = evaluation.measure(scorer_of(run), "kinds").records
    before = [replace(record, loss=(record.loss or 0) - 0.1 * (i + 1)) for i, record in enumerate(records)]
    values = evaluation.summarize(records, before).values
    for kind in ("prose", "verse"):
        tokens = [r.tokens for r in records if r.category == kind]
        losses = [r.loss for r in records if r.category == kind]
        assert values[f"loss_{kind}"] == pytest.approx(np.average(losses, weights=tokens))
        changes = [0.1 * (i + 1) for i in range(5) if kinds[i] == kind]
        assert values[f"loss_change_{kind}"] == pytest.approx(np.average(changes, weights=tokens))
    assert "loss_prose" not in evaluation.summarize([replace(r, category="") for r in records], []).values
    few = PlainTextLoss("plain-text/evaluation", limit=15).measure(scorer_of(run), "x").records
    assert len(few) == 15
    assert len({record.category for record in few}) == 5  # not the first ones of the file, which are of one kind


def test_the_perplexity_of_a_model_that_diverged_is_a_number() -> None:
    summary = PlainTextLoss().summarize([Prediction(str(i), "text", loss=900.0 + i, tokens=8) for i in range(9)], [])
    assert summary.values["loss"] == 904
    found = summary.interval("perplexity")
    assert 1e300 < found.low <= found.estimate <= found.high < np.inf
