"""A run of which one rank fails in the middle of an update; the others wait for it in a collective."""

from pathlib import Path

from tests.distributed.scripted_run import trainer_of


def fail(folder: Path, parts: list[str]) -> dict:
    trainer = trainer_of("grpo", folder, save_strategy="no")
    score = trainer.scoring.step_scorer.score

    def broken(problems, steps):
        if trainer.accelerator.process_index == 1 and trainer.state.global_step == 1:
            (folder / "failing").touch()
            raise RuntimeError("the PRM of rank 1 has gone away")
        return score(problems, steps)

    trainer.scoring.step_scorer.score = broken
    trainer.train()
    raise AssertionError("came to the end without its other half")
