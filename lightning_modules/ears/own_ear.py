"""An audio LLM's own ear: its processor, encoder and projector, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ...foundation.assets import resolve
from ...foundation.files import follow_umask
from ..contract import Batch, SpeechModel
from ..llm.carving import carve
from ..llm.lora_layers import lora_layers
from ..llm.opening import hears, open_audio_llm, read_config
from ..llm.own_lora import OwnLoRA, merge_own_lora, named_in, take_own_lora
from ..llm.packed_embeddings import text_embeddings
from ..llm.pretrained import weights_are_read
from ..llm.remote_code import has_own_code, open_remote_audio_llm, read_remote_config
from ..llm.vocabulary import prepared
from ..losses.answer_loss import zero_through
from .ear import Ear
from .front_end import FrontEnd
from .interception import decoder_inputs
from .processor import AudioProcessor, ProcessorFrontEnd
from .sound_parts import SoundPart, divide


class OwnEar(Ear):
    """Hears as the audio LLM of ``model.llm`` does: its processor, encoder and projector, by transformers' own code.

    The LLM that trains is the audio LLM's decoder; encoder and projector are ``model.encoder`` and ``model.adaptor``
    for tuning strategies. Weights that see or speak are left alone.

    Args:
        processor: Hub id or folder of the processor; None takes what came with the audio LLM.
        adaptor_modules: Shell patterns over the audio LLM's modules that make the adaptor, such as
            ``["*.audio_tower.layers.31"]``; None takes its projector.
        own_lora: What becomes of LoRA that the audio LLM came with and that acts on sound alone (Granite Speech):
            ``gate`` trains it on, behind the gate of ``model.tuning: LoRA``, and text stays that of the text LLM bit
            for bit; ``merge`` folds it into the text LLM, so that text meets it too. None refuses what has some.
        trust_remote_code: Run the code that came with an audio LLM of a kind that transformers does not know: whoever
            wrote it can do all that you can. Without, it is refused.

    Raises:
        ValueError: If ``own_lora`` is something else.
    """

    of_audio_llm = True

    def __init__(
        self,
        processor: str | None = None,
        adaptor_modules: Sequence[str] | None = None,
        own_lora: Literal["gate", "merge"] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if own_lora not in (None, "gate", "merge"):
            raise ValueError(f"OwnEar: own_lora '{own_lora}' is unknown; allowed: gate, merge, null")
        self.processor_source = processor
        self.adaptor_modules = adaptor_modules
        self.own_lora = own_lora
        self.trust_remote_code = trust_remote_code
        self._lora: dict[str, OwnLoRA] = {}
        self._processor: AudioProcessor | None = None
        self._whole: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the model: settings of a module are pickled into the checkpoints of Python users."""
        return {**vars(self), "_processor": None, "_whole": None, "_lora": {}}

    def parts(self, encoder: nn.Module | None, adaptor: nn.Module | None) -> tuple[Any, Any]:
        """Returns two empty modules, which :meth:`begin` fills."""
        given = {"encoder": encoder, "adaptor": adaptor}
        for name in [name for name, part in given.items() if part is not None]:
            raise ValueError(f"model.{name}: OwnEar brings the audio LLM's own; allowed: null, or no model.ear")
        return SoundPart(), SoundPart()

    def tokenizer(self, llm: str) -> PreTrainedTokenizerBase:
        """Loads the processor and returns its tokenizer."""
        source = resolve(self.processor_source or llm)
        try:
            remote = self.trust_remote_code and has_own_code(resolve(llm))
            if not hears(read_remote_config(resolve(llm)) if remote else read_config(resolve(llm))):
                raise ValueError(
                    "it is no audio LLM; allowed: one, or model.encoder and model.adaptor without model.ear"
                )
            self._processor = AudioProcessor(source, remote)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"model.llm: '{llm}' cannot be heard with: {reason}") from error
        return prepared(self._processor.tokenizer, llm)

    def open(self, source: str, dtype: torch.dtype, **options: Any) -> Any:
        """Loads the audio LLM and returns the text LLM inside, which shares its weights.

        Raises:
            ValueError: If it brings LoRA and ``own_lora`` does not say what for, weights are to be packed, or none are
                read.
        """
        if not weights_are_read():
            raise ValueError(
                "an audio LLM cannot be planned from its configuration alone; allowed: textkeep plan --run"
            )
        if options:
            raise ValueError(
                f"model.tuning: {', '.join(options)} is not supported with OwnEar; allowed: LoRA without it"
            )
        whole = self._load(source, dtype)
        if lora_layers(whole) and self.own_lora is None:
            raise ValueError(
                f"model.llm: '{source}' brings LoRA that acts on sound alone; allowed: model.ear.init_args.own_lora: "
                "gate, which trains it on and leaves text alone, or merge, which lets text meet it too"
            )
        if self.own_lora == "merge":
            merge_own_lora(whole)
        taken = take_own_lora(whole)
        llm = carve(whole)
        self._lora = named_in(llm, taken)
        whole.requires_grad_(False)
        self._whole = whole.eval()
        return llm

    def brought_lora(self) -> Mapping[str, OwnLoRA]:
        """Returns LoRA that the audio LLM came with, for sound alone, by the names of the text LLM's matrices."""
        return self._lora

    def untouched(self, source: str, dtype: torch.dtype) -> Any:
        """Loads the audio LLM again and returns only the text LLM inside."""
        whole = self._load(source, dtype)
        if self.own_lora == "merge":
            merge_own_lora(whole)
        return carve(whole).eval()

    def _load(self, source: str, dtype: torch.dtype) -> Any:
        if self.trust_remote_code and has_own_code(source):
            return open_remote_audio_llm(source, dtype)
        return open_audio_llm(source, read_config(source), dtype)

    def begin(self, model: SpeechModel) -> None:
        """Hands encoder and projector over."""
        parts = cast(SoundPart, model.encoder), cast(SoundPart, model.adaptor)
        divide(self._whole, model.llm, *parts, self.adaptor_modules)

    def front_end(self, model: SpeechModel, text_twins: bool) -> FrontEnd:
        """Returns what a data module needs to know; needs no weights."""
        assert self._processor is not None
        rows = None if model.llm is None else model.llm.get_input_embeddings().weight.shape[0]
        return ProcessorFrontEnd.of_processor(self._processor, model.tokenizer, text_twins, rows)

    def encode(self, model: SpeechModel, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns no frames.

        Raises:
            ValueError: Always.
        """
        raise ValueError("an audio LLM's own ear gives positions of the LLM, no frames; allowed: speech_embeddings")

    def positions(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the batch's clips as LLM input embeddings (N, P, H) and their real lengths (N,)."""
        width = model.llm.get_input_embeddings().weight.shape[1]
        embeds = self.embed(model, batch)["inputs_embeds"][..., :width]
        spoken = batch.audio_mask.any(dim=1)
        clips = [row[mask] for row, mask in zip(embeds[spoken], batch.audio_mask[spoken], strict=True)]
        if not clips:
            return embeds.new_zeros(0, 0, embeds.shape[-1]), batch.feature_lengths
        return nn.utils.rnn.pad_sequence(clips, batch_first=True), batch.audio_mask[spoken].sum(dim=1)

    def embed(self, model: SpeechModel, batch: Batch) -> dict[str, Tensor]:
        """Lets the audio LLM merge sound and text, up to its decoder."""
        if batch.inputs:
            embeds = decoder_inputs(self._whole, self._inputs(model, batch), model.llm)
        else:
            embeds = text_embeddings(model.llm, batch.input_ids)
        if torch.is_grad_enabled():  # a family may leave a part of its encoder out, and text leaves out all of it
            embeds = embeds + zero_through([model.encoder, model.adaptor], embeds)
        return {"inputs_embeds": embeds, "attention_mask": batch.attention_mask, "labels": batch.labels}

    def _inputs(self, model: SpeechModel, batch: Batch) -> dict[str, Tensor]:
        assert self._processor is not None
        ids = batch.input_ids.masked_fill(batch.audio_mask, self._processor.audio_id)
        dtype = next(model.encoder.parameters()).dtype
        heard = {n: value.to(dtype) if value.is_floating_point() else value for n, value in batch.inputs.items()}
        return {"input_ids": ids, "attention_mask": batch.attention_mask, **heard}

    def whole(self, llm: Any) -> Any:
        """Returns the audio LLM."""
        return self._whole

    def save(self, folder: Path, model: SpeechModel) -> None:
        """Writes the processor."""
        assert self._processor is not None
        self._processor.processor.save_pretrained(folder)
        follow_umask(folder)
