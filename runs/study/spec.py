"""The plan of a study: arms, seeds, grids, read from YAML and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...foundation.errors import UserError
from ...foundation.json_lines import require_text
from ...foundation.text_lines import read_text
from .selection_rule import Selection, read_selection

STUDY_FILE = "study.yaml"
"""Name of the plan's copy in the study's directory, which identifies it."""

UNTOUCHED = "untouched"
"""Name under which the LLM before training is scored; no arm may have it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_KEYS = (
    *("directory", "configs", "set", "seeds", "arms", "reference", "contrasts", "untouched"),
    *("selection", "test", "test_configs", "test_set", "keep_checkpoints", "slurm"),
)
_ARM_KEYS = ("configs", "set", "seeds", "grid")

Settings = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: Name of its folder, and in tables.
        configs: YAML files, after the study's own.
        settings: Dotted setting -> value, after the study's own.
        seeds: One run per seed.
        grid: Dotted setting -> values; every combination is a point.
    """

    name: str
    configs: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    grid: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A plan.

    Attributes:
        directory: The study's directory.
        configs: YAML files of every arm.
        settings: Dotted setting -> value, of every arm.
        arms: In the order of running.
        reference: Name of the arm with which the others are compared.
        contrasts: Pairs of arms to compare seed by seed.
        untouched: Whether the LLM before training is scored on the test questions.
        selection: How the point of a grid is chosen; None runs all points with all seeds.
        test: Whether each finished run is scored on the test questions.
        test_configs: YAML files that the test adds to a run's config.
        test_settings: Dotted setting -> value, added by the test.
        keep_checkpoints: Arms whose runs keep their checkpoints after the test, which makes a study large.
        slurm: Parameters of the SLURM jobs; None runs locally.
        text: The text of the plan.
    """

    directory: Path
    configs: tuple[str, ...]
    settings: Settings
    arms: tuple[Arm, ...]
    reference: str
    contrasts: tuple[tuple[str, str], ...]
    untouched: bool
    selection: Selection | None
    test: bool
    test_configs: tuple[str, ...]
    test_settings: Settings
    keep_checkpoints: frozenset[str]
    slurm: Settings | None
    text: str


def read_study(path: Path, check_files: bool = True) -> Study:
    """Reads a plan.

    Args:
        path: A YAML file.
        check_files: Whether the config files that it names must exist.

    Raises:
        UserError: If it cannot be read, or contains an invalid setting.
    """
    if not path.is_file():
        raise UserError(f"study: no file {path}; allowed: a YAML file with arms")
    text = read_text(path)
    try:
        plan = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = path if line is None else f"{path}:{line + 1}"
        raise UserError(f"study: {where}: {getattr(error, 'problem', error)}") from error
    require_text(plan, str(path))
    reader = _Reader(path, check_files)
    if isinstance(plan, Mapping) and "arms" not in plan and {"trainer", "model", "data"} & plan.keys():
        raise UserError(
            f"study: {path} is the config of a run; allowed: a plan whose configs: name it and whose arms: say what "
            f"differs (docs/studies.md), or textkeep fit --config {path}"
        )
    plan = reader.mapping(plan, "the file", _KEYS)
    seeds = reader.seeds(plan.get("seeds", [0]), "seeds")
    given = reader.mapping(plan.get("arms"), "arms")
    arms = tuple(reader.arm(name, value, seeds) for name, value in given.items())
    if not arms:
        raise reader.error("arms", None, "a name and settings for each arm")
    reference = str(plan.get("reference", arms[0].name))
    if reference not in given:
        raise reader.error("reference", reference, f"one of the arms {', '.join(given)}")
    configs = reader.files(plan.get("configs"), "configs")
    bare = next((arm.name for arm in arms if not configs + arm.configs), None)
    if bare is not None:
        raise reader.error(f"arms.{bare}.configs", None, "a config file, here or for the whole study")
    slurm = plan.get("slurm")
    return Study(
        directory=reader.directory(plan.get("directory") or f"studies/{path.stem}"),
        configs=configs,
        settings=reader.mapping(plan.get("set") or {}, "set"),
        arms=arms,
        reference=reference,
        contrasts=tuple(reader.contrast(pair, given) for pair in reader.listed(plan.get("contrasts"), "contrasts")),
        untouched=reader.flag(plan.get("untouched", True), "untouched"),
        selection=reader.selection(plan.get("selection"), arms),
        test=reader.flag(plan.get("test", True), "test"),
        test_configs=reader.files(plan.get("test_configs"), "test_configs"),
        test_settings=reader.mapping(plan.get("test_set") or {}, "test_set"),
        keep_checkpoints=reader.kept(plan.get("keep_checkpoints", True), given),
        slurm=None if slurm is None else reader.mapping(slurm, "slurm"),
        text=text,
    )


