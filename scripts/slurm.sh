#!/usr/bin/env bash
# Train on two machines with four GPUs each, by SLURM; what follows the script's name goes to `fit`:
#
#   sbatch scripts/slurm.sh --config configs/resnet.yaml
#
# The repository, data/ and runs/ lie on a disk that both machines share. Tried out with the variables that SLURM sets, on
# one machine without it (tests/test_ddp.py); not yet on a cluster, requeueing not at all.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --output=slurm-%j.txt
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
python=.venv/bin/python

$python -m project prepare "$@"  # by one process, before eight wait for it
# all end as soon as one fails; --run auto goes on with what this very job began before it was stopped or lost a machine
code=0
srun --kill-on-bad-exit=1 $python -m project fit "$@" --config configs/ddp.yaml --run auto \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" || code=$?
if [ "$code" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # two minutes before its time was over
exit "$code"
