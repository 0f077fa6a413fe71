"""A skip that nobody allowed fails the run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from . import skips

SUITE = {
    "test_run.py": "import pytest\ndef test_asset():\n    pytest.skip('asset x is not here')\n",
    "test_mark.py": "import pytest\n@pytest.mark.skipif(True, reason='no extra')\ndef test_extra():\n    pass\n",
    "test_import.py": "import pytest\ndef test_module():\n    pytest.importorskip('no_such_module')\n",
    "test_file.py": "import pytest\npytest.importorskip('no_such_module')\ndef test_never():\n    pass\n",
    "test_allowed.py": "import pytest\ndef test_browser():\n    pytest.skip('no Chromium')\n",
    "test_good.py": "import pytest\n@pytest.mark.xfail\ndef test_x():\n    assert False\ndef test_good():\n    pass\n",
}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_only_listed_tests_may_be_skipped(workers: str, tmp_path: Path) -> None:
    for name, text in SUITE.items():
        (tmp_path / name).write_text(text)
    source = Path(skips.__file__).read_text()
    listed = re.sub(
        r"ALLOWED: dict\[str, str\] = \{.*?\n\}", 'ALLOWED = {"test_allowed.py": "why"}', source, flags=re.S
    )
    (tmp_path / "conftest.py").write_text(listed)
    words = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    words += ["-n", workers, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 1, done.stdout
    for name in ("test_run.py", "test_mark.py", "test_import.py", "test_file.py"):
        assert re.search(rf"{name}\S* was skipped and is not listed", done.stdout), done.stdout
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in done.stdout


def test_every_entry_of_the_list_is_a_test_and_says_why() -> None:
    root = Path(__file__).parents[1]
    for name, reason in skips.ALLOWED.items():
        file, _, test = name.partition("::")
        files = sorted((root / file).glob("test_*.py")) if file.endswith("/") else [root / file]
        assert files, name
        assert all(f"def {test or 'test_'}" in path.read_text(encoding="utf-8") for path in files), name
        assert len(reason) > 10


def test_a_name_that_another_begins_with_is_not_allowed_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skips, "ALLOWED", {"tests/test_a.py::test_b": "why", "tests/test_c.py": "why"})
    for allowed in (
        "tests/test_a.py::test_b",
        "tests/test_a.py::test_b[1]",
        "tests/test_c.py",
        "tests/test_c.py::test_d",
    ):
        assert skips.judged(allowed, "") is None
    for refused in ("tests/test_a.py::test_bc", "tests/test_a.py", "tests/test_c.pyx", "tests/test_e.py::test_f"):
        assert skips.judged(refused, ("file", 1, "no model")) is not None


def test_ci_installs_the_extras_that_tests_need_and_shows_skips() -> None:
    root = Path(__file__).parents[1]
    (installed,) = re.findall(
        r'--editable "\.\[([\w,-]+)\]"\n\t@mkdir', (root / "Makefile").read_text(encoding="utf-8")
    )
    assert {"lm-eval", "slurm", "speak", "dashboard", "bench", "dev"} <= set(installed.split(","))
    assert "make test" in (root / ".ci/run").read_text(encoding="utf-8")
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert "-ra" in settings["tool"]["pytest"]["ini_options"]["addopts"].split()
