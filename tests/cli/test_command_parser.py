"""Help texts come from docstrings and are shown without their markup."""

from __future__ import annotations

import argparse

import pytest

from tests.support.house import ROOT
from textkeep.cli.command_parser import CommandParser
from textkeep.cli.training_parser import TrainingParser


@pytest.mark.parametrize("parser", [CommandParser, TrainingParser])
def test_help_is_plain_text(parser: type[argparse.ArgumentParser]) -> None:
    shown = parser(prog="it", description="``--alpha 1`` is as :meth:`call` does it; `in quotes`: 1").format_help()
    assert "--alpha 1 is as `call` does it; `in quotes`: 1" in shown


def test_options_of_commands_cannot_be_abbreviated() -> None:
    parser = CommandParser(prog="it")
    parser.add_argument("--examples")
    assert parser.parse_known_args(["--exam", "1"])[1] == ["--exam", "1"]


def test_every_command_uses_it() -> None:
    files = (ROOT / "cli").rglob("*.py")
    assert [path.name for path in files if "= argparse.ArgumentParser(" in path.read_text(encoding="utf-8")] == []
