"""Config files named on the command line, read before the parser reads them: it would not say which one is broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from ..foundation.errors import UserError
from ..foundation.json_lines import require_text
from ..foundation.text_lines import read_text

FLAGS = ("--config", "-c")
GZIP = b"\x1f\x8b"  # data may be compressed, but the parser reads a config as it is


def check_config_files(argv: list[str]) -> None:
    """Refuses a config file that does not exist or is not a YAML mapping.

    Args:
        argv: The options of a training verb.

    Raises:
        UserError: With the file, the line and YAML's message.
        ValueError: If a file is not text.
    """
    for path in config_files(argv):
        if not path.is_file():
            raise UserError(f"{path}: no such config file")
        with path.open("rb") as file:
            if file.read(2) == GZIP:
                raise UserError(f"{path}: compressed with gzip; allowed: a YAML file as plain text")
        try:
            content = yaml.safe_load(read_text(path))
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise UserError(f"{path}{line}: {error.problem}") from error
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not a YAML file ({error})") from error
        require_text(content, str(path))
        if not isinstance(content, dict):
            raise UserError(f"{path}: not a config; allowed: keys such as trainer:, model:, data:")


def config_files(argv: list[str]) -> Iterator[Path]:
    """Yields the values of ``--config FILE``, ``--config=FILE`` and ``-c FILE``; the parser tells of a missing one."""
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag in FLAGS and (given := value if equals else following):
            yield Path(given)
