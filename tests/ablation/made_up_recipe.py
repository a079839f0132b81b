"""A recipe that takes milliseconds: accuracy from a seeded draw, a fixed effect of the method, failures on demand."""

import json
import random
import sys
import time
from pathlib import Path

import yaml

from rlhf_prm.files import write_json

EFFECT = {"outcome": 0.0, "good": 0.1, "null": 0.0, "bad": -0.1}


def main() -> None:
    arguments = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    folder, method, seed = Path(arguments["output_dir"]), arguments["method"], arguments["seed"]
    print(f"{method} {seed} begins")
    if method == arguments.get("broken"):
        raise RuntimeError("the loss is NaN")
    gate = arguments.get("gate")
    while gate and method == "good" and seed == 1 and not Path(gate).exists():
        time.sleep(0.01)
    build = random.Random(seed).gauss(0.5, 0.05)  # what a seed's cells share
    noise = random.Random(f"{method} {seed} {arguments.get('weight')}").gauss(0, 0.01)
    after = build + EFFECT[method] * arguments.get("weight", 1.0) + noise
    steps = arguments.get("max_steps", 10)
    rows = [
        {"step": n, "eval/accuracy": 0.3 + (after - 0.3) * n / steps, "generated_tokens": 100 * n} for n in (5, steps)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "method": method,
        "seed": seed,
        "accuracy": {"before": 0.3, "after": after},
        "seconds": {"rl": time.time()},
    }
    write_json(folder / "summary.json", summary)  # whole, as a run writes it: another call may be looking


if __name__ == "__main__":
    main()
