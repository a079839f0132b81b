"""``python -m rlhf_prm.wordproblems --root runs/real/cache --settings '{"label_source": "mc"}'`` builds a world."""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of one thread are faster than one of two

from rlhf_prm.settings import build
from rlhf_prm.wordproblems import SCALES, WordWorldSettings, build_world

parser = argparse.ArgumentParser(prog="python -m rlhf_prm.wordproblems", description="Build a word-problem world.")
parser.add_argument("--root", default="runs/cache", help="where its stages are kept (%(default)s)")
parser.add_argument("--scale", choices=SCALES, default="full", help="size of the world (%(default)s)")
parser.add_argument("--settings", default="{}", type=json.loads, help="fields of WordWorldSettings as a JSON object")
parser.add_argument("--without-prm", action="store_true", help="leave the labels and the process reward model out")
arguments = parser.parse_args()
settings = build(WordWorldSettings, {**SCALES[arguments.scale], **arguments.settings}, "--settings")
for name, stage in build_world(settings, arguments.root, with_prm=not arguments.without_prm).stages.items():
    print(f"{name:12} {stage.seconds:8.1f} s  {'found' if stage.cached else 'built'}  {stage.path}", flush=True)
