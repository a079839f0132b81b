"""What an update's log-probabilities cost on a CPU: TRL's fused head on all tokens, and ours on the completions alone.

    python benchmarks/cpu_head.py [--rows 16] [--repeats 5] [--write]

A random model with the width and the vocabulary of SmolLM2-135M and fewer layers; rows of word problems' lengths.
Forward and backward, in CPU seconds of one thread, which other processes do not slow.
"""

import argparse
import json
import statistics
import tempfile
import time

import torch
from datasets import Dataset
from methods import RESULTS, hardware
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed
from trl import GRPOTrainer

from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.toyworld.tokenizer import toy_tokenizer

PROMPT, COMPLETION = 120, 80  # tokens of the longest


def model_of(layers: int) -> Qwen2ForCausalLM:
    set_seed(0)
    shape = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": layers}
    return Qwen2ForCausalLM(
        Qwen2Config(**shape, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
    )


def batch_of(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of 60 to 120 tokens, padded on the left; completions of 20 to 80, padded on the right."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 49152, (rows, PROMPT + COMPLETION), generator=generator)
    prompts = torch.randint(PROMPT // 2, PROMPT + 1, (rows, 1), generator=generator)
    completions = torch.randint(COMPLETION // 4, COMPLETION + 1, (rows, 1), generator=generator)
    places = torch.arange(PROMPT + COMPLETION)
    mask = (places >= PROMPT - prompts) & (places < PROMPT + completions)
    return ids, mask.long()


def seconds(owner: type, trainer: ProcessGRPOTrainer, ids: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
    """CPU seconds of a forward with backward, and the sum of the log-probabilities."""
    trainer.model.zero_grad()
    start = time.thread_time()
    method = owner._get_per_token_logps_and_entropies
    log_probs, *_ = method(trainer, trainer.model, ids, mask, COMPLETION, compute_entropy=True)
    log_probs.sum().backward()
    return time.thread_time() - start, float(log_probs.detach().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/cpu_head.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = ProcessGRPOConfig(
            folder, method="outcome", use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False
        )
        trainer = ProcessGRPOTrainer(
            model_of(args.layers),
            config,
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            train_dataset=Dataset.from_dict({"prompt": ["1"] * 8}),
            processing_class=toy_tokenizer(),
        )
        ids, mask = batch_of(args.rows)
        found = {"all tokens (TRL)": [], "completions": []}
        for _ in range(args.repeats + 1):  # in turn; the first pair warms up
            for name, owner in zip(found, (GRPOTrainer, ProcessGRPOTrainer), strict=True):
                found[name].append(seconds(owner, trainer, ids, mask))
    medians = {name: statistics.median(spent for spent, _ in runs[1:]) for name, runs in found.items()}
    sums = {name: runs[-1][1] for name, runs in found.items()}
    for name, spent in medians.items():
        print(f"{name:18} {spent:.2f} CPU s   log-probabilities sum to {sums[name]:.4f}")
    every, ours = medians.values()
    scored = int(mask[:, PROMPT:].sum())
    print(f"{1 - ours / every:.0%} less; {scored} of {mask.numel() - len(mask)} rows of the head")
    if args.write:
        result = {"hardware": hardware(), "rows": args.rows, "layers": args.layers, "seconds": medians, "sums": sums}
        (RESULTS / "cpu_head.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
