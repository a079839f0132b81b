"""A toy world and a tool world that several ranks build together."""

import json
from pathlib import Path

from accelerate import PartialState

from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.tool_world import ToolWorldSettings, build_tool_world


def results_of(folder: Path, parts: list[str]) -> dict:
    """``parts``: a file of settings."""
    state = PartialState(cpu=True)
    world = build_world(ToyWorldSettings(**json.loads(Path(parts[0]).read_text())), folder)
    tools = build_tool_world(ToolWorldSettings(train_problems=8, eval_problems=8, sft_updates=2), folder)
    assert world.stages["policy"].cached and tools.stage.cached  # built in a process that is no rank
    return {"rank": state.process_index, "of": state.num_processes, "prm": str(world.prm_path)}
