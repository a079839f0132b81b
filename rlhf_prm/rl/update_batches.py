"""A scored generation batch, and all batches since the last update, for callbacks that count or measure rollouts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from reward import StepRollouts
from rlhf_prm.rl.rollout_scoring import ScoredRollout


@dataclass(frozen=True)
class ScoredBatch:
    """The newest generation batch over all ranks: what was sampled, what it scored, what it was given.

    ``step_advantages`` is (B, K), beside ``rollouts.step_mask``; ``rows`` has the texts, ``update`` is the global step.
    ``scorer_tokens`` were sampled to score it, over all ranks: by live Monte-Carlo values.
    """

    rows: list[ScoredRollout]
    rollouts: StepRollouts
    step_advantages: Tensor
    mode: str
    update: int
    scorer_tokens: int = 0


class UpdateBatches:
    """The training batches generated since they were last taken: none, one, or several.

    There are several if ``steps_per_generation`` is below ``gradient_accumulation_steps``, and none if one generation
    serves several updates. A trainer generates at most once between two substeps, so a callback that calls ``look`` in
    ``on_substep_end`` and in ``on_step_end`` sees every batch once.
    """

    def __init__(self) -> None:
        self._newest: Any = None
        self._batches: list[Any] = []

    def look(self, trainer: Any) -> None:
        """Keep the trainer's newest ``ScoredBatch``, if it is new and for training."""
        batch = trainer.last_rollouts
        if batch is not None and batch is not self._newest and batch.mode == "train":
            self._newest = batch
            self._batches.append(batch)

    def taken(self) -> list[Any]:
        """The batches kept so far; afterwards none are kept."""
        batches, self._batches = self._batches, []
        return batches


def joined(rollouts: Sequence[StepRollouts]) -> StepRollouts:
    """Batches of whole groups joined into one, padded to the longest rollout."""
    joint = {}
    for name in (field.name for field in fields(StepRollouts)):
        parts = [getattr(batch, name) for batch in rollouts]
        if isinstance(parts[0], Tensor):
            width = max(part.size(1) for part in parts) if parts[0].dim() == 2 else 0
            parts = [pad(part, (0, width - part.size(1))) if part.dim() == 2 else part for part in parts]
            joint[name] = torch.cat(parts)
        else:
            joint[name] = parts[0]
    return StepRollouts(**joint)
