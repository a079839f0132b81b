"""What long completions cost before and after a rollout is scored: ``python benchmarks/long_reasoning.py [PART …]``.

Parts:

- ``steps``: seconds to find the text, the steps and the tokens of each step of ``--completions`` completions of 16k
  tokens: ordinary text with 300 paragraphs, a single character of several tokens in it, such characters everywhere, and
  ids at random. Time of this process on one thread; ``per_token_exponent`` is that of the growth from 1k to 32k tokens.

The tokenizer is a byte-level BPE of the benchmark's own text, 4 characters a token. Results:
``benchmarks/results/long_reasoning.json``, one entry per part.
"""

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_prm.files import write_json
from rlhf_prm.steps import StepSplitter, step_lengths
from rlhf_prm.toyworld.tiny import byte_level_bpe

RESULTS = Path(__file__).parent / "results" / "long_reasoning.json"
TEXT = (
    "wait so the sum of these numbers must be divided by their product before we can compare it with the remainder "
    "which gives another equation for the unknown value hence let me check this step again because it looks wrong"
)
WORDS = TEXT.split()


def tokenizer() -> PreTrainedTokenizerFast:
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = TEXT + ".\n\n $x = 12$"
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe([text] * 4, 600, cut, ["<eos>", "<pad>"]), eos_token="<eos>", pad_token="<pad>"
    )


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The b of cost = a·size^b by least squares of the logarithms: 1 is linear."""
    xs, ys = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def completion_ids(kind: str, tokens: int, of: PreTrainedTokenizerFast, draw: random.Random) -> list[int]:
    """Ids of a completion of so many tokens."""
    if kind == "random_ids":
        return [draw.randrange(2, len(of)) for _ in range(tokens)]
    if kind == "split_everywhere":
        ids = of("".join(draw.choice("日本語🙂é×") for _ in range(tokens)) + "\n\n")["input_ids"]
    else:
        paragraphs = (" ".join(draw.choices(WORDS, k=50)) + " $x$ = 12." for _ in range(tokens // 50))
        ids = of("\n\n".join(paragraphs))["input_ids"]
    ids = ids[:tokens]
    if kind == "one_split":
        ids[tokens // 2 : tokens // 2 + 4] = of("🙂")["input_ids"][:4]
    return ids


def seconds(work: Callable[..., Any]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def steps(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of ``step_lengths``, and how they grow with the tokens."""
    of, splitter, draw = tokenizer(), StepSplitter(), random.Random(0)
    found: dict[str, Any] = {"completions": args.completions, "tokens": 16384}
    for kind in ("ordinary", "one_split", "split_everywhere", "random_ids"):
        rows = [completion_ids(kind, 16384, of, draw) for _ in range(16)]
        step_lengths(rows[0], of, splitter)  # each token is looked up once
        copies = args.completions // len(rows)
        taken = sum(seconds(lambda rows=rows: [step_lengths(ids, of, splitter) for ids in rows]) for _ in range(copies))
        sizes = [1024 * 2**n for n in range(6)]
        grown = [completion_ids(kind, size, of, draw) for size in sizes]
        costs = [min(seconds(lambda i=ids: step_lengths(i, of, splitter)) for _ in range(5)) for ids in grown]
        found[kind] = {
            "seconds_of_1024": taken * 1024 / (copies * len(rows)),
            "steps_of_one": len(step_lengths(rows[0], of, splitter)[1]),
            "per_token_exponent": exponent(sizes, costs),
        }
    return found


PARTS = {"steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without any")
    parser.add_argument("--completions", type=int, default=1024)
    parser.add_argument("--label", default="now", help='under which the numbers are kept: "before" for an older tree')
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.parts or PARTS:
        found = PARTS[name](args)
        report[name] = report.get(name, {}) | {args.label: found, "machine": platform.machine() + " cpu, 1 thread"}
        print(name, json.dumps(found, indent=1))
    write_json(args.out, report)


if __name__ == "__main__":
    main()
