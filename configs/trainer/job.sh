#!/bin/bash
# A training job under SLURM; docs/cluster.md explains it. Submit it from a clone, with textkeep on the PATH:
#
#   sbatch configs/trainer/job.sh my.yaml [--trainer.max_steps 1000 ...]
#
#SBATCH --job-name=textkeep
#SBATCH --nodes=2                # trainer.num_nodes
#SBATCH --ntasks-per-node=8      # trainer.devices
#SBATCH --gpus-per-node=8        # not --gpus-per-task: each rank must see the GPUs of its node
#SBATCH --cpus-per-task=8        # data.num_workers
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120        # two minutes before the end: save, and ...
#SBATCH --requeue                # ... start again
#SBATCH --open-mode=append       # one log for all attempts; SLURM would truncate it at each start
#SBATCH --output=%x-%j.log

config=${1:?usage: sbatch job.sh CONFIG [OPTION ...]}
shift
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not inherit it from sbatch (SLURM 22.05 and later)

# If a rank dies, the others end too. Nothing may follow: the run's exit code becomes the job's.
srun --kill-on-bad-exit=1 textkeep fit --config "$config" --config configs/trainer/slurm.yaml "$@"
