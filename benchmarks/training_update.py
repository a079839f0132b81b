"""The cost of a PRM per training update: outcome-only against dense on the same policy, and which parts overlap.

    OMP_NUM_THREADS=1 python benchmarks/training_update.py --data FOLDER [--pairs 40] [--out FILE]

Two measurements. (1) GRPO updates of a random policy on GSM8K problems: every batch is trained on twice, outcome-only
and dense, by one trainer in one process, and what is compared are the two updates of a pair. What a dense update spends
beyond the PRM's own forward is split into its parts. (2) Scoring 256 real completions: PRM alone, verifier alone, and
both as the trainer runs them (submit → score → collect); "hidden" is the share of the verifier's time that no longer
shows.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from reward import MathVerifier
from rlhf_prm.files import read_json_lines
from rlhf_prm.prm import load_prm
from rlhf_prm.prompts import load_prompts
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.rollout_scoring import RolloutScoring
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.runs.folder import versions
from rlhf_prm.steps import StepSplitter
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.toyworld.tiny import tiny_random_models

METHODS = ("outcome", "immediate")
PROBLEMS, GENERATIONS = 2, 8  # of an update
STEP = r"(?<=\d)|(?<=[.,])"  # what a random policy writes has no blank lines; this gives some twelve steps
# Part → the trainer's method whose seconds it is; "own" parts are ours, and lie in none of the others.
PARTS = {
    "generation": "_generate",
    "scoring": "_calculate_rewards",
    "advantages": "_advantages",
    "logging": "_log_rollouts",
    "loss": "compute_loss",
    "update": "training_step",
}
PRM_FORWARD = "PRM's forward"


@dataclass
class Clock:
    """Seconds of named parts of each update, by CPU and by wall.

    With one thread on a CPU the CPU's clock is the thread's own, which other processes on the machine do not slow but
    through the caches; elsewhere it is the wall's.
    """

    cpu: Callable[[], float] = time.perf_counter
    now: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args, **keywords):
            begun, wall = self.cpu(), time.perf_counter()
            result = work(*args, **keywords)
            self.now[name] += self.cpu() - begun
            self.now[f"{name}, wall"] += time.perf_counter() - wall
            return result

        return measured


class InTurns(TrainerCallback):
    """Before each update the trainer is made outcome-only or dense, in drawn order; behind it its seconds are kept."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.trainer = clock, None
        self.scorer, self.advantages = None, {name: StepAdvantages(name, {}) for name in METHODS}
        self.pairs: list[dict[str, dict[str, float]]] = []
        self.order: list[str] = []

    def on_step_begin(self, args, state, control, **_):
        number, second = divmod(state.global_step, 2)
        if not second:
            self.order = random.Random(number).sample(METHODS, 2)
            self.pairs.append({})
        self.method = self.order[second]
        self.trainer.step_advantages = self.advantages[self.method]
        self.trainer.scoring.step_scorer = None if self.method == "outcome" else self.scorer
        torch.manual_seed(number)  # both sample the same completions
        self.clock.now.clear()

    def on_step_end(self, args, state, control, **_):
        self.pairs[-1][self.method] = dict(self.clock.now)


def update_seconds(dataset, policy, prm, verifier, pairs: int) -> dict[str, Any]:
    """Medians over pairs of updates: of outcome-only's parts, of dense's, and of the differences within a pair.

    The weights stay as they are. "beyond" is what a dense update costs more than an outcome-only one plus the PRM's
    forward; "beyond_share" is its median over the pairs against the median outcome-only update, and "error" the
    standard error of that median by a bootstrap over pairs.
    """
    one_thread = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = Clock(time.thread_time if one_thread else time.perf_counter)
    turns = InTurns(clock)
    with tempfile.TemporaryDirectory() as folder:
        trainer = turns.trainer = trainer_of(twice(dataset, pairs + 1), policy, prm, verifier, pairs + 1, folder, turns)
        turns.scorer = trainer.scoring.step_scorer
        for part, name in PARTS.items():
            setattr(trainer, name, clock.timed(part, getattr(trainer, name)))
        with prm.placement.resident() as reader:
            for name in ("forward", "prefix"):
                setattr(reader, name, clock.timed(PRM_FORWARD, getattr(reader, name)))
            trainer.train()
            steps = trainer.last_rollouts.rollouts.num_steps.float().mean().item()
    kept = turns.pairs[1:]  # the first warms up
    names = [name for name in kept[0]["immediate"] if not name.endswith("wall")]
    of = {m: {n: statistics.median(pair[m].get(n, 0.0) for pair in kept) for n in names} for m in METHODS}
    beyond = [p["immediate"]["update"] - p["outcome"]["update"] - p["immediate"][PRM_FORWARD] for p in kept]
    wall = [p["immediate"]["update, wall"] - p["outcome"]["update, wall"] for p in kept]
    differences = {
        n: statistics.median(p["immediate"].get(n, 0.0) - p["outcome"].get(n, 0.0) for p in kept) for n in names
    }
    once, draw = of["outcome"]["update"], random.Random(0)
    again = [statistics.median(draw.choices(beyond, k=len(beyond))) for _ in range(1000)]
    return {
        "pairs": len(kept),
        "steps_per_rollout": steps,
        "seconds": of,
        "differences": differences,
        "wall": {
            "outcome": statistics.median(p["outcome"]["update, wall"] for p in kept),
            "extra": statistics.median(wall),
        },
        "extra_share": differences["update"] / once,
        "prm_forward_share": of["immediate"][PRM_FORWARD] / once,
        "beyond_share": statistics.median(beyond) / once,
        "beyond_share_error": statistics.stdev(again) / once,
        # What is ours by name, beside the PRM's forward: rendering and batching its texts, advantages, logs.
        "own_share": sum(differences[n] for n in ("scoring", "advantages", "logging")) / once
        - of["immediate"][PRM_FORWARD] / once,
    }


