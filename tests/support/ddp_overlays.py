"""One of two ranks: trains every overlay, one after the other, in one process group.

python -m tests.support.ddp_overlays FOLDER TINY.yaml OVERLAY...
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from tests.support.overlays import overlay_name, words
from textkeep.cli.main import main


def run(folder: Path, tiny: Path, overlays: list[Path]) -> None:
    for overlay in overlays:
        name = overlay_name(overlay).replace("/", "_")
        line = words(overlay, tiny, folder / name, "--trainer.strategy", "ddp", "--trainer.devices", "2")
        try:
            code = main(line)
        except BaseException:
            traceback.print_exc()
            raise
        if code:
            raise SystemExit(f"{name}: exit code {code}")


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
