"""What a checkpoint needs beside the trainer's own: the method's memory, a scorer that is trained too, a moving
reference, and the policy's adapter where there are several."""

from pathlib import Path
from typing import Any

import torch

MEMORY_FILE = "step_advantages.pt"  # the method's memory
SCORER_FILE = "step_scorer.pt"  # the state of a scorer that is trained along with the policy
REFERENCE_FILE = "reference.pt"  # the weights of a reference that follows the policy (sync_ref_model)


def save_own_state(trainer: Any, folder: Path) -> None:
    """Write one file for each part that has a state; the folder is created if needed."""
    for name, (_, owner) in _owners(trainer).items():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(owner.state_dict(), folder / name)


def load_own_state(trainer: Any, checkpoint: Path) -> None:
    """Restore the state from the checkpoint.

    Raises:
        ValueError: the checkpoint is from a run whose method or scorer had no state, or the reference follows the
            policy and is sharded, so that no checkpoint has it.
    """
    if _reference_moves(trainer) and _is_sharded(trainer):
        raise ValueError(
            "sync_ref_model: got true in a run to resume under ZeRO-3 or FSDP, expected false: the reference is not in "
            "the checkpoint, so it would start again from the policy before training"
        )
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
    if _reference_moves(trainer) and not _is_sharded(trainer):
        owners[REFERENCE_FILE] = ("sync_ref_model", trainer.accelerator.unwrap_model(trainer.ref_model))
    return owners


def _reference_moves(trainer: Any) -> bool:
    return trainer.args.sync_ref_model and trainer.ref_model is not None


def _is_sharded(trainer: Any) -> bool:
    return trainer.is_fsdp_enabled or any(hasattr(weight, "ds_id") for weight in trainer.ref_model.parameters())


def load_policys_adapter(model: Any, checkpoint: Path) -> None:
    """Load the policy's adapter where the model has several, as an implicit PRM's beside it.

    PEFT writes the one named "default" to the checkpoint itself and each other to a folder; where transformers finds
    such a folder, it loads the folders alone.
    """
    if len(getattr(model, "peft_config", ())) < 2 or not (checkpoint / "adapter_config.json").exists():
        return
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.load_adapter(str(checkpoint), "default", is_trainable=True)
    for name, weight in model.named_parameters():
        weight.requires_grad_(flags[name])
