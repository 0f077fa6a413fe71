"""The command ``textkeep`` itself: dispatch, messages, exit codes, start-up cost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.support.report_run import write_run
from textkeep.cli import loading
from textkeep.cli.main import VERBS, Verb, main
from textkeep.foundation.errors import INTERRUPTED

MODULE = __name__


def fine(argv: list[str]) -> int:
    return 0


def waits(argv: list[str]) -> int:
    for _ in range(0 if "quick" in argv else 1 + ("twice" in argv)):
        import_module(loading.LARGE)
        sys.modules.pop(loading.LARGE)
    return 0


def interrupted(argv: list[str]) -> int:
    raise KeyboardInterrupt


def complaining(argv: list[str]) -> int:
    raise ValueError(f"manifest.jsonl:12: empty answer\nin {argv[0]}")


def defective(argv: list[str]) -> int:
    return argv.no_such_attribute  # type: ignore[attr-defined]


@pytest.fixture
def extra_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textkeep_test_verbs", sys.modules[MODULE])
    for name in ("interrupted", "complaining", "defective"):
        monkeypatch.setitem(VERBS, name, Verb(f"textkeep_test_verbs:{name}", ""))
    monkeypatch.setitem(VERBS, "absent", Verb(".no_such_module:main", ""))


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in VERBS)


@pytest.mark.parametrize("argv", [[], ["-h"], ["help"]])
def test_asking_for_nothing_shows_the_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "usage: textkeep VERB" in capsys.readouterr().out


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"textkeep {version('textkeep')}\n"


def test_ctrl_c_during_an_import_ends_at_once_whatever_the_library_makes_of_it(tmp_path: Path) -> None:
    library = """
        import os, signal
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
        except KeyboardInterrupt:
            raise AttributeError("half an extension module")
        def main(argv): return 0
    """
    (tmp_path / "importing_verb.py").write_text(dedent(library), encoding="utf-8")
    named = "VERBS['slow'] = Verb('importing_verb:main', '')"
    start = f"import sys; from textkeep.cli.main import VERBS, Verb, main; {named}"
    done = subprocess.run(
        [sys.executable, "-c", f"{start}; sys.exit(main(['slow']))"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")


def test_an_unknown_verb_is_one_line_with_the_allowed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fti", "--config", "x.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("textkeep: error: no verb 'fti' (did you mean 'fit'?); allowed: fit, ")
    assert shown.err.count("\n") == 1


@pytest.mark.usefixtures("extra_verbs")
def test_an_expected_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complaining", "here"]) == 2
    assert capsys.readouterr().err == "textkeep: error: manifest.jsonl:12: empty answer in here\n"


@pytest.mark.usefixtures("extra_verbs")
def test_a_verb_whose_module_is_missing_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["absent"]) == 2
    assert "No module named" in capsys.readouterr().err
    assert main(["--version"]) == 0


@pytest.mark.usefixtures("extra_verbs")
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTKEEP_DEBUG", "1")
    with pytest.raises(ValueError, match="empty answer"):
        main(["complaining", "here"])


@pytest.mark.usefixtures("extra_verbs")
def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(AttributeError):
        main(["defective"])


@pytest.mark.usefixtures("extra_verbs")
def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interrupted"]) == 130
    assert capsys.readouterr() == ("", "")


HEAVY = ("torch", "lightning", "transformers", "wandb", "scipy", "plotly", "numpy")


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (["--help"], ()),
        (["--version"], ()),
        (["nonsense"], ()),
        (["assets", "--list"], ()),
        (["watch", "--help"], ()),
        (["report", "--help"], ()),
        (["watch", "{run}", "--once"], ("numpy", "scipy")),
        (["report", "{run}"], ("numpy", "scipy", "plotly", "torch")),  # it reads snapshots and manifests
    ],
    ids=" ".join,
)
def test_quick_answers_import_nothing_heavy(argv: list[str], allowed: tuple[str, ...], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    program = """
        import sys
        from textkeep.cli.main import main
        try:
            code = main(sys.argv[2:])
        except SystemExit as end:
            code = end.code
        assert code == (2 if "nonsense" in sys.argv else 0), code
        heavy = set(sys.argv[1].split(",")) & set(sys.modules)
        assert not heavy, heavy
    """
    heavy = ",".join(name for name in HEAVY if name not in allowed)
    words = [word.format(run=run) for word in argv]
    done = subprocess.run(
        [sys.executable, "-c", dedent(program), heavy, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ("loading PyTorch ...\n" in done.stderr) == ("torch" in allowed)


def test_the_help_of_what_does_not_train_and_a_wrong_call_wait_for_nothing_and_show_no_markup() -> None:
    program = """
        import contextlib, io, sys
        from textkeep.cli.main import VERBS, main
        for verb in [name for name, verb in VERBS.items() if not verb.trains]:
            for words in ([verb, "--help"], [verb, "--no-such-option"]):
                with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()):
                    with contextlib.suppress(SystemExit):
                        main(words)
                assert ("usage: " in shown.getvalue()) == ("--help" in words), (words, shown.getvalue())
                assert "``" not in shown.getvalue(), (words, shown.getvalue())
                heavy = {"torch", "lightning", "transformers", "wandb", "scipy.stats", "plotly"} & set(sys.modules)
                assert not heavy, (words, heavy)
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A library that stands for torch, and the verb ``waits``, which imports it."""
    name = "textkeep_large_library"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "LARGE", name)
    monkeypatch.setitem(sys.modules, "textkeep_test_verbs", sys.modules[MODULE])
    monkeypatch.setitem(VERBS, "waits", Verb("textkeep_test_verbs:waits", "", loads="PyTorch and others"))
    yield
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("rank", "words", "said"),
    [
        ("0", ["waits"], "loading PyTorch and others ...\n"),
        ("1", ["waits"], ""),
        ("0", ["waits", "quick"], ""),
        ("0", ["waits", "twice"], "loading PyTorch and others ...\n"),
    ],
)
def test_a_command_says_what_it_loads_when_it_begins_to(
    rank: str, words: list[str], said: str, large: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    finders = list(sys.meta_path)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert main(words) == 0
    assert capsys.readouterr().err == said
    assert sys.meta_path == finders
