"""SpeechLLM: splicing, losses, generation, freezing, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.speech_batches import make_batch
from textkeep.foundation.assets import resolve
from textkeep.lightning_modules import AdaptorOnly, ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.losses.answer_loss import splice
from textkeep.lightning_modules.saving.frozen_state import check_frozen, drop_frozen


def test_answer_losses_equal_transformers_own_loss(model: SpeechLLM) -> None:
    batch = make_batch(model.eval(), [40, None, 73])
    losses, tokens = model.answer_losses(batch)
    inputs = model.embed(batch)
    for row in range(3):
        one = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        theirs = model.llm(**one).loss
        assert losses[row].item() / tokens[row].item() == pytest.approx(theirs.item(), rel=1e-4)
    assert tokens.tolist() == [2, 3, 4]


def test_speech_stands_where_the_mask_says(model: SpeechLLM) -> None:
    batch = make_batch(model.eval(), [40, None, 73])
    embeds = model.embed(batch)["inputs_embeds"]
    speech, lengths = model.speech_embeddings(batch)
    expected = torch.cat([speech[0, : lengths[0]], speech[1, : lengths[1]]])
    torch.testing.assert_close(embeds[batch.audio_mask], expected)
    table = model.llm.get_input_embeddings()
    torch.testing.assert_close(embeds[~batch.audio_mask], table(batch.input_ids[~batch.audio_mask]))


def test_splice_refuses_a_wrong_count() -> None:
    with pytest.raises(ValueError, match="reserves 3 positions for speech, but the adaptor made 2"):
        splice(torch.zeros(1, 4, 2), torch.zeros(1, 2, 2), torch.tensor([2]), torch.tensor([[True, True, True, False]]))


def test_a_row_does_not_depend_on_its_batch(model: SpeechLLM) -> None:
    model.eval()
    both = make_batch(model, [40, 73])
    first = make_batch(model, [40])
    torch.testing.assert_close(model.answer_losses(both)[0][0], model.answer_losses(first)[0][0], rtol=1e-4, atol=1e-4)


def test_batched_generation_equals_one_by_one(model: SpeechLLM) -> None:
    model.eval()
    together = model.generate(make_batch(model, [40, None, 73], left=True))
    alone = model.generate(make_batch(model, [40], left=True))
    assert len(together) == 3
    assert together[0] == alone[0]


def test_text_only_batch_gives_speech_parameters_a_zero_gradient(model: SpeechLLM) -> None:
    losses, _ = model.answer_losses(make_batch(model, [None, None]))
    losses.sum().backward()
    for parameter in model.adaptor.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() == 0


def test_gradient_checkpointing_changes_no_gradient(model: SpeechLLM) -> None:
    batch = make_batch(model, [40, None])
    model.train()
    model.answer_losses(batch)[0].sum().backward()
    plain = [p.grad.clone() for p in model.llm.parameters()]
    model.zero_grad()
    model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.answer_losses(batch)[0].sum().backward()
    for before, parameter in zip(plain, model.llm.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, before)


def test_frozen_parts_stay_in_eval_mode_and_groups_cover_everything(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    module = SpeechLLM(str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16), AdaptorOnly())
    module.configure_model()
    module.train()
    assert module.adaptor.training
    assert not module.llm.training
    assert not module.encoder.training
    assert not any(p.requires_grad for p in module.llm.parameters())
    groups = module.tuning.parameter_groups(module.llm, module.encoder, module.adaptor)
    assert [group.name for group in groups] == ["adaptor"]


def test_full_fine_tuning_groups_hold_each_parameter_once(model: SpeechLLM) -> None:
    groups = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    assert [g.name for g in groups] == ["adaptor", "llm.00", "llm.01", "llm.other"]
    seen = [id(p) for group in groups for p in group.parameters]
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(seen) == len(set(seen))
    assert set(seen) == wanted


def test_checkpoint_holds_what_was_trained_and_checks_the_rest(model: SpeechLLM) -> None:
    checkpoint = {"state_dict": dict(model.state_dict())}
    drop_frozen(checkpoint, model)
    assert not any(name.startswith("encoder.") for name in checkpoint["state_dict"])
    assert any(name.startswith("llm.") for name in checkpoint["state_dict"])
    check_frozen(checkpoint, model)
    with torch.no_grad():
        model.encoder.net.conv1.weight.add_(1)
    with pytest.raises(ValueError, match="other frozen weights"):
        check_frozen(checkpoint, model)
    del checkpoint["state_dict"]["adaptor.input.bias"]
    with pytest.raises(ValueError, match=r"'adaptor.input.bias' is missing in it"):
        check_frozen(checkpoint, model)


def test_missing_asset_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"run `textkeep assets whisper-tiny\.en`"):
        resolve("asset:whisper-tiny.en")
