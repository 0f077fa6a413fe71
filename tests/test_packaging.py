"""The wheel: textkeep/ and nothing else, with its data, and a console script that works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA_ALONE = {"textkeep.configs", "textkeep.datamodules.plain_text", "textkeep.datamodules.spoken_facts"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[str]:
    """The files of the repository as they are now, without what a developer has lying around."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def python_packages() -> set[str]:
    tops = [entry.removeprefix("textkeep.") for entry in PROJECT["tool"]["setuptools"]["packages"]]
    roots = {name.split(".")[0] for name in tops}
    found = {path.parent.relative_to(ROOT) for root in roots for path in (ROOT / root).rglob("*.py")}
    return {".".join(["textkeep", *path.parts]) for path in found}


def test_every_folder_with_code_is_a_listed_package() -> None:
    apart = {"textkeep.preparation.plain_text", "textkeep.preparation.spoken_facts"}  # made the data, for a clone only
    assert python_packages() - apart == set(PROJECT["tool"]["setuptools"]["packages"]) - DATA_ALONE


def test_every_constraint_is_exact_and_every_dependency_has_one() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all("==" in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    names = {name.split(">")[0].split("=")[0].split("[")[0].lower().replace("_", "-") for name in wanted}
    assert names <= pinned, names - pinned
    assert "torch==2.14.1" in lines
    assert '"torch==2.14.1"' in (ROOT / "Makefile").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True, timeout=240)
    return next(folder.glob("textkeep-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_textkeep_and_its_data_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    version = PROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"textkeep", f"textkeep-{version}.dist-info"}
    inside = set(names)
    data = ("configs/", "datamodules/plain_text/", "datamodules/spoken_facts/", "runs/report/templates/")
    missing = [name for name in tracked() if name.startswith(data) and f"textkeep/{name}" not in inside]
    assert not missing
    assert f"textkeep-{version}.dist-info/licenses/LICENSE" in inside
    assert f"textkeep-{version}.dist-info/licenses/NOTICE" in inside
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".tmp"))]


@pytest.mark.slow
def test_the_installed_wheel_works_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=240)
    program = (
        "import sys; from pathlib import Path; import textkeep.importance, textkeep.datamodules;"
        "ours = [m for name, m in sys.modules.items() if name.startswith('textkeep.')];"
        "assert all(str(m.__file__).startswith(sys.argv[1]) for m in ours);"
        "assert Path(sys.argv[1], 'textkeep/configs/quickstart.yaml').is_file()"
    )
    alone = {**os.environ, "PYTHONPATH": str(target)}
    subprocess.run([sys.executable, "-c", program, target], check=True, cwd=tmp_path, env=alone, timeout=120)
    script = target / "bin" / "textkeep"
    shown = subprocess.run(
        [sys.executable, script, "--version"], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert shown.stdout == f"textkeep {PROJECT['project']['version']}\n"
    # Without site (-S) no editable install of the clone is found: that would lend what the wheel lacks.
    apart = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), sysconfig.get_path("purelib")])}
    facts = subprocess.run(
        [sys.executable, "-S", script, "facts", "out"], cwd=tmp_path, env=apart, capture_output=True, text=True
    )
    refusal = "facts works only in a clone of the repository: textkeep.preparation.plain_text is not installed"
    assert (facts.returncode, facts.stdout, facts.stderr) == (2, "", f"textkeep: error: {refusal}\n")
