"""Samples completions of the policy in training for rows of a dataset, without scoring or training."""

from typing import Any

from rlhf_prm.rl.trl_seam import generate, generate_and_score
from rlhf_prm.rl.turns import Told, told_by_trl


class Sampled(BaseException):
    """Ends TRL's call once it has sampled. It is not an `Exception`, so that no handler takes it for an error."""

    def __init__(self, output: tuple) -> None:
        super().__init__()
        self.output = output


def sampled(trainer: Any, rows: list[dict[str, Any]]) -> list[tuple[list[int], Told]]:
    """(token ids, who wrote them) of one completion of every row; tools and environments work as in training.

    Nothing is scored or verified. TRL draws and resets environments, and collects their tools, on its way to the
    generation. A policy with tools is therefore sent that way, which ends with the generation.
    """
    if trainer.tools:
        trainer.samples_only = True
        try:
            generate_and_score(trainer, rows)
        except Sampled as done:
            output = done.output
        finally:
            trainer.samples_only = False
    else:
        output = generate(trainer, [row["prompt"] for row in rows])
    _, completion_ids, masks, completions, *_ = output
    told = told_by_trl(masks, completions, len(rows), with_tools=bool(trainer.tools))
    return list(zip(completion_ids, told, strict=True))
