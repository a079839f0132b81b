"""The cost of a PRM per training update: outcome-only against dense on the same policy, and which parts overlap.

    python benchmarks/training_update.py --data FOLDER [--updates 4] [--rounds 3]

Two measurements. (1) GRPO updates of a random policy on GSM8K problems, outcome-only and dense in turn, split into the
trainer's parts. (2) Scoring 256 real completions: PRM alone, verifier alone, and both as the trainer runs them
(submit → score → collect); "hidden" is the share of the verifier's time that no longer shows.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from reward import MathVerifier
from rlhf_prm.files import read_json_lines
from rlhf_prm.prm import load_prm
from rlhf_prm.prompts import load_prompts
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.rollout_scoring import RolloutScoring
from rlhf_prm.runs.folder import versions
from rlhf_prm.steps import StepSplitter
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.toyworld.tiny import tiny_random_models

PARTS = {"_generate": "generation", "_calculate_rewards": "scoring", "training_step": "update"}


def update_seconds(dataset, policy, prm, verifier, updates: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of an update and of its parts, per method, after one warm-up update in each round.

    The weights stay as they are, so both sample the same completions. The methods take turns, so that a machine that is
    busier for a while slows both. With one thread on a CPU the clock is the thread's own, which other processes do not
    slow. "rest" is the loss, the backward pass and the optimizer.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter
    seconds = {method: {part: [] for part in PARTS.values()} for method in ("outcome", "immediate")}
    for seed in range(rounds):
        for method, scorer in (("outcome", None), ("immediate", prm)):
            with tempfile.TemporaryDirectory() as folder:
                trainer = trainer_of(method, dataset, policy, scorer, verifier, updates, seed, folder)
                for name, part in PARTS.items():
                    one_round: list[float] = []
                    setattr(trainer, name, timed(getattr(trainer, name), one_round, clock))
                    seconds[method][part].append(one_round)
                trainer.train()
    result = {}
    for method, parts in seconds.items():
        medians = {part: statistics.median(x for r in rows for x in r[1:]) for part, rows in parts.items()}
        result[method] = medians | {"rest": medians["update"] - medians["generation"] - medians["scoring"]}
    return result


def trainer_of(method, dataset, policy, scorer, verifier, updates, seed, folder) -> ProcessGRPOTrainer:
    return ProcessGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        args=ProcessGRPOConfig(
            output_dir=folder,
            method=method,
            seed=seed,
            learning_rate=0.0,  # or the two would soon sample other completions, which cost more than what is measured
            max_steps=updates + 1,
            per_device_train_batch_size=16,
            num_generations=8,
            max_completion_length=128,
            logging_steps=100,
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        processing_class=saved_tokenizer(policy),
        step_scorer=scorer,
        verifier=verifier,
    )


def timed(function, seconds: list[float], clock):
    def measured(*args, **keywords):
        start = clock()
        result = function(*args, **keywords)
        seconds.append(clock() - start)
        return result

    return measured


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
    parser.add_argument("--updates", type=int, default=4, help="of each method in each round")
    parser.add_argument("--rounds", type=int, default=3)
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
        prm = load_prm(prm_path)
        with MathVerifier() as verifier:
            updates = update_seconds(dataset, policy, prm, verifier, args.updates, args.rounds)
        scoring = scoring_seconds(rows, policy, prm, MathVerifier)
    extra = updates["immediate"]["update"] - updates["outcome"]["update"]
    prm_seconds = updates["immediate"]["scoring"] - updates["outcome"]["scoring"]
    beyond = (extra - prm_seconds) / updates["outcome"]["update"]
    report = {
        "update": updates,
        "extra_seconds": extra,
        "beyond_prm_share": beyond,
        "scoring": scoring,
        "versions": versions(),
    }
    for method, seconds in updates.items():
        print(f"{method:<10}", "  ".join(f"{name} {value:.3f} s" for name, value in seconds.items()))
    share = extra / updates["outcome"]["update"]
    print(f"dense costs {extra:+.3f} s an update ({share:+.0%}), {beyond:+.1%} beyond the PRM")
    print("  ".join(f"{name} {value:.3f}" for name, value in scoring.items()))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
