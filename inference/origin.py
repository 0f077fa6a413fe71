"""Where a model in use comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..foundation.run_names import CHECKPOINTS, step_of
from .run_settings import PROMPT_OPTIONS


@dataclass(frozen=True)
class Origin:
    """What is known of a model besides its weights.

    Attributes:
        name: As given by the user.
        settings: Settings of the data module in its run; empty for a text LLM.
        checkpoint: File of the run that the weights came from, if they did.
        audio_llm: Whether it is somebody's audio LLM, or the text LLM inside one.
        deaf: Why an audio LLM cannot listen here; empty if it can, or is none.
        exported_at: Optimizer step of the run when it was exported, of an export.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    audio_llm: bool = False
    deaf: str = ""
    exported_at: int | None = None

    @property
    def run(self) -> Path | None:
        """The run directory."""
        folder = self.checkpoint.parent if self.checkpoint else None
        return folder.parent if folder is not None and folder.name == CHECKPOINTS else None

    @property
    def step(self) -> int | None:
        """Optimizer step of the checkpoint, where its name says so, or of the export."""
        return step_of(self.checkpoint.name) if self.checkpoint else self.exported_at

    @property
    def prompts(self) -> dict[str, Any]:
        """Prompt settings of the run: a model must be prompted as it was trained."""
        return {key: self.settings[key] for key in PROMPT_OPTIONS if self.settings.get(key) is not None}

    @property
    def data_options(self) -> dict[str, Any]:
        """Prompt settings and the longest clip, which questions to the model must obey."""
        longest = self.settings.get("max_seconds")
        return self.prompts if longest is None else {**self.prompts, "max_seconds": longest}
