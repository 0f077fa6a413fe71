#!/bin/sh
# The figures of docs/two_models.md: SmolLM2-135M before and after it learned to listen, in OUT (default outputs/two_models).
# Run at the root of the repository, behind `textkeep assets`; a run that is there is taken, else the quickstart is trained.
# What OUT holds already is measured again and replaced.
#
#   sh benchmarks/two_models.sh [RUN] [OUT]
set -eu
run=${1:-outputs/quickstart}
out=${2:-outputs/two_models}
base=asset:smollm2-135m-instruct
test -d "$run" || textkeep fit --config configs/quickstart.yaml --trainer.default_root_dir "$run"
mkdir -p "$out"
textkeep importance compare $base $run --data spoken-facts/general --plot $out/shift.png -o $out/shift.json --overwrite
textkeep importance heads $base $run --text spoken-facts/test --speech spoken-facts/test --examples 16 --batch-size 16 --top 27 \
    --plot $out/heads.png -o $out/heads.json --overwrite
textkeep importance attribute $base $run --data plain-text/probe --examples 32 --tokens 64 --plot $out/blame.png \
    -o $out/blame.json --overwrite
textkeep interpolate $run --alphas 0 0.25 0.5 0.75 1 --revert $out/blame.json --top 3 10 --heldout plain-text/evaluation \
    --split test --items 60 --plot $out/mixtures.png -o $out/mixtures --overwrite
textkeep card $run --base $base --questions spoken-facts/test --limit 60 --examples 16 -o $out/card --overwrite
