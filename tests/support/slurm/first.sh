#!/bin/bash
# First process of a cluster, in the namespaces that up.sh made: first.sh FOLDER NODES NET
set -euo pipefail
folder=$1 nodes=$2 net=$3

hostname head
ip link set lo up
ip link add br0 type bridge
ip addr add "$net.254/24" dev br0
ip link set br0 up
# Names and configuration of the cluster, for this mount namespace alone.
mount --bind "$folder/etc/hosts" /etc/hosts
mkdir -p /etc/slurm
mount --bind "$folder/etc" /etc/slurm
munged --key-file="$folder/munge/key" --socket="$folder/run/munge.socket" --pid-file="$folder/run/munged.pid" \
    --log-file="$folder/log/munged" --seed-file="$folder/munge/seed" --force >/dev/null 2>&1
for number in $(seq "$nodes"); do
    # shellcheck disable=SC2016
    unshare --net --mount --uts bash -c 'hostname "$1"; echo $$ >"$2"; exec sleep infinity' - \
        "node$number" "$folder/run/holder$number" &
    until [ -s "$folder/run/holder$number" ]; do sleep 0.02; done
    holder=$(cat "$folder/run/holder$number")  # keeps the namespaces of the node
    ip link add "v$number" type veth peer name eth0 netns "/proc/$holder/ns/net"
    ip link set "v$number" master br0 up
    nsenter -t "$holder" -n -- sh -c "ip link set lo up; ip addr add $net.$number/24 dev eth0; ip link set eth0 up"
done
slurmctld
for number in $(seq "$nodes"); do
    nsenter -t "$(cat "$folder/run/holder$number")" -n -m -u -- slurmd -N "node$number"
done
echo ready >"$folder/run/ready"
exec sleep infinity
