#!/bin/bash
# Runs a command on a node of a cluster: on.sh FOLDER head|node1|node2... COMMAND [ARGUMENT ...]
set -euo pipefail
folder=$(readlink -f "$1") node=$2
shift 2
first=$(cat "$folder/pid")
if [ "$node" = head ]; then exec nsenter -t "$first" --all --wd="$PWD" -- "$@"; fi
# The number of the process that holds a node is one of the cluster's PID namespace.
holder=$(cat "$folder/run/holder${node#node}")
exec nsenter -t "$first" --all --wd="$PWD" -- nsenter -t "$holder" -n -m -u --wd="$PWD" -- "$@"
