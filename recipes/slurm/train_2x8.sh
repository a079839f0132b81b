#!/usr/bin/env bash
# sbatch recipes/slurm/train_2x8.sh recipes/grpo_prm.py --config recipes/configs/….yaml
# Two nodes of eight GPUs, one launcher per node. For another size change --nodes, --gpus-per-node and the two counts below.
#SBATCH --job-name=rlhf-prm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=runs/slurm-%j.out
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch $0 RECIPE.py [--config FILE.yaml …]" >&2; exit 2; }

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) # not head, which may end scontrol by a broken pipe
export HEAD
export OMP_NUM_THREADS=8 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # compute nodes seldom see the internet: download on the login node first
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1     # a dead peer ends the collective instead of hanging it

# --kill-on-bad-exit: when one node's launcher fails, Slurm ends the other's at once.
srun --kill-on-bad-exit=1 bash -c 'accelerate launch --config_file recipes/accelerate/zero3_2x8.yaml \
  --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * 8))" --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$HEAD" --main_process_port 29500 "$@"' launch "$@"
