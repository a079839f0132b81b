"""What long completions cost before and after a rollout is scored: ``python benchmarks/long_reasoning.py [PART …]``.

Parts:

- ``steps``: seconds to find the text, the steps and the tokens of each step of ``--completions`` completions of 16k
  tokens: ordinary text with 300 paragraphs, a single character of several tokens in it, such characters everywhere, and
  ids at random. Time of this process on one thread; ``per_token_exponent`` is that of the growth from 1k to 32k tokens.
- ``gather``: bytes that all ranks together receive for one update, of texts and numbers ("before") and of numbers with
  the texts of 256 rollouts ("now"), and how that grows with tokens (1k to 32k), rollouts (64 to 4,096) and ranks (1 to
  64, 64 rollouts of 16k tokens each).
- ``guard``: seconds that HackGuard's measures of 64 rollouts take, of whole texts ("before") and of their last 8,000
  characters ("now"), and how that grows with the tokens.
- ``merge``: seconds to cut 64 completions of 16k tokens into at most 64 steps, and how that grows with the tokens.
- ``prm``: how many times as fast the PRM scorer with its defaults is as with a forward for every rollout: groups of 8
  with prompts and completions of several lengths (``shared``: its prefix was run once), and 64 ragged short rollouts.

The tokenizer is a byte-level BPE of the benchmark's own text, 4 characters a token. Results:
``benchmarks/results/long_reasoning.json``, one entry per part.
"""

import argparse
import json
import math
import pickle
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from prm_scoring import write_checkpoint
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_prm.files import write_json
from rlhf_prm.guard.accuracy import update_measures
from rlhf_prm.prm import load_prm
from rlhf_prm.rl.gathered_texts import kept_texts
from rlhf_prm.rl.rollout_scoring import ScoredRollout, step_rollouts
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


def scored_row(tokens: int, of: PreTrainedTokenizerFast, draw: random.Random) -> ScoredRollout:
    """A rollout as it is scored, with a number for every step."""
    ids = completion_ids("ordinary", tokens, of, draw)
    texts, lengths = step_lengths(ids, of, StepSplitter())
    scores = [draw.random() for _ in texts]
    return ScoredRollout("p" * 200, of.decode(ids), texts, lengths, scores, 1.0, "correct", solution="12")


def gather(args: argparse.Namespace) -> dict[str, Any]:
    """Bytes received by all ranks: ranks × the rows of all of them."""
    of, draw = tokenizer(), random.Random(0)

    def received(tokens: int, rollouts: int, ranks: int, budget: int | None) -> float:
        row = scored_row(tokens, of, draw)
        kept = sum(kept_texts(0, rollouts, rollouts, 8, budget))
        whole, bare = len(pickle.dumps(row)), len(pickle.dumps(row.without_text()))
        return float(ranks * (kept * whole + (rollouts - kept) * bare))

    axes = {
        "tokens": [(1024 * 2**n, 4096, 64) for n in range(6)],
        "rollouts": [(16384, 64 * 2**n, 64) for n in range(7)],
        "ranks": [(16384, 64 * 2**n, 2**n) for n in range(7)],
    }
    found: dict[str, Any] = {}
    for name, budget in (("before", None), ("now", 256)):
        found[name] = {"bytes_64_ranks_of_64_16k": received(16384, 4096, 64, budget)}
        for number, (axis, cases) in enumerate(axes.items()):
            costs = [received(*case, budget) / (case[2] if axis == "ranks" else 1) for case in cases]
            found[name][f"{axis}_exponent"] = exponent([case[number] for case in cases], costs)
    return found


def guard(args: argparse.Namespace) -> dict[str, Any]:
    of, draw = tokenizer(), random.Random(0)
    found: dict[str, Any] = {"rollouts": 64, "tokens": 16384}
    for name, characters in (("before", 10**9), ("now", 8_000)):

        def cost(tokens: int, count: int, most: int = characters) -> float:
            rows = [scored_row(tokens, of, draw) for _ in range(count)]
            batch = SimpleNamespace(rollouts=step_rollouts(rows, torch.ones(count), count), rows=rows)
            return seconds(lambda: update_measures([batch], 64, most))

        sizes = [1024 * 2**n for n in range(6)]
        found[name] = {
            "seconds": 4 * cost(16384, 16),
            "tokens_exponent": exponent(sizes, [cost(size, 2) for size in sizes]),
        }
    return found


def merge(args: argparse.Namespace) -> dict[str, Any]:
    of, draw, splitter = tokenizer(), random.Random(0), StepSplitter(limit=64)

    def cost(tokens: int, count: int) -> float:
        rows = [completion_ids("ordinary", tokens, of, draw) for _ in range(count)]
        step_lengths(rows[0], of, splitter)
        return seconds(lambda: [step_lengths(ids, of, splitter) for ids in rows])

    sizes = [1024 * 2**n for n in range(6)]
    costs = [min(cost(size, 1) for _ in range(5)) for size in sizes]
    return {"seconds": cost(16384, 64), "limit": 64, "tokens_exponent": exponent(sizes, costs)}


def prm(args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds on one thread of a tiny random PRM, ways in turn: the median of the ratios of neighbours."""
    torch.set_num_threads(1)
    draw = random.Random(0)

    def text(tokens: int) -> str:
        return " ".join(f"w{draw.randrange(1000)}" for _ in range(tokens))

    def cut(tokens: int) -> list[str]:
        return [text(min(39, tokens - at)) for at in range(0, tokens, 40)]

    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), "tiny")
        alone, defaults = load_prm(name, max_batch_tokens=1, share_prefix=False), load_prm(name)
    found: dict[str, Any] = {"groups": []}

    def speedup(problems: list[str], rollouts: list[list[str]], times: int = 5) -> float:
        ratios = []
        for _ in range(times):
            first, second = (seconds(lambda s=scorer: s.score(problems, rollouts)) for scorer in (alone, defaults))
            ratios.append(first / second)
        return statistics.median(ratios)

    for prompt, tokens in ((64, 128), (256, 128), (512, 256), (512, 512), (1024, 256), (1024, 1024), (2048, 1024)):
        before = defaults.stats.shared_prefixes
        ratio = speedup([text(prompt)] * 8, [cut(tokens) for _ in range(8)])
        shared = defaults.stats.shared_prefixes > before
        found["groups"].append({"prompt": prompt, "completion": tokens, "shared": shared, "speedup": ratio})
    short = [draw.randint(16, 96) for _ in range(64)]
    found["short_ragged"] = speedup([text(20) for _ in short], [cut(tokens) for tokens in short], times=15)
    return found


PARTS = {"prm": prm, "steps": steps, "gather": gather, "guard": guard, "merge": merge}


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
