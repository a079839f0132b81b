"""Milliseconds of processor time of every method and of ``step_to_token``, on one thread.

    python benchmarks/methods.py             # the table; exit status 1 if a method with step_to_token is over --limit
    python benchmarks/methods.py --write     # also benchmarks/results/methods_<hardware>.json

Expected: every row ≤ 50 ms at the default size (B = 1024 rollouts, K = 64 steps, T = 4096 tokens).
"""

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from reward import METHODS, StepRollouts, step_to_token
from reward.methods import Method

RESULTS = Path(__file__).parent / "results"


def random_rollouts(rollouts: int, steps: int, tokens: int, group: int) -> StepRollouts:
    """Rows of 1 to ``steps`` steps whose lengths sum to at most ``tokens``; a tenth without an outcome."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, steps + 1, (rollouts, 1), generator=generator)
    counts[0] = steps
    lengths = torch.randint(1, tokens // steps + 1, (rollouts, steps), generator=generator)
    outcomes = torch.randint(0, 2, (rollouts,), generator=generator).float()
    outcomes[torch.rand(rollouts, generator=generator) < 0.1] = torch.nan
    mask = torch.arange(steps) < counts
    scores = torch.rand(rollouts, steps, generator=generator)
    states = torch.randint(-1, steps, (rollouts, steps), generator=generator)
    return StepRollouts(scores, mask, torch.where(mask, lengths, 0), outcomes, group, state_keys=states)


def milliseconds(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and worst of ``repeats`` calls after a warm-up; waiting for other processes does not count."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return 1000 * statistics.median(seconds), 1000 * max(seconds)


def stateless(method: Method) -> Method:
    """The method as a function of rollouts alone: one with a memory starts from the initial one at every call."""
    if not hasattr(method, "initial_memory"):
        return method
    return lambda rollouts: method(rollouts, method.initial_memory())[0]


def hardware() -> dict[str, str | int]:
    """What the numbers were measured on."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    cpu = found.group(1) if found else platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--limit", type=float, default=50.0, help="milliseconds (median) for a method and step_to_token"
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/methods_<hardware>.json")
    args = parser.parse_args()
    torch.set_num_threads(1)

    rollouts = random_rollouts(args.rollouts, args.steps, args.tokens, args.group)
    values, lengths = torch.randn(args.rollouts, args.steps), rollouts.step_lengths
    spread = milliseconds(lambda: step_to_token(values, lengths, args.tokens), args.repeats)
    rows = {"step_to_token alone": {"median_ms": spread[0], "worst_ms": spread[1]}}
    for name, method in METHODS.items():
        called = stateless(method)
        both = milliseconds(lambda m=called: step_to_token(m(rollouts), lengths, args.tokens), args.repeats)
        alone = milliseconds(lambda m=called: m(rollouts), args.repeats)
        rows[name] = {"median_ms": both[0], "worst_ms": both[1], "method_alone_median_ms": alone[0]}

    print(
        f"B={args.rollouts} K={args.steps} T={args.tokens} G={args.group}, {args.repeats} calls, "
        f"one thread of {hardware()['cpu']}"
    )
    print(f"{'method + step_to_token':24}{'median ms':>10}{'worst ms':>10}{'method alone':>14}")
    for name, row in rows.items():
        alone = row.get("method_alone_median_ms")
        print(f"{name:24}{row['median_ms']:10.1f}{row['worst_ms']:10.1f}" + (f"{alone:14.1f}" if alone else ""))
    if args.write:
        slug = re.sub(r"[^a-z0-9]+", "-", str(hardware()["cpu"]).lower()).strip("-")
        path = RESULTS / f"methods_{slug}.json"
        path.parent.mkdir(exist_ok=True)
        setting = {key: getattr(args, key) for key in ("rollouts", "steps", "tokens", "group", "repeats")}
        report = {"date": str(date.today()), "hardware": hardware(), "settings": setting, "milliseconds": rows}
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {path}")
    over = [name for name, row in rows.items() if row["median_ms"] > args.limit]
    if over:
        print(f"over {args.limit:g} ms: {', '.join(over)}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
