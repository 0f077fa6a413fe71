"""The untouched LLM's scores from disk: the same to the bit, or not used at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import EvaluationSuite, PlainTextLoss, Retention
from textkeep.callbacks.evaluations import score_memory
from textkeep.callbacks.evaluations.item_scorer import ItemScorer, Scores
from textkeep.callbacks.evaluations.score_memory import ScoreMemory
from textkeep.evaluation import text_loss
from textkeep.lightning_modules import FullFineTuning, LoRA, SpeechLLM

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each time that the model reads or writes text; what asked for it is no part of a key."""
    noted: list[str] = []
    read, generate = SpeechLLM.read, SpeechLLM.generate

    def reads(self: SpeechLLM, batch: Any) -> Any:
        noted.append("text" if not len(batch.features) else "speech")
        return read(self, batch)

    def generates(self: SpeechLLM, batch: Any, max_new_tokens: int | None = None) -> list[str]:
        noted.append("text" if not len(batch.features) else "speech")
        return generate(self, batch, max_new_tokens)

    def passages(*args: Any) -> Any:
        noted.append("passages")
        return text_loss.text_losses(*args)

    monkeypatch.setattr(SpeechLLM, "read", reads)
    monkeypatch.setattr(SpeechLLM, "generate", generates)
    monkeypatch.setattr("textkeep.callbacks.evaluations.plain_text_loss.text_losses", passages)
    return noted


