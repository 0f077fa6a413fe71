"""The spoken questions of Spoken Facts as alignment clips: repeated so that natural voices are a tenth of the mixture.

    python -m benchmarks.alignment_data data/align_facts.jsonl --copies 5 [MORE.jsonl ...]

Writes one manifest, with clips relative to the current folder (read it with `Manifest` and `audio_root: .`): every clip
of Spoken Facts' training part (and of MORE, manifests of `textkeep speak`) with its transcript as the target, in
several copies under different ids; each copy is augmented differently in each epoch.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from textkeep.foundation.files import replacing
from textkeep.foundation.json_lines import json_objects

FACTS = Path(__file__).resolve().parents[1] / "datamodules" / "spoken_facts" / "train.jsonl"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("more", type=Path, nargs="*")
    parser.add_argument("--copies", type=int, default=5)
    options = parser.parse_args()
    lines = []
    for manifest in [FACTS, *options.more]:
        for _, row in json_objects(manifest):
            clip = os.path.relpath(manifest.parent / row["audio"])
            words = {"target": row["question"], "answers": [row["question"]], "audio": clip}
            lines += [json.dumps(row | words | {"id": f"{row['id']}~{copy}"}) for copy in range(options.copies)]
    with replacing(options.out) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(lines)} lines")


if __name__ == "__main__":
    main()
