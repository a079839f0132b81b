"""The whole pipeline on a real language model: SFT, samples, labels, PRMs, preflight, RL with and without a PRM.

python recipes/real_lm.py                             # make real: SmolLM2-135M-Instruct, two CPU cores
python recipes/real_lm.py --scale smoke               # every stage in minutes, at a size that learns nothing
python recipes/real_lm.py --settings '{"model": "HuggingFaceTB/SmolLM2-360M-Instruct"}'

Every stage is kept under --root and built once: the same command continues a stopped run. --budget is the number of
minutes after which no further stage is started.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of one thread are faster than one of two

from rlhf_prm.ablation.config import load_config, merged
from rlhf_prm.ablation.launch import run_cells
from rlhf_prm.ablation.markdown import markdown
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.files import read_json, write_json
from rlhf_prm.preflight.page import write_preflight
from rlhf_prm.preflight.run import PreflightSettings, preflight
from rlhf_prm.prm import load_prm
from rlhf_prm.settings import build
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.wordproblems import SCALES, WordWorldSettings, build_world

ABLATION = Path(__file__).parent / "configs" / "ablation_word_problems.yaml"
SOURCES = ("judge", "mc", "gold")  # the first is what the policy is trained against
UPDATES = {"full": 40, "small": 10, "smoke": 1}
PREFLIGHT = {"full": (64, 8), "small": (24, 4), "smoke": (4, 2)}  # problems, rollouts of each
PROBED = {"full": 16, "small": 4, "smoke": 0}  # problems whose rollouts are rewritten
FAILED = "the stage failed: {}; its message is above, and the same command goes on there"
MEASURES = ("first_error_f1", "step_auroc_same_position", "auroc_min", "approval_lift")


class Budget:
    """A budget of minutes; when it is used up, the process ends with a message on how to continue."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.start = minutes, time.monotonic()

    def stage(self, name: str) -> None:
        """Print the next stage, or end the process if the time is over."""
        spent = (time.monotonic() - self.start) / 60
        if spent >= self.minutes:
            raise SystemExit(f"budget: {spent:.0f} minutes spent, next is {name}; the same command continues there")
        print(f"\n[{spent:5.1f} min] {name}", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/real"), help="folder of all stages (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", choices=SCALES, default="full", help="(%(default)s)")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of WordWorldSettings over the scale's")
    parser.add_argument("--budget", type=float, default=float("inf"), help="minutes; no stage is begun after them")
    parser.add_argument("--parallel", type=int, default=2, help="processes at once, a thread each (%(default)s)")
    return parser.parse_args()


def build_worlds(arguments: argparse.Namespace, settings: dict[str, Any], budget: Budget) -> None:
    """Build what all label sources share, then their labels and PRMs, ``--parallel`` of them at once."""
    command = [sys.executable, "-m", "rlhf_prm.wordproblems", "--root", str(arguments.root / "cache"), "--settings"]
    budget.stage("policy: base model and supervised fine-tuning")
    policy = [*command, json.dumps(settings), "--without-prm"]
    if subprocess.run(policy).returncode:
        raise SystemExit(FAILED.format("policy"))
    budget.stage(f"labels and PRMs: {', '.join(SOURCES)}")
    waiting = sorted(SOURCES, key=lambda source: source != "mc")  # the longest first
    running: dict[str, subprocess.Popen] = {}
    while waiting or running:
        while waiting and len(running) < arguments.parallel:
            source = waiting.pop(0)
            running[source] = subprocess.Popen([*command, json.dumps({**settings, "label_source": source})])
        status = {source: one.poll() for source, one in running.items()}
        if failed := [source for source, code in status.items() if code]:
            for one in running.values():  # what they have begun is kept
                one.wait()
            raise SystemExit(FAILED.format(f"labels and PRM, {failed[0]}"))
        running = {source: one for source, one in running.items() if status[source] is None}
        time.sleep(0.1)


def check_prms(arguments: argparse.Namespace, settings: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """The preflight of every PRM on the same rollouts of held-out problems, with exact first errors."""
    found, samples = {}, None
    for source in SOURCES:
        data = arguments.root / f"preflight_{source}.json"
        if not data.exists():
            budget.stage(f"preflight: the PRM on labels of {source}")
            world_settings = build(WordWorldSettings, {**settings, "label_source": source}, "--settings")
            world = build_world(world_settings, arguments.root / "cache")
            samples = samples or checked_samples(world, *PREFLIGHT[arguments.scale])
            prm = load_prm(str(world.prm_path), dtype="bfloat16", max_batch_tokens=2048)
            result = preflight(
                prm,
                samples,
                PreflightSettings(probe_problems=PROBED[arguments.scale], seed=arguments.seed),
                policy=world_settings.model,
                prm=f"labels: {source}",
            )
            write_preflight(result, data.with_suffix(".html"), data)
        found[source] = read_json(data)
        print(source, {name: found[source]["measures"].get(name) for name in MEASURES}, found[source]["headline"])
    return found


def train_policies(arguments: argparse.Namespace, settings: dict[str, Any], budget: Budget) -> Path:
    """Outcome-only, the default on the learned PRM, a runner-up, and the ceiling; the table and its page."""
    config = load_config(ABLATION)
    fixed = {"world_settings": {**settings, "label_source": SOURCES[0]}, "stage_cache": str(arguments.root / "cache")}
    if arguments.scale == "smoke":
        fixed |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_generations": 4}
        fixed |= {"max_completion_length": 40, "eval_every": 0}
    config = replace(
        config,
        fixed=merged(config.fixed, fixed),
        grid={"method": {name: point for name, point in config.grid["method"].items() if name != "clip_delta"}},
        seeds=[arguments.seed],
        budget={"updates": UPDATES[arguments.scale]},
        parallel=arguments.parallel,
        output_dir=str(arguments.root / "rl"),
    )
    budget.stage("reinforcement learning")
    runs = run_cells(config, retry=True, say=lambda text: print(text, flush=True))
    table = build_table(config, runs)
    print(markdown(table))
    page = write_page(table, runs, arguments.root / "rl" / "report.html")
    if failed := [run.folder for run in runs if run.state == "failed"]:
        raise SystemExit(f"{len(failed)} runs failed: {failed[0]}/log.txt says why; the same command runs them again")
    return page


def main() -> None:
    arguments = parsed()
    budget = Budget(arguments.budget)
    settings = {"seed": arguments.seed, **SCALES[arguments.scale], **arguments.settings}
    build(WordWorldSettings, settings, "--settings")
    arguments.root = (arguments.root / f"{arguments.scale}-seed{arguments.seed}").resolve()
    arguments.root.mkdir(parents=True, exist_ok=True)
    os.chdir(Path(__file__).parents[1])  # the configurations name files from there
    build_worlds(arguments, settings, budget)
    found = check_prms(arguments, settings, budget)
    page = train_policies(arguments, settings, budget)
    write_json(arguments.root / "prms.json", {name: one["measures"] for name, one in found.items()})
    print(f"\nPRMs: {arguments.root}/preflight_*.html   policies: {page}   each run: {arguments.root}/rl/cells")


if __name__ == "__main__":
    main()
