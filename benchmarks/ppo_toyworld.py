"""PPO with dense rewards, PPO with the outcome only, and GRPO in the toy world, at equal generated tokens.

    python benchmarks/ppo_toyworld.py --seeds 0 1 2 3 4 [--tokens 100000] [--runs ppo_dense …] [--cache runs/cache]

Each seed is a world of its own (problems, policy, PRM). Every run starts from that world's policy and stops after the
update in which it has sampled ``--tokens`` completion tokens; accuracy is over the 2048 held-out problems, one sample
each. Prints a Markdown table and appends one JSON line per run to ``--results``; what stands there is not run again.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.files import read_json_lines
from rlhf_prm.prm import load_prm
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.rl.token_budget import TokenBudget
from rlhf_prm.runs.folder import versions
from rlhf_prm.toyworld import ToyWorld, ToyWorldSettings, build_world
from rlhf_prm.toyworld.verifier import ExactMatchVerifier

COMMON = dict(
    per_device_train_batch_size=32,
    max_completion_length=96,
    learning_rate=3e-4,
    lr_scheduler_type="constant_with_warmup",
    warmup_steps=5,
    loss_type="bnpo",
    beta=0.0,
    report_to="none",
    save_strategy="no",
    logging_steps=1,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    disable_tqdm=True,
)
PPO = dict(num_generations=1, critic_learning_rate=1e-3)
RUNS = {
    "grpo_outcome": (ProcessGRPOTrainer, ProcessGRPOConfig, dict(method="outcome", num_generations=8)),
    "grpo_dense": (ProcessGRPOTrainer, ProcessGRPOConfig, dict(method="immediate", num_generations=8)),
    "ppo_outcome": (ProcessPPOTrainer, ProcessPPOConfig, PPO | dict(process_weight=0.0)),
    "ppo_dense": (ProcessPPOTrainer, ProcessPPOConfig, PPO | dict(process_weight=0.5)),
}


def one_run(name: str, world: ToyWorld, seed: int, tokens: int, **changes) -> dict:
    """Trains, evaluates before and after, and gives the numbers."""
    trainer_class, config_class, settings = RUNS[name]
    tokenizer = AutoTokenizer.from_pretrained(world.policy_path)
    model = AutoModelForCausalLM.from_pretrained(world.policy_path)
    before = world.evaluate(model, tokenizer)
    budget = TokenBudget(budget=tokens)
    with tempfile.TemporaryDirectory() as folder:
        settings = COMMON | settings | changes | {"seed": seed, "max_steps": 10_000, "output_dir": folder}
        trainer = trainer_class(
            model=model,
            args=config_class(**settings),
            train_dataset=world.train_dataset,
            processing_class=tokenizer,
            step_scorer=load_prm(world.prm_path),
            verifier=ExactMatchVerifier(),
            callbacks=[budget],
        )
        budget.trainer = trainer
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "run": name,
        "seed": seed,
        "tokens": budget.tokens,
        "updates": trainer.state.global_step,
        "cpu_seconds": round(seconds, 1),
        "before": before,
        "after": world.evaluate(trainer.model, tokenizer),
        "explained_variance": logs[-1].get("critic/explained_variance"),
        "settings": {key: value for key, value in settings.items() if key != "output_dir"},
        "versions": versions(),
    }


def table(rows: list[dict], metric: str) -> str:
    """Seeds down, runs across, the means below."""
    names = [name for name in RUNS if any(row["run"] == name for row in rows)]
    seeds = sorted({row["seed"] for row in rows})
    cell = {(row["run"], row["seed"]): row["after"][metric] for row in rows}
    before = {row["seed"]: row["before"][metric] for row in rows}
    lines = [f"| seed | before | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for seed in seeds:
        cells = (f"{cell[name, seed]:.3f}" if (name, seed) in cell else "–" for name in names)
        lines.append(f"| {seed} | {before[seed]:.3f} | {' | '.join(cells)} |")
    columns = [list(before.values())] + [[cell[n, s] for s in seeds if (n, s) in cell] for n in names]
    lines.append("| mean | " + " | ".join(f"{statistics.mean(column):.3f}" for column in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--cache", default="runs/cache", help="folder of the worlds' cached stages")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ppo_toyworld.jsonl"))
    parser.add_argument("--change", default="{}", help="JSON of settings that replace those of every run, to explore")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    done = read_json_lines(args.results, may_be_cut=True)
    for seed in args.seeds:
        world = build_world(ToyWorldSettings(seed=seed), args.cache)
        for name in args.runs:
            if any((row["run"], row["seed"]) == (name, seed) for row in done):
                continue
            done.append(one_run(name, world, seed, args.tokens, **json.loads(args.change)))
            with args.results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    for metric in ("accuracy", "process_accuracy"):
        print(f"\n{metric}\n{table(done, metric)}")


if __name__ == "__main__":
    main()
