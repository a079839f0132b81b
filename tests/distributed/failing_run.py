"""A run of which one rank fails in the middle of an update; the others wait for it in a collective."""

import sys
from pathlib import Path

import torch

from rlhf_prm.rl.cpu_ranks import prepare_cpu_ranks
from tests.distributed.scripted_run import trainer_of


def main() -> None:
    torch.set_num_threads(1)
    prepare_cpu_ranks()
    trainer = trainer_of("grpo", Path(sys.argv[1]), save_strategy="no")
    score = trainer.scoring.step_scorer.score

    def broken(problems, steps):
        if trainer.accelerator.process_index == 1 and trainer.state.global_step == 1:
            Path(sys.argv[1], "failing").touch()
            raise RuntimeError("the PRM of rank 1 has gone away")
        return score(problems, steps)

    trainer.scoring.step_scorer.score = broken
    trainer.train()
    raise AssertionError("came to the end without its other half")


if __name__ == "__main__":
    main()
