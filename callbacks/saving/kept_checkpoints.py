"""Which checkpoint files are removed, and which a continued run recognises as its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


class KeptCheckpoints:
    """A checkpoint callback's record of files to remove once a newer one exists.

    It is part of each checkpoint, as it will be once that is written: a run that is continued from it knows which
    files the one before it had yet to remove.

    Attributes:
        newest: The file that was written last; empty before the first.
        aside: Whether it was saved outside of the schedule, and only to continue from.
        passing: Older files that are to be removed.
    """

    def __init__(self) -> None:
        self.newest = ""
        self.aside = False
        self.passing: list[str] = []
        self._best: set[str] = set()

    def note(self, path: str, best: Collection[str], aside: bool, replaces: bool) -> None:
        """Notes a file that is about to be written.

        Args:
            path: The file.
            best: Files that are kept for their metric, this one among them if it is.
            aside: Whether it is saved outside of the schedule.
            replaces: Whether each file takes the place of the one before it.
        """
        if self.newest and (self.aside or replaces):
            self.passing.append(self.newest)
        self.passing += sorted(self._best.difference(best))
        self.newest, self.aside, self._best = path, aside, set(best)
        self.passing = self.surplus()

    def surplus(self) -> list[str]:
        """Returns the files to remove, once the newest is written."""
        return [path for path in dict.fromkeys(self.passing) if path != self.newest and path not in self._best]

    def state(self) -> dict[str, Any]:
        """Returns its state for a checkpoint: names, which stay valid when the folder is moved."""
        passing = [Path(path).name for path in self.passing]
        return {"newest": Path(self.newest).name, "aside": self.aside, "passing": passing}

    def restore(self, state: Mapping[str, Any], folder: str, best: Collection[str]) -> None:
        """Takes what a checkpoint holds of it, where its files lie, and those that are kept for their metric."""
        paths = [str(Path(folder, name)) if name else "" for name in (state.get("newest"), *state.get("passing", []))]
        self.newest, *self.passing = paths
        self.aside, self._best = state.get("aside", False), set(best)

    def forget_missing(self, present: Collection[str]) -> None:
        """Forgets the newest file and the best ones where they are no longer there."""
        self._best &= set(present)
        if self.newest not in present:
            self.newest, self.aside = "", False


def moved(state: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Returns the state of a checkpoint callback whose folder has another name now.

    Args:
        state: As Lightning's ``ModelCheckpoint`` keeps it, with the folder's former name as ``dirpath``.
        folder: Its name now.
    """
    former = Path(state["dirpath"])

    def follow(value: Any) -> Any:
        if isinstance(value, str) and Path(value).parent == former:
            return str(Path(folder, Path(value).name))
        if isinstance(value, Mapping):
            return {follow(key): follow(item) for key, item in value.items()}
        return [follow(item) for item in value] if isinstance(value, list) else value

    return {**follow(state), "dirpath": folder}
