"""The README's pictures, all from the two runs of `make quickstart`.

    python docs/images/pictures.py outputs/quickstart outputs/quickstart-gated

Writes into this folder the first screen of the page that compares the two (``quickstart.png``), that of the first run's
own page (``report.png``), and the charts of its W&B run in ``wandb leet`` (``leet.png``); ``--only`` takes one of them.
Needs chromium; for the last one tmux, and wandb on the path.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
OF_SPEECH = "importance/speech/(loss|taylor/(js|js_null|total|layer_(00|11|29)))"
CHARTS = f"^(train/loss|val/(text|speech)_acc.*y|val/hear.*|{OF_SPEECH})$"
"""What leet shows of the run, one page."""


def compared(runs: list[Path], output: Path) -> None:
    """Draws what the page about both runs shows without scrolling."""
    _first_screen(runs, output, 1280, 770)


def alone(runs: list[Path], output: Path) -> None:
    """Draws the beginning of the page about the first run."""
    _first_screen(runs[:1], output, 1400, 1500)


def charts(runs: list[Path], output: Path) -> None:
    """Draws the charts of the first run's W&B directory.

    The side panels are closed by ``[`` and ``]``; two columns (``c``, ``2``) are wide enough for whole names.
    """
    offline = min((runs[0] / "wandb").glob("offline-run-*"))
    size = ["--columns", "180", "--lines", "44"]
    keys = ["--keys", "[", "]", "c", "2", "r", "6", "/", CHARTS, "Enter"]
    command = [
        sys.executable,
        str(HERE / "terminal_picture.py"),
        str(output),
        f"wandb leet run {offline}",
        *size,
        *keys,
    ]
    subprocess.run(command, check=True)


PICTURES: dict[str, Callable[[list[Path], Path], None]] = {
    "quickstart.png": compared,
    "report.png": alone,
    "leet.png": charts,
}


def _first_screen(runs: list[Path], output: Path, width: int, height: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        report = [sys.executable, "-m", "textkeep.cli.main", "report", *map(str, runs), "-o", str(page)]
        subprocess.run(report, check=True)
        chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        wait = ["--virtual-time-budget=15000", f"--user-data-dir={folder}/profile"]
        size = [f"--window-size={width},{height}", f"--screenshot={output.resolve()}"]
        subprocess.run([*chromium, *wait, *size, page.as_uri()], check=True, capture_output=True)


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=Path, help="full fine-tuning, and the remedy")
    parser.add_argument("--only", choices=PICTURES, help="one of them")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else PICTURES:
        PICTURES[name](arguments.runs, arguments.folder / name)
        print(arguments.folder / name)


if __name__ == "__main__":
    main()