class _Reader:
    """Checks values and reports where a wrong one is."""

    def __init__(self, path: Path, check_files: bool) -> None:
        self.path = path
        self.check_files = check_files

    def error(self, key: str, value: Any, allowed: str) -> UserError:
        return UserError(f"study: {self.path}: {key}: {value!r} (allowed: {allowed})")

    def mapping(self, value: Any, key: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self.error(key, value, "a mapping" + (f" with {', '.join(known)}" if known else ""))
        if known and (unknown := [name for name in value if name not in known]):
            raise self.error(key, unknown[0], ", ".join(known))
        return dict(value)

    def directory(self, value: Any) -> Path:
        if not isinstance(value, str) or (Path(value).exists() and not Path(value).is_dir()):
            raise self.error("directory", value, "a folder, to be made or a study's")
        return Path(value)

    def files(self, value: Any, key: str) -> tuple[str, ...]:
        listed = [value] if isinstance(value, str) else value or []
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise self.error(key, value, "a list of YAML files")
        missing = next((name for name in listed if not Path(name).is_file()), None)
        if self.check_files and missing is not None:
            raise self.error(key, missing, "an existing file, relative to the working directory")
        return tuple(listed)

    def seeds(self, value: Any, key: str) -> tuple[int, ...]:
        valid = isinstance(value, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in value)
        if not valid or not value or len(set(value)) < len(value):
            raise self.error(key, value, "a list of different whole numbers")
        return tuple(value)

    def listed(self, value: Any, key: str) -> list[Any]:
        if value is not None and not isinstance(value, list):
            raise self.error(key, value, "a list")
        return value or []

    def contrast(self, value: Any, arms: Mapping[str, Any]) -> tuple[str, str]:
        pair = isinstance(value, list) and len(value) == 2 and value[0] != value[1]
        if not pair or not all(isinstance(name, str) and name in arms for name in value):
            raise self.error("contrasts", value, f"pairs of the arms {', '.join(arms)}")
        return value[0], value[1]

    def kept(self, value: Any, arms: Mapping[str, Any]) -> frozenset[str]:
        if isinstance(value, bool):
            return frozenset(arms if value else ())
        if not isinstance(value, list) or not value or not all(name in arms for name in value):
            raise self.error("keep_checkpoints", value, f"true, false, or a list of the arms {', '.join(arms)}")
        return frozenset(value)

    def flag(self, value: Any, key: str) -> bool:
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def arm(self, name: Any, value: Any, seeds: tuple[int, ...]) -> Arm:
        key = f"arms.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == UNTOUCHED:
            raise self.error("arms", name, f"letters, digits, and _ . + - in a name that is not {UNTOUCHED}")
        given = self.mapping(value or {}, key, _ARM_KEYS)
        grid = self.mapping(given.get("grid") or {}, f"{key}.grid")
        for setting, values in grid.items():
            if not isinstance(values, list) or not values:
                raise self.error(f"{key}.grid.{setting}", values, "a list of values")
        return Arm(
            name,
            self.files(given.get("configs"), f"{key}.configs"),
            self.mapping(given.get("set") or {}, f"{key}.set"),
            self.seeds(given.get("seeds", list(seeds)), f"{key}.seeds"),
            grid,
        )

    def selection(self, value: Any, arms: tuple[Arm, ...]) -> Selection | None:
        if value is None:
            return None
        rule = read_selection(self.mapping(value, "selection"), self.error)
        if not any(arm.grid for arm in arms):
            raise self.error("selection", value, "only where an arm has a grid")
        return rule
