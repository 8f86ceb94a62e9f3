#!/usr/bin/env bash
# Train on two machines with four GPUs each, using SLURM. Arguments of this script are passed to `fit`:
#
#   sbatch scripts/slurm.sh --config configs/resnet.yaml
#
# The repository, data/ and runs/ must be on a disk that both machines share. Tested with SLURM's environment variables
# on one machine without SLURM (tests/project/cli/test_ddp.py); not tested on a cluster, nor is requeueing.
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

$python -m project prepare "$@"  # in one process, before eight start
# all tasks end as soon as one fails; --run auto resumes the run of this job after it was stopped or lost a machine
code=0
srun --kill-on-bad-exit=1 $python -m project fit "$@" --config configs/ddp.yaml --run auto \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" || code=$?
if [ "$code" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # SIGTERM, two minutes before the time limit
exit "$code"
