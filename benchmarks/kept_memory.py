"""What an update of a real language model costs on a CPU, with and without ``keep_freed_memory``.

    python benchmarks/kept_memory.py [--updates 5] [--repeats 3]

Supervised fine-tuning of a random model with SmolLM2-135M's shape, 8 rows an update, in processes of one thread that
take turns. Processor seconds of an update after two that warm up, and how many of them the system spends.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, set_seed

from rlhf_prm.toyworld.policy import IGNORED, fine_tune
from rlhf_prm.wordproblems.kept_memory import keep_freed_memory

SHAPE = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3}
ROWS, PROMPT, TOKENS, WARM_UP = 8, 60, 110, 2


def seconds_of(updates: int) -> tuple[float, float]:
    """Processor and system seconds of an update."""
    set_seed(0)
    config = LlamaConfig(**SHAPE, **HEADS, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    used = []
    for count in (WARM_UP, updates):
        drawn = torch.randint(2, SHAPE["vocab_size"], (count * ROWS, TOKENS)).tolist()
        rows = [(ids, [IGNORED] * PROMPT + ids[PROMPT:]) for ids in drawn]
        before = resource.getrusage(resource.RUSAGE_SELF)
        fine_tune(model, rows, batch_size=ROWS, learning_rate=1e-5, pad_token_id=0, half_precision=True)
        after = resource.getrusage(resource.RUSAGE_SELF)
        system = after.ru_stime - before.ru_stime
        used.append(((after.ru_utime - before.ru_utime + system) / count, system / count))
    return used[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=("left", "kept"), help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.side:
        if arguments.side == "kept" and not keep_freed_memory():
            raise SystemExit("the C library is not glibc: there is nothing to compare")
        print(json.dumps(seconds_of(arguments.updates)))
        return
    found: dict[str, list[list[float]]] = {"left": [], "kept": []}
    for _ in range(arguments.repeats):
        for side, seen in found.items():
            command = [sys.executable, __file__, "--side", side, "--updates", str(arguments.updates)]
            seen.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    for side, seen in found.items():
        total, system = (statistics.median(column) for column in zip(*seen, strict=True))
        print(f"{side}: {total:.2f} s an update, {system:.2f} s of them the system's")
    ratios = [left[0] / kept[0] for left, kept in zip(found["left"], found["kept"], strict=True)]
    print(f"left / kept: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
