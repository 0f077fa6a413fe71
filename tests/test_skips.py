"""A skip that nobody allowed fails the run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from . import skips

SUITE = {
    "test_run.py": "import pytest\ndef test_asset():\n    pytest.skip('asset x is not here')\n",
    "test_mark.py": "import pytest\n@pytest.mark.skipif(True, reason='no extra')\ndef test_extra():\n    pass\n",
    "test_import.py": "import pytest\ndef test_module():\n    pytest.importorskip('no_such_module')\n",
    "test_file.py": "import pytest\npytest.importorskip('no_such_module')\ndef test_never():\n    pass\n",
    "test_allowed.py": "import pytest\ndef test_browser():\n    pytest.skip('no Chromium')\n",
    "test_good.py": "import pytest\n@pytest.mark.xfail\ndef test_x():\n    assert False\ndef test_good():\n    pass\n",
}


def test_only_listed_tests_may_be_skipped(tmp_path: Path) -> None:
    for name, text in SUITE.items():
        (tmp_path / name).write_text(text)
    source = Path(skips.__file__).read_text()
    listed = re.sub(
        r"ALLOWED: dict\[str, str\] = \{.*?\n\}", 'ALLOWED = {"test_allowed.py": "why"}', source, flags=re.S
    )
    (tmp_path / "conftest.py").write_text(listed)
    words = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    done = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1, done.stdout
    for name in ("test_run.py", "test_mark.py", "test_import.py", "test_file.py"):
        assert re.search(rf"{name}\S* was skipped and is not listed", done.stdout), done.stdout
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in done.stdout


def test_every_entry_of_the_list_is_a_test_and_says_why() -> None:
    root = Path(__file__).parents[1]
    for name, reason in skips.ALLOWED.items():
        assert (root / name.split("::")[0]).exists(), name
        assert len(reason) > 10