@pytest.fixture
def fit(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Callable[..., Path]:
    prose = tmp_path / "prose.txt"
    prose.write_text("The capital of France is Paris.\n\nA user asks.\n")
    data = make_data(tmp_path / "data")

    def run(name: str, cache: str | None, **options: Any) -> Path:
        callbacks = [
            Retention(max_new_tokens=3, untouched_cache=cache),
            EvaluationSuite({"prose": PlainTextLoss(str(prose))}, untouched_cache=cache),
        ]
        trainer = make_trainer(tmp_path / name, callbacks, max_steps=1, limit_val_batches=0)
        trainer.fit(make_model(tiny_llm_dir, tiny_whisper_dir, **options), data)
        return tmp_path / name / "evaluation"

    return run


def records(folder: Path) -> list[Any]:
    files = [folder / "step=000000.jsonl", folder / "prose/step=000000.jsonl"]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_another_run_of_the_same_llm_reads_what_it_would_measure(
    fit: Callable[..., Path], tmp_path: Path, asked: list[str]
) -> None:
    cache = str(tmp_path / "untouched")
    without = records(fit("without", None))
    measured = list(asked)
    asked.clear()
    first = records(fit("first", cache))
    assert asked == measured
    asked.clear()
    second = records(fit("second", cache))
    again = list(asked)
    asked.clear()
    adapted = records(fit("adapted", cache, tuning=LoRA(r=2)))  # another tuning, the same LLM to begin with
    assert without == first == second == adapted
    rest = [what for what in measured if what == "speech"]
    assert rest.count("speech") > 0
    # What comes after the step, at the end of the fit, is measured anew: half of all.
    assert again.count("text") == asked.count("text") == measured.count("text") // 2
    assert again.count("passages") == asked.count("passages") == measured.count("passages") // 2 == 1
    assert again.count("speech") == measured.count("speech")


@pytest.fixture
def model(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> SpeechLLM:
    return make_model(tiny_llm_dir, tiny_whisper_dir).eval()


def known(model: Any, folder: Path, asked: Any = "asked", precision: str = "32-true") -> bool:
    """Whether a memory of this model knows the answer; it does afterwards."""
    memory = ScoreMemory(folder, model, precision)
    assert memory.recall(asked, lambda: [0.1, "a"]) == [0.1, "a"]
    assert (memory.known, memory.new) in ((1, 0), (0, 1))
    return memory.known == 1


def another_weight(model: SpeechLLM) -> None:
    weight = model.llm.model.layers[1].mlp.down_proj.weight.data.view(-1)
    weight[-1] = torch.nextafter(weight[-1], torch.tensor(9.0))


def another_tokenizer(model: SpeechLLM) -> None:
    model.tokenizer.add_tokens(["<another>"])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "one weight by its last bit": another_weight,
    "a buffer": lambda model: model.llm.model.rotary_emb.inv_freq.mul_(1 + 1e-6),
    "type": lambda model: model.llm.bfloat16(),
    "config": lambda model: setattr(model.llm.config, "rms_norm_eps", 1e-5),
    "attention": lambda model: model.llm.set_attn_implementation("eager"),
    "end": lambda model: setattr(model.llm.generation_config, "eos_token_id", [1, 2]),
    "length": lambda model: setattr(model, "max_new_tokens", 5),
    "tokenizer": another_tokenizer,
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_model_is_not_known(name: str, model: SpeechLLM, tmp_path: Path) -> None:
    assert not known(model, tmp_path)
    assert known(model, tmp_path)
    CHANGES[name](model)
    assert not known(model, tmp_path)


def test_another_precision_machine_or_code_is_not_known(
    model: SpeechLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not known(model, tmp_path)
    assert not known(model, tmp_path, precision="bf16-mixed")
    for owner, name, value in (
        (torch, "get_num_threads", lambda: 64),
        (torch.backends.cpu, "get_cpu_capability", lambda: "none"),
        (score_memory, "version", lambda library: "0"),
        (score_memory, "code_of", lambda *parts: "another"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, value)
            assert not known(model, tmp_path), name
    assert known(model, tmp_path)


def test_a_changed_file_of_our_code_counts(model: SpeechLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = score_memory.code_of
    before = code(type(model))
    text = Path.read_text
    changed = lambda path, **options: text(path, **options) + (" " if path.name == "continuation.py" else "")  # noqa: E731
    monkeypatch.setattr(Path, "read_text", changed)
    assert code(type(model)) != before


def test_what_is_asked_counts_with_its_places_and_types(model: SpeechLLM, tmp_path: Path) -> None:
    ids = torch.tensor([[1, 2], [3, 4]])
    questions = [ids, ids.T.contiguous(), ids.view(1, 4), ids.int(), [ids, 1], [ids, 1.0], [ids, "1"], [ids, True]]
    questions += [["a", "b"], ["ab"], ["a", ["b"]], {"a": 1}, {"a": None}, [[ids], 1]]
    assert [known(model, tmp_path, question) for question in questions] == [False] * len(questions)
    assert [known(model, tmp_path, question) for question in questions] == [True] * len(questions)


def test_a_damaged_entry_is_measured_anew_and_what_is_not_finite_is_not_kept(model: Any, tmp_path: Path) -> None:
    assert not known(model, tmp_path)
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_text()
    for damaged in (whole[:-9], whole.replace("0.1", "0.2"), "[]", '{"key": 1}'):
        assert damaged != whole
        file.write_text(damaged)
        assert not known(model, tmp_path)
        assert known(model, tmp_path)
    memory = ScoreMemory(tmp_path, model, "32-true")
    for _ in range(2):
        assert memory.recall("inf", lambda: {"losses": {"a": [float("inf"), 1]}})["losses"]["a"][1] == 1
    assert (memory.known, memory.new) == (0, 2)


def test_data_template_and_batches_count(model: SpeechLLM, tmp_path: Path) -> None:
    """Each change of what is read, or with what beside it, is measured; the same questions again are not."""

    def scored(**options: Any) -> tuple[Scores, int]:
        template = options.pop("template", None)
        data = make_data(tmp_path / "data", **options)
        before, model.tokenizer.chat_template = model.tokenizer.chat_template, template or model.tokenizer.chat_template
        trainer = make_trainer(tmp_path / "run", [])
        trainer.strategy.connect(model)
        model.trainer, data.trainer, trainer.datamodule = trainer, trainer, data  # type: ignore[assignment,attr-defined]
        data.setup("validate")
        memory = ScoreMemory(tmp_path / "memory", model, "32-true")
        with torch.no_grad():
            found = ItemScorer(trainer, model, 3, memory).read(data.eval_pairs("val"), "text", answer=True)
        model.tokenizer.chat_template = before
        assert memory.known == 0 or memory.new == 0
        return found, memory.known

    first, _ = scored()
    assert scored() == (first, 1)
    template = str(model.tokenizer.chat_template).replace("<|im_end|>\n", "<|im_end|>")
    changes: list[dict[str, Any]] = [{"text_instruction": "Answer!"}, {"system": "Be kind."}, {"eval_limit": 3}]
    changes += [
        {"eval_tokens_per_batch": 90},
        {"template": str(template).replace("<|im_start|>assistant", "assistant")},
    ]
    for change in changes:
        assert scored(**change)[1] == 0, change
    assert scored() == (first, 1)


def test_where_it_is_not_sure_it_is_not_used(model: SpeechLLM, tmp_path: Path, tiny_whisper_dir: Path) -> None:
    class Own(FullFineTuning):
        """Somebody's strategy."""

    def of(model: Any, step: int = 0, state: Any = TrainerFn.FITTING, folder: str | None = str(tmp_path)) -> Any:
        trainer: Any = SimpleNamespace(
            state=SimpleNamespace(fn=state), global_step=step, fast_dev_run=False, precision="32-true"
        )
        return ScoreMemory.of_untouched(folder, trainer, model)

    assert of(model) is not None
    assert of(model, folder=None) is None
    assert of(model, step=1) is None
    assert of(model, state=TrainerFn.TESTING) is None
    own = type("OwnModel", (SpeechLLM,), {"__module__": "somebody"})
    model.__class__ = own
    assert of(model) is None
    model.__class__ = SpeechLLM
    model.tuning = Own()
    assert of(model) is None


def test_lora_that_acts_is_not_taken_for_the_untouched_llm(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, model: SpeechLLM, tmp_path: Path
) -> None:
    adapted = make_model(tiny_llm_dir, tiny_whisper_dir, tuning=LoRA(r=2)).eval()
    assert not known(model, tmp_path)
    assert known(adapted, tmp_path)
    up = next(parameter for name, parameter in adapted.llm.named_parameters() if ".lora_B." in name)
    up.data[0, 0] = 1e-30
    assert not known(adapted, tmp_path)
