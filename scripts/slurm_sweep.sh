#!/usr/bin/env bash
# Run one sweep in a SLURM array job: each task joins it. Arguments of this script are passed to `sweep`:
#
#   sbatch --array 0-3 scripts/slurm_sweep.sh --config configs/resnet.yaml --sweep configs/sweeps/lr.yaml
#
# The repository, data/ and runs/ must be on a disk with file locks that all machines share. A task that is stopped or
# loses its machine is queued again, and resumes its trial. Tested without SLURM; not tested on a cluster.
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --output=slurm-%A_%a.txt
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -uo pipefail
.venv/bin/python -m project sweep "$@" --sweep_dir "runs/sweeps/slurm/$SLURM_ARRAY_JOB_ID" &
sweep=$!
trap 'kill -TERM $sweep' TERM  # two minutes before the time limit
code=0
wait $sweep || code=$?
while kill -0 $sweep 2>/dev/null; do code=0; wait $sweep || code=$?; done  # the signal ended only `wait`
if [ "$code" = 143 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"; fi
exit "$code"
