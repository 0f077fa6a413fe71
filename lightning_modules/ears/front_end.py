"""What a data module needs to know of a model: tokenizer, features, and how many positions a clip takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .adaptors import Adaptor
from .encoders import SpeechEncoder
from .position_count import PositionCount


@dataclass(frozen=True)
class FrontEnd:
    """The model's side of the data pipeline; pickled without weights, so that it costs worker processes little.

    Attributes:
        tokenizer: The LLM's tokenizer, with its chat template.
        sampling_rate: What the encoder expects, in Hz.
        feature_dim: C, rows of a feature matrix (mel bins; 1 for raw waveforms).
        positions_per_second: LLM positions that one second of speech takes.
        extract: Waveform (samples,) to features (C, F), at the clip's true length.
        num_positions: Feature length F to the number of LLM positions of the clip, at least 1.
        text_twins: Whether speech rows must come with their text twins.
        vocabulary: Token ids that have an embedding; None while the LLM's weights are not loaded.
    """

    tokenizer: PreTrainedTokenizerBase
    sampling_rate: int
    feature_dim: int
    positions_per_second: float
    extract: Callable[[Tensor], Tensor]
    num_positions: Callable[[int], int]
    text_twins: bool = False
    vocabulary: int | None = None
    _encoder: SpeechEncoder | None = field(default=None, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Names the encoder's weights and settings, for cached frames; hashed when it is asked for.

        Raises:
            RuntimeError: After it was pickled.
            ValueError: If the encoder trains: frames kept on disk would be those of its start.
        """
        if self._encoder is None:
            raise RuntimeError("a front end that was pickled knows no weights")
        if any(parameter.requires_grad for parameter in self._encoder.parameters()):
            raise ValueError(
                "data.feature_cache keeps the frames of a frozen encoder, and this one trains: set "
                "data.feature_cache to null, or model.tuning.init_args.train_encoder to false"
            )
        return self._encoder.fingerprint

    def __getstate__(self) -> dict[str, object]:
        """Leaves out the encoder, whose weights no worker process should get."""
        return {**self.__dict__, "_encoder": None}

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        encoder: SpeechEncoder,
        adaptor: Adaptor,
        text_twins: bool,
        vocabulary: int | None = None,
    ) -> FrontEnd:
        """Makes the front end of a model; needs no weights."""
        return cls(
            tokenizer=tokenizer,
            sampling_rate=encoder.sampling_rate,
            feature_dim=encoder.feature_dim,
            positions_per_second=encoder.frame_rate / adaptor.stack,
            extract=encoder.extractor(),
            num_positions=PositionCount(encoder.length_rule(), adaptor.length_rule()),
            text_twins=text_twins,
            vocabulary=vocabulary,
            _encoder=encoder,
        )
