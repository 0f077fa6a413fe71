#!/bin/sh
# What the miniature study needs before it starts, in data/miniature: a second set of spoken questions, the untouched
# LLM's own answers, its Fisher information on text, and long text that nobody trains on. Run at the root of the
# repository; what is there stays.
# On 2 CPU cores: about 15 minutes of speaking, half an hour of answering, a few of measuring.
#
#   sh benchmarks/miniature/prepare.sh
set -eu
into=data/miniature
textkeep assets flite kokoro wordnet smollm2-135m-instruct whisper-tiny.en
test -d $into/text || textkeep facts $into/text --opposites 800
test -f $into/spoken/test.jsonl || textkeep speak $into/text/train.jsonl $into/text/validation.jsonl \
    $into/text/test.jsonl $into/spoken --voices flite:kal16,flite:rms,flite:slt \
    --heldout-voices flite:awb,kokoro:af_kore,kokoro:am_puck,kokoro:bm_fable
test -f $into/own_facts.jsonl || textkeep rewrite spoken-facts/train --llm asset:smollm2-135m-instruct \
    --copy-clips --max-new-tokens 40 --batch-size 64 -o $into/own_facts.jsonl
test -f $into/own_opposites.jsonl || textkeep rewrite $into/spoken/train.jsonl --llm asset:smollm2-135m-instruct \
    --copy-clips --max-new-tokens 40 --batch-size 64 -o $into/own_opposites.jsonl
if ! test -f $into/prose.txt; then  # the first 400 are the sentences on which the runs are scored
    textkeep facts $into/prose.jsonl --prose 2400
    sed -e '1,400d' -e 's/.*"text": "\(.*\)", "source".*/\1\n/' $into/prose.jsonl > $into/prose.txt.tmp
    mv $into/prose.txt.tmp $into/prose.txt
fi
test -f $into/manual.txt || python benchmarks/miniature/manual_text.py $into/manual.txt
test -d $into/fisher || textkeep importance probe asset:smollm2-135m-instruct --data $into/prose.txt \
    --examples 64 --estimators fisher --maps -o $into/fisher
