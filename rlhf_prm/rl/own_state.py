"""Our state in a checkpoint beside the trainer's: the method's memory, and a scorer that is trained too."""

from pathlib import Path
from typing import Any

import torch

MEMORY_FILE = "step_advantages.pt"  # the method's memory
SCORER_FILE = "step_scorer.pt"  # the state of a scorer that is trained along with the policy


def save_own_state(trainer: Any, folder: Path) -> None:
    """Write one file for each part that has a state; the folder is created if needed."""
    for name, (_, owner) in _owners(trainer).items():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(owner.state_dict(), folder / name)


def load_own_state(trainer: Any, checkpoint: Path) -> None:
    """Restore the state from the checkpoint.

    Raises:
        ValueError: the checkpoint is from a run whose method or scorer had no state.
    """
    for name, (whose, owner) in _owners(trainer).items():
        file = checkpoint / name
        if not file.exists():
            raise ValueError(
                f"resume_from_checkpoint: got {checkpoint} without {name}, in which {whose} keeps its state; "
                "expected a checkpoint of a run with the same method and scorer"
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
