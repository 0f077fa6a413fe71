#!/bin/sh
# What the study of lost text needs before it starts, in data/text_lost: long text that nobody trains on, other text to
# rehearse, and the untouched LLM's Fisher information on it. Run at the root of the repository; what is there stays.
# On 2 CPU cores: about 5 minutes.
#
#   sh benchmarks/text_lost/prepare.sh
set -eu
into=data/text_lost
textkeep assets wordnet smollm2-135m-instruct whisper-tiny.en
mkdir -p $into
test -f $into/manual.txt || python benchmarks/miniature/manual_text.py $into/manual.txt
if ! test -f $into/prose.txt; then  # the first 400 are the sentences on which the runs are scored
    textkeep facts $into/prose.jsonl --prose 2400
    sed -e '1,400d' -e 's/.*"text": "\(.*\)", "source".*/\1\n/' $into/prose.jsonl > $into/prose.txt.tmp
    mv $into/prose.txt.tmp $into/prose.txt
fi
test -d $into/fisher || textkeep importance probe asset:smollm2-135m-instruct --data $into/prose.txt \
    --examples 64 --estimators fisher --maps -o $into/fisher
