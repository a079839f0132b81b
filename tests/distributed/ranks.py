"""Everything that the tests want done by two ranks under one config, in one launch: starting costs more than the runs.

accelerate launch --config_file recipes/accelerate/cpu_zero3.yaml tests/distributed/ranks.py FOLDER JOB[:PART,…] …

Each rank writes what a job gave to FOLDER/JOB/rank<n>.json as soon as it has it, so a job that fails takes nothing from
those before it.
"""

import gc
import json
import os
import sys
from pathlib import Path

import torch

from rlhf_prm.rl.cpu_ranks import prepare_cpu_ranks
from tests.distributed import (
    failing_run,
    implicit_run,
    prm_training_run,
    refresh_run,
    rollback_run,
    scripted_run,
    sharded_prm_run,
    world_run,
)

JOBS = {
    "scripted": scripted_run.results_of,
    "rollback": rollback_run.results_of,
    "sharded_prm": sharded_prm_run.results_of,
    "prm_training": prm_training_run.results_of,
    "refresh": refresh_run.results_of,
    "implicit": implicit_run.results_of,
    "world": world_run.results_of,
    "failing": failing_run.fail,
}


def main() -> None:
    torch.set_num_threads(1)
    prepare_cpu_ranks()
    root, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")
    for argument in sys.argv[2:]:
        job, _, parts = argument.partition(":")
        folder = root / job
        folder.mkdir(exist_ok=True)
        gc.collect()
        gc.freeze()  # each training ends with a full collection, which need not walk through all that was imported
        results = JOBS[job](folder, parts.split(","))
        (folder / f"rank{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
