"""What does an outcome model need to learn anything in the toy world? On build 20, where the settings were chosen.

    python benchmarks/outcome_probes.py        # each probe that is not in benchmarks/results/outcome_probes.jsonl

A probe is a number of solutions, where the verdict is learned, and the updates. It is measured by best-of-8 and by how
well its last score (a process model's lowest one) tells right answers from wrong ones to the same problem: from all of
them, and from those that are wrong in one way only, since a model may know one way and be blind to another.
docs/process_outcome.md has the table.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from process_outcome import PROBLEMS, SAMPLES, TRAIN, WORLD, measured, more_solutions

from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.files import read_json, read_json_lines
from rlhf_prm.preflight.within_groups import auroc_within
from rlhf_prm.prm import load_prm
from rlhf_prm.toyworld import labels
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.toyworld.problems import ChainProblem, result
from rlhf_prm.toyworld.reward_model import TRAINING, train_reward_model
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.stages import StageCache
from rlhf_prm.toyworld.world import build_world

BUILD = 20
RESULTS = Path(__file__).parent / "results" / "outcome_probes.jsonl"
CONSTANT = {"lr_scheduler_type": "constant_with_warmup", "eval_every": 200, "patience": 6}
LAST, EVERY = ({"target": "outcome", "verdict_at": where, "metric": "loss"} for where in ("last", "every_step"))
PROBES = {  # solutions, settings of the training
    "2,000 verdicts at the last step": (2000, {**LAST, **CONSTANT, "updates": 1200, "eval_every": 100}),
    "2,000 verdicts at every step": (2000, {**EVERY, **CONSTANT, "updates": 1000, "eval_every": 100}),
    "16,000 verdicts at the last step": (16_000, {**LAST, **CONSTANT, "updates": 2000}),
    "16,000 verdicts at every step": (16_000, {**EVERY, "updates": 1000, "eval_every": 200}),
    "16,000 at every step, longer": (16_000, {**EVERY, "updates": 3200, "batch_size": 16, "eval_every": 400}),
    "2,000 exact step labels": (2000, {"updates": 400, "eval_every": 50}),
}
KINDS = ("length", "fact", "copy")
_LINE = re.compile(r"(\d) (Add|Minus|Times) (\d) = (\d)")


def kinds_of_error(problem: str, steps: Sequence[str]) -> set[str]:
    """In which ways a solution departs from the right chain.

    ``fact``: a line's result is wrong. ``copy``: a line has another operation than the problem at its place.
    ``length``: more or fewer lines than the chain. ``form``: anything else (a digit that is not carried on, no answer).
    """
    chain, previous, found = ChainProblem.parse(problem), None, set()
    lines = [step for step in steps if not step.startswith("Answer")]
    for place, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is None:
            return {"form"}
        digit, operation, operand, outcome = int(match[1]), match[2], int(match[3]), int(match[4])
        if result(digit, operation, operand) != outcome:
            found.add("fact")
        if place < len(chain.chain) and (operation, operand) != chain.chain[place]:
            found.add("copy")
        if digit != (chain.start if previous is None else previous):
            found.add("form")
        previous = outcome
    if len(lines) != len(chain.chain):
        found.add("length")
    if len(lines) == len(steps) or f"{{{previous}}}" not in steps[-1]:
        found.add("form")
    return found


def last(scores: list[float]) -> float:
    """What an outcome model says of a whole solution."""
    return scores[-1]


def told_apart(samples: Sequence[SampledProblem], score_of: Callable[[list[float]], float]) -> dict[str, float | None]:
    """AUROC of a solution's score within groups: right answers against those that are wrong in this way alone."""
    found = {}
    for kind in KINDS:
        groups = []
        for one in samples:
            kept = [
                (score_of(row), right)
                for row, right, steps in zip(one.step_scores, one.correct, one.steps, strict=True)
                if right or kinds_of_error(one.problem, steps) == {kind}
            ]
            groups.append(([score for score, _ in kept], [right for _, right in kept]))
        found[kind] = auroc_within(groups).value
    return found


def row_of(name: str, model: Path, samples: Sequence[SampledProblem]) -> dict:
    """A probe's line of the results."""
    with_scores = scored(samples, load_prm(model))
    training, numbers = read_json(model / TRAINING), measured(with_scores)
    outcome = "target" in PROBES[name][1]
    kinds = told_apart(with_scores, last if outcome else min)
    kept = ("last_auroc", "group_auroc", "auroc", "f1", "last", "min", "product", "mean@1")
    return {
        "build": BUILD, "probe": name, "updates": training["updates"], "kept_update": training["kept_update"],
        "answers": numbers["last_auroc" if outcome else "group_auroc"],
        **{key: numbers[key] for key in kept}, **{f"auroc_{kind}": value for kind, value in kinds.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--probes", nargs="+", choices=PROBES, default=list(PROBES))
    parser.add_argument("--cache", default="runs/cache", help="where built stages are kept (%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = ToyWorldSettings(seed=BUILD, **WORLD)
    world = build_world(settings, arguments.cache, with_prm=False)
    samples, done = checked_samples(world, PROBLEMS, SAMPLES), read_json_lines(RESULTS) if RESULTS.is_file() else []
    for name in (name for name in arguments.probes if name not in {row["probe"] for row in done}):
        size, chosen = PROBES[name]
        solutions = more_solutions(replace(settings, labelled_solutions=size), world.policy_path)[:size]
        given = (labels.outcome_labels if "target" in chosen else labels.gold_labels)(solutions)
        training = {"seed": BUILD, **TRAIN, **chosen}
        build = partial(_train, world.policy_path, labels.stepwise_rows(solutions, given), training)
        stage = StageCache(arguments.cache).stage("probe", {"size": size, **training}, build, (world.stages["policy"],))
        with RESULTS.open("a") as file:
            file.write(json.dumps(row_of(name, stage.path, samples)) + "\n")
        print(name, flush=True)


def _train(policy: Path, rows: Sequence[dict], settings: dict, folder: Path) -> None:
    train_reward_model(policy, rows, folder, **settings)


if __name__ == "__main__":
    main()