def twice(dataset: Dataset, pairs: int) -> Dataset:
    """The problems of each update two times, one update after the other."""
    rows = [i % len(dataset) for n in range(pairs) for i in 2 * list(range(PROBLEMS * n, PROBLEMS * (n + 1)))]
    return dataset.select(rows)


def trainer_of(dataset, policy, prm, verifier, pairs, folder, turns) -> ProcessGRPOTrainer:
    return ProcessGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        args=ProcessGRPOConfig(
            output_dir=folder,
            method="immediate",
            step_pattern=STEP,
            learning_rate=0.0,  # or the two would soon sample other completions, which cost more than what is measured
            max_steps=2 * pairs,
            per_device_train_batch_size=PROBLEMS * GENERATIONS,
            num_generations=GENERATIONS,
            shuffle_dataset=False,
            max_completion_length=128,
            logging_steps=100,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        processing_class=saved_tokenizer(policy),
        step_scorer=prm,
        verifier=verifier,
        callbacks=[turns],
    )


def scoring_seconds(rows: list[dict], policy, prm, verifier_class) -> dict[str, float]:
    """Wall seconds for the same completions: PRM alone, verifier alone, both together."""
    tokenizer = saved_tokenizer(policy)
    problems = [row["problem"] for row in rows]
    solutions = [row["solution"] for row in rows]
    ids = [tokenizer(row["completion"], add_special_tokens=False)["input_ids"] for row in rows]
    result = {}
    for name, scorer, verified in (("prm", prm, False), ("verifier", None, True), ("together", prm, True)):
        with verifier_class() as verifier:  # a fresh one each time: nothing remembered
            verifier.verify(["\\boxed{1}"], ["2"])
            scoring = RolloutScoring(StepSplitter("\n"), tokenizer, scorer, verifier if verified else None)
            start = time.perf_counter()
            scoring(problems, problems, solutions, ids)
            result[name] = time.perf_counter() - start
            result[f"{name}_waiting_for_verifier"] = scoring.seconds["verifier"]
    result["verifier_hidden_share"] = 1 - result["together_waiting_for_verifier"] / result["verifier"]
    return result


def real_completions(path: Path, count: int) -> list[dict]:
    rows = []
    for row in read_json_lines(path)[: count // 2]:
        for model in ("175b_verification", "6b_verification"):
            steps, _, answer = row[model]["solution"].rpartition("A:")
            gold = row["ground_truth"].rpartition("A:")[2].strip()
            text = f"{steps}\\boxed{{{answer.strip()}}}"
            rows.append({"problem": row["question"], "solution": gold, "completion": text})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40, help="of updates, one of each method")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="a folder with gsm8k_train_2000.jsonl (question, answer) and "
        "gsm8k_example_model_solutions.jsonl of openai/grade-school-math",
    )
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    args = parser.parse_args()
    columns = {"prompt": "question", "solution": "answer"}
    dataset = load_prompts(str(args.data / "gsm8k_train_2000.jsonl"), columns=columns, limit=256)
    rows = real_completions(args.data / "gsm8k_example_model_solutions.jsonl", 256)
    with tempfile.TemporaryDirectory() as folder:
        policy, prm_path = tiny_random_models(list(dataset["problem"]), folder, seed=0)
        with MathVerifier() as verifier:
            update = update_seconds(dataset, policy, load_prm(prm_path), verifier, args.pairs)
        scoring = scoring_seconds(rows, policy, load_prm(prm_path), MathVerifier)
    for method, seconds in update["seconds"].items():
        print(f"{method:<10}", "  ".join(f"{name} {value:.4f} s" for name, value in seconds.items()))
    shares = {
        name: f"{update[name]:+.1%}" for name in ("extra_share", "prm_forward_share", "beyond_share", "own_share")
    }
    print(
        f"{update['steps_per_rollout']:.1f} steps a rollout;", shares, f"± {update['beyond_share_error']:.1%} (beyond)"
    )
    print("  ".join(f"{name} {value:.3f}" for name, value in scoring.items()))
    if args.out:
        args.out.write_text(json.dumps({"update": update, "scoring": scoring, "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
