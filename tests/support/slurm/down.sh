#!/bin/bash
# Ends a cluster of up.sh: with its first process everything in its PID namespace is killed. down.sh FOLDER
set -euo pipefail
folder=$(readlink -m "$1")
[ -s "$folder/pid" ] || exit 0
first=$(cat "$folder/pid")
# Only if the number is still the cluster's: its process is the first one of a PID namespace that is not this one.
if [ -e "/proc/$first" ] && [ "$(readlink "/proc/$first/ns/pid")" != "$(readlink /proc/self/ns/pid)" ]; then
    kill -KILL "$first"
    for _ in $(seq 100); do
        kill -0 "$first" 2>/dev/null || break
        sleep 0.05
    done
fi
rm -f "$folder/pid"
