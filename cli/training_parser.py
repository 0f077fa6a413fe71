"""The parser of the training verbs: an error is one line that says what is wrong and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ..datamodules import SpeechTextData
from ..lightning_modules import SpeechLLM
from .command_parser import without_markup
from .errors import complain, debugging
from .parse_errors import explain


class TrainingParser(LightningArgumentParser):
    """Lightning's parser without 60 lines of usage before each error (``TEXTKEEP_DEBUG=1`` brings them back)."""

    roots: ClassVar[Mapping[str, type]] = {"trainer": Trainer, "model": SpeechLLM, "data": SpeechTextData}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line and ends the process with 2.

        jsonargparse also creates parsers of this class for nested objects; those must raise, since it catches their
        errors.
        """
        if not self.exit_on_error or debugging():
            super().error(message, ex)
        raise SystemExit(complain(explain(message, self.roots)))

    def format_help(self, *args: Any) -> str:
        """Formats the help, of a class too, as plain text (Python 3.15 passes a formatter)."""
        return without_markup(super().format_help(*args))
