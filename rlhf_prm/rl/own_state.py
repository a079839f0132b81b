"""What a checkpoint keeps beside the trainer's state: what the method remembers, and a scorer that learns along."""

from pathlib import Path
from typing import Any

import torch

MEMORY_FILE = "step_advantages.pt"  # what the method remembers
SCORER_FILE = "step_scorer.pt"  # a scorer that learns along


def save_own_state(trainer: Any, folder: Path) -> None:
    """Writes one file for each part that has a state; the folder is made if need be."""
    for name, (_, owner) in _owners(trainer).items():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(owner.state_dict(), folder / name)


def load_own_state(trainer: Any, checkpoint: Path) -> None:
    """Puts back what the checkpoint keeps.

    Raises:
        ValueError: the checkpoint is of a run whose method or scorer had no state.
    """
    for name, (whose, owner) in _owners(trainer).items():
        file = checkpoint / name
        if not file.exists():
            raise ValueError(
                f"resume_from_checkpoint: got {checkpoint} without {name}, in which {whose} keeps its state; "
                "expected a checkpoint of a run with the same"
            )
        owner.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def _owners(trainer: Any) -> dict[str, tuple[str, Any]]:
    """File in a checkpoint → (what it holds, whose ``state_dict`` that is)."""
    owners, method, scorer = {}, trainer.step_advantages, trainer.scoring.step_scorer
    if method.has_memory:
        owners[MEMORY_FILE] = (f"method {method.name!r}", method)
    if hasattr(scorer, "update"):
        owners[SCORER_FILE] = (f"step_scorer {type(scorer).__name__}", scorer)
    return owners
