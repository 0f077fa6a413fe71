#!/bin/bash
# A node loses its power: every process in its network namespace is killed but the one that keeps the namespace.
#
#   kill_node.sh FOLDER node1        # it comes back with: on.sh FOLDER node1 slurmd -N node1
set -euo pipefail
folder=$(readlink -f "$1") node=$2
holder=$(cat "$folder/run/holder${node#node}")
# shellcheck disable=SC2016
nsenter -t "$(cat "$folder/pid")" --mount --pid -- bash -c '
    ours=$(readlink "/proc/$1/ns/net")
    # Stopped first: none may live to tell SLURM that another one was killed.
    for signal in STOP KILL; do
        for process in /proc/[0-9]*; do
            number=${process#/proc/}
            if [ "$number" != "$1" ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$ours" ]; then
                kill -s "$signal" "$number" 2>/dev/null || true
            fi
        done
    done' - "$holder"
