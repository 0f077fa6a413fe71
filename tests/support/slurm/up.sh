#!/bin/bash
# Brings up a real SLURM cluster on one machine, in about a second: slurmctld on "head", slurmd on node1, node2, ..., each
# in network, host name and mount namespaces of its own, joined by a bridge that leads nowhere else. One PID namespace
# holds them all: with its first process everything ends (down.sh).
#
#   NODES=2 up.sh FOLDER               # exit code 77: cannot be had here (no root, no SLURM, no namespaces)
#   on.sh FOLDER head sbatch job.sh    # any command on the head node, or on node1, node2, ...
#
# Needs root, Debian's slurm-wlm and munge (no service of them has to run), iproute2 and util-linux.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
folder=$(readlink -m "$1")
nodes=${NODES:-2}
cpus=${CPUS:-16}                      # a node says it has; more than the machine has is fine
gpus=${GPUS:-0}                       # pretended: a null device stands for each
owner=${OWNER:-}                      # a process with whose end the cluster ends, too
net=${NET:-10.77.0}                   # exists inside the namespaces alone
kill_wait=${KILL_WAIT:-30}            # SLURM's default: seconds from SIGTERM to SIGKILL
slurmd_timeout=${SLURMD_TIMEOUT:-60}  # seconds until a silent node is down
requeue_delay=${REQUEUE_DELAY:-8}     # seconds until a requeued job starts, and a launch may take; SLURM's default is 120

skip() { echo "skipped: $*" >&2; exit 77; }

[ "$(id -u)" = 0 ] || skip "needs root"
export PATH=$PATH:/usr/sbin:/sbin
for tool in munged slurmctld slurmd sbatch ip unshare nsenter; do
    command -v "$tool" >/dev/null || skip "no $tool (apt-get install slurm-wlm munge iproute2)"
done
unshare --net --mount --uts --ipc --pid --fork true 2>/dev/null || skip "no namespaces here"
[ ! -e "$folder/pid" ] || { echo "$folder is a cluster already" >&2; exit 1; }

# SLURM names a socket of each step so, and starts no job where the name is longer than a socket's may be.
socket="$folder/spool/node$nodes/node${nodes}_9999.4294967291"
[ ${#socket} -lt 108 ] || { echo "$folder: too long a path by $((${#socket} - 107)) letters" >&2; exit 1; }
mkdir -p "$folder"/{etc,state,spool,log,run,munge}
chmod 755 "$folder"
head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 400 "$folder/munge/key"
{
    echo "127.0.0.1 localhost"
    echo "$net.254 head"
    for number in $(seq "$nodes"); do echo "$net.$number node$number"; done
} >"$folder/etc/hosts"
devices=""
: >"$folder/etc/gres.conf"
if [ "$gpus" -gt 0 ]; then
    devices="Gres=gpu:$gpus"
    for number in $(seq "$gpus"); do mknod -m 666 "$folder/run/gpu$number" c 1 3; done
    echo "Name=gpu File=$folder/run/gpu[1-$gpus]" >"$folder/etc/gres.conf"
fi
cat >"$folder/etc/slurm.conf" <<CONF
ClusterName=textkeep
SlurmctldHost=head
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.socket,cred_expire=$requeue_delay
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=$slurmd_timeout
SlurmctldTimeout=20
MessageTimeout=60
KillWait=$kill_wait
OverTimeLimit=0
MinJobAge=3600
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobcomp
AccountingStorageType=accounting_storage/none
NodeName=node[1-$nodes] CPUs=$cpus RealMemory=64000 $devices State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

# In a session of its own and without the caller's file descriptors: whoever reads this script's output must not wait.
setsid unshare --net --mount --uts --ipc --pid --fork --mount-proc --kill-child=KILL \
    bash "$here/first.sh" "$folder" "$nodes" "$net" </dev/null >"$folder/log/first" 2>&1 &
outer=$!
for _ in $(seq 200); do
    [ -e "$folder/run/ready" ] && break
    kill -0 "$outer" 2>/dev/null || { cat "$folder/log/first" >&2; skip "the cluster did not start"; }
    sleep 0.1
done
pgrep -P "$outer" | head -1 >"$folder/pid"
if [ -n "$owner" ]; then
    setsid bash -c 'tail --pid="$1" -f /dev/null; bash "$2" "$3"' - "$owner" "$here/down.sh" "$folder" \
        </dev/null >/dev/null 2>&1 &
fi
for _ in $(seq 100); do
    idle=$("$here/on.sh" "$folder" head sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)
    [ "$idle" = "$nodes" ] && { echo "$folder: $nodes nodes are up"; exit 0; }
    sleep 0.2
done
"$here/on.sh" "$folder" head sinfo -N -l >&2 || true
tail -5 "$folder"/log/* >&2
"$here/down.sh" "$folder"
exit 1
