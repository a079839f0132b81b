"""A toy world that several ranks build together."""

import json
from pathlib import Path

from accelerate import PartialState

from rlhf_prm.toyworld import ToyWorldSettings, build_world


def results_of(folder: Path, parts: list[str]) -> dict:
    """``parts``: a file of settings."""
    state = PartialState(cpu=True)
    world = build_world(ToyWorldSettings(**json.loads(Path(parts[0]).read_text())), folder)
    return {"rank": state.process_index, "of": state.num_processes, "prm": str(world.prm_path)}
