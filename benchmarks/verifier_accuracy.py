"""Right verdicts on labelled answers, by category: MathVerifier, math-verify alone, and TRL's ``accuracy_reward``.

    python benchmarks/verifier_accuracy.py [--cases FILE.jsonl] [--write]

A case has ``gold``, ``completion``, ``expected`` (true or false) and ``category``. For the other two the gold is put in
a box, without which they are far worse (``accuracy_reward`` 52.6 % instead of 88.8 % of 972 cases). Expected on the 492
shipped cases: at least 99 % right and at most one false positive.
"""

import argparse
import json
import logging
import re
from collections import defaultdict
from datetime import date
from pathlib import Path

from math_verify import parse, verify
from methods import RESULTS, hardware
from trl.rewards import accuracy_reward

from reward import MathVerifier
from rlhf_prm.files import read_json_lines

CASES = Path(__file__).resolve().parents[1] / "tests" / "verifier" / "data" / "verifier_cases.jsonl"
GRADERS = ("MathVerifier", "math-verify", "accuracy_reward")


def accepted(cases: list[dict]) -> dict[str, list[bool]]:
    """Per grader, whether it takes each answer for right."""
    completions = [case["completion"] for case in cases]
    golds = [case["gold"] for case in cases]
    boxed = [f"\\boxed{{{gold}}}" for gold in golds]
    with MathVerifier() as verifier:
        own = [verdict.status == "correct" for verdict in verifier.verify(completions, golds)]
    alone = [verify(parse(gold), parse(completion)) for gold, completion in zip(boxed, completions, strict=True)]
    theirs = accuracy_reward([[{"role": "assistant", "content": text}] for text in completions], boxed)
    return dict(zip(GRADERS, (own, alone, [bool(reward) for reward in theirs]), strict=True))


def table(cases: list[dict]) -> dict[str, dict]:
    """Per category and in all: cases, and each grader's false negatives and false positives."""
    found = accepted(cases)
    rows: dict[str, dict] = defaultdict(lambda: {"cases": 0, **{grader: [0, 0] for grader in GRADERS}})
    for index, case in enumerate(cases):
        for row in (rows[case["category"]], rows["all"]):
            row["cases"] += 1
            for grader in GRADERS:
                if found[grader][index] != case["expected"]:
                    row[grader][found[grader][index]] += 1
    total = rows.pop("all")
    return {**dict(sorted(rows.items())), "all": total}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--write", action="store_true", help="write it to benchmarks/results")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = table(read_json_lines(args.cases))

    print("false negatives / false positives")
    print(f"{'category':22}{'cases':>6}" + "".join(f"{grader:>18}" for grader in GRADERS))
    for name, row in rows.items():
        print(f"{name:22}{row['cases']:6}" + "".join(f"{row[g][0]:>14} / {row[g][1]}" for g in GRADERS))
    total = rows["all"]
    right = {grader: 1 - sum(total[grader]) / total["cases"] for grader in GRADERS}
    print(f"{'right':28}" + "".join(f"{right[grader]:>17.1%} " for grader in GRADERS))
    if args.write:
        slug = re.sub(r"[^a-z0-9]+", "-", str(hardware()["cpu"]).lower()).strip("-")
        path = RESULTS / f"verifier_accuracy_{slug}.json"
        path.write_text(json.dumps({"date": str(date.today()), "right": right, "rows": rows}, indent=2) + "\n")
        print(f"written: {path}")
    return 0 if right["MathVerifier"] >= 0.99 and total["MathVerifier"][1] <= 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
