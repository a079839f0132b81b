"""``python -m rlhf_prm.toyworld --root runs/cache --settings '{"seed": 1}'`` builds a world."""

import argparse
import json

from rlhf_prm.settings import build
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.tool_world import ToolWorldSettings, build_tool_world

parser = argparse.ArgumentParser(prog="python -m rlhf_prm.toyworld", description="Build a toy world.")
parser.add_argument("--root", default="runs/cache", help="where its stages are kept (%(default)s)")
parser.add_argument("--settings", default="{}", type=json.loads, help="fields of its settings as a JSON object")
parser.add_argument("--tools", action="store_true", help="build the tool world, which has a policy only")
parser.add_argument("--without-prm", action="store_true", help="leave the process reward model out")
parser.add_argument("--without-labels", action="store_true", help="leave the labelled solutions out too")
arguments = parser.parse_args()
if arguments.tools:
    stages = {
        "policy": build_tool_world(build(ToolWorldSettings, arguments.settings, "--settings"), arguments.root).stage
    }
else:
    parts = {"with_prm": not arguments.without_prm, "with_labels": not arguments.without_labels}
    stages = build_world(build(ToyWorldSettings, arguments.settings, "--settings"), arguments.root, **parts).stages
for name, stage in stages.items():
    print(f"{name:12} {stage.seconds:8.1f} s  {'found' if stage.cached else 'built'}  {stage.path}")
