#!/bin/sh
# The full arm of the study of lost text between the untouched LLM and its runs: what is regained on plain text and lost
# on speech. After `textkeep study benchmarks/text_lost/study.yaml --arms full`, which keeps the checkpoints.
#
#   sh benchmarks/text_lost/interpolate.sh
set -eu
for run in studies/text_lost/runs/full,lr=*/seed=*; do
    test -d "$run/checkpoints" || continue
    textkeep interpolate "$run" --split test --items 110 --heldout plain-text/evaluation --heldout-examples 64
done
