"""The command ``textkeep`` itself: dispatch, messages, exit codes, start-up cost."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.report_run import write_run
from textkeep.cli.main import VERBS, Verb, main
from textkeep.foundation.errors import INTERRUPTED

MODULE = __name__


def fine(argv: list[str]) -> int:
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
    assert all(f"  {name} " in shown for name, verb in VERBS.items() if verb.listed)


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


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("fit", "loading PyTorch, Lightning and transformers ...\n"),
        ("export", "loading PyTorch and transformers ...\n"),
    ],
)
def test_a_command_that_waits_for_large_libraries_says_so_first(
    verb: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(VERBS, verb, VERBS[verb]._replace(target="textkeep_test_verbs:fine"))
    monkeypatch.setitem(sys.modules, "textkeep_test_verbs", sys.modules[MODULE])
    for rank, told in (("0", said), ("1", "")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main([verb]) == 0
        assert capsys.readouterr().err == told
    monkeypatch.delenv("LOCAL_RANK")
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().err == ""
