"""Finds the checkpoint that a run resumes from."""

import json
import logging
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

logger = logging.getLogger(__name__)


def checkpoint_to_resume(config: Any, required: bool = True) -> str | None:
    """The checkpoint to resume from: the one named, or for ``true`` the newest complete one of the folder.

    Raises:
        ValueError: resuming was asked for, is ``required``, and there is nothing to resume from.
    """
    wanted = str(config.resume_from_checkpoint or "false")
    if wanted.lower() == "false":
        return None
    if wanted.lower() != "true" and required:
        if not (Path(wanted) / TRAINER_STATE_NAME).is_file():
            raise ValueError(f"resume_from_checkpoint: no checkpoint at {wanted}")
        return wanted
    folder = Path(config.output_dir)
    newest = _newest_checkpoint(folder)
    if newest is None and required:
        raise ValueError(f"resume_from_checkpoint: no checkpoint in {folder}; set save_steps and run without it first")
    return newest


def _newest_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint: transformers writes the trainer's state last."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text())
            return str(path)
        except (OSError, json.JSONDecodeError):
            logger.warning("%s is incomplete; resuming from the one before", path)
    return None
