"""Compares MathVerifier with ``trl.rewards.accuracy_reward`` on the same completions, in turn.

    python benchmarks/verifier.py --data FOLDER --write       # 1 to 4 minutes, most of it TRL's time-outs

Three workloads of 512 completions from real data (MATH-500 solutions, GSM8K model outputs; a third against a wrong
gold): distinct ones; 64 problems × 8 completions sharing golds and answers; distinct ones with 2 % adversarial ones.
Expected with 2 workers on 2 cores: at least 1.8, 3.5 and 10 times as fast. The verifier's workers are warm and its
cache is empty each time; ``accuracy_reward`` is warm too. On the last workload ``accuracy_reward`` gets its own process
and is stopped after ``--patience`` seconds: then the ratio is a lower bound.
"""

import argparse
import ast
import gzip
import json
import logging
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

from methods import RESULTS, hardware

from reward import MathVerifier, Verdict

SIZE = 512
REQUIRED = {"distinct": 1.8, "groups of 8": 3.5, "2 % adversarial": 10.0}
Workload = tuple[list[str], list[str]]  # completions, golds


def read(path: Path) -> list[dict]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.decode().splitlines()]


def boxed_outputs(row: dict) -> list[str]:
    """The model outputs of a GSM8K row, their last line "A: 18" as a box."""
    found = [ast.literal_eval(value) if isinstance(value, str) else value for key, value in row.items() if "b_" in key]
    return [re.sub(r"A: (.*)\s*$", r"The answer is $\\boxed{\1}$.", output["solution"]) for output in found]


def distinct(data: Path) -> Workload:
    """384 MATH-500 solutions and 128 GSM8K outputs, no two alike; every third against another problem's gold."""
    math = [(row["solution"], row["answer"]) for row in read(data / "math500.jsonl")[:384]]
    gsm = [
        (boxed_outputs(row)[index % 4], row["ground_truth"].rsplit("A: ")[-1].strip())
        for index, row in enumerate(read(data / "gsm8k_example_model_solutions.jsonl")[: SIZE - 384])
    ]
    completions, golds = map(list, zip(*math, *gsm, strict=True))
    golds[::3] = golds[3::3] + golds[:1]
    return completions, golds


def groups(data: Path) -> Workload:
    """32 GSM8K and 32 MATH problems, 8 completions each: distinct texts, few distinct answers, as GRPO samples them."""
    completions, golds = [], []
    for row in read(data / "gsm8k_example_model_solutions.jsonl")[:32]:
        outputs = boxed_outputs(row)
        completions += outputs + [f"Let me think.\n{output}" for output in outputs]
        golds += [row["ground_truth"].rsplit("A: ")[-1].strip()] * 8
    rows = read(data / "math500.jsonl")[100:132]
    for index, row in enumerate(rows):
        other = rows[index - 1]["answer"]
        for sample in range(8):
            solution = row["solution"] if sample < 5 else row["solution"].replace(row["answer"], other)
            completions.append(f"Attempt {sample}. {solution}")
            golds.append(row["answer"])
    return completions, golds


def adversarial(data: Path) -> Workload:
    """The distinct workload, every 51st completion replaced by one that was written to hang a verifier."""
    completions, golds = distinct(data)
    hostile = read(data / "verifier_adversarial.jsonl.gz")
    places = range(25, SIZE, 51)
    for place, row in zip(places, hostile[20 :: len(hostile) // len(places)], strict=False):
        completions[place] = row["completion"]
    return completions, golds


def trl_rewards(workload: Workload) -> list[float | None]:
    from trl.rewards import accuracy_reward

    logging.disable(logging.WARNING)
    completions, golds = workload
    messages = [[{"role": "assistant", "content": text}] for text in completions]
    return accuracy_reward(messages, [f"\\boxed{{{gold}}}" for gold in golds])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timed_in_child(workload: Workload, queue: multiprocessing.Queue) -> None:
    trl_rewards(tuple(part[:8] for part in workload))
    queue.put(seconds(lambda: trl_rewards(workload)))


def patient_seconds(workload: Workload, patience: float) -> tuple[float, bool]:
    """Seconds `accuracy_reward` takes in the main thread of its own process, and whether it came back at all."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=timed_in_child, args=(workload, queue))
    process.start()
    try:
        return queue.get(timeout=patience + 30), True
    except Exception:  # queue.Empty: it is still at it
        return patience, False
    finally:
        process.kill()


def ours(workload: Workload, workers: int, deadline: float) -> tuple[float, dict, list[Verdict]]:
    """Seconds of one pass over warm workers and an empty cache, and how the completions were decided."""
    with MathVerifier(workers=workers, deadline=deadline) as verifier:
        warm = [rf"\boxed{{\sqrt{{{n}}}+\sqrt{{2}}}}" for n in range(2, 2 + 4 * workers)]
        verifier.verify(warm, ["x+1"] * len(warm))
        verifier.counts.clear()
        start = time.perf_counter()
        pending = verifier.submit(*workload)
        submitted = time.perf_counter()
        verdicts = pending.result()
        end = time.perf_counter()
    split = {
        **{f"{how}": verifier.counts[how] for how in ("at once", "repeated", "compared")},
        "submitting_seconds": round(submitted - start, 4),
        "waiting_seconds": round(end - submitted, 4),
        "comparing_seconds": round(sum({id(v): v.seconds for v in verdicts}.values()), 4),
        "timeouts": sum(verdict.status == "timeout" for verdict in verdicts),
    }
    return end - start, split, verdicts


def compare(workload: Workload, repeats: int, workers: int, deadline: float, patience: float | None) -> dict:
    """Both on one workload, in turn; medians, and how often the two agree."""
    own, theirs, finished, same = [], [], True, None
    for _ in range(repeats):
        taken, split, verdicts = ours(workload, workers, deadline)
        own.append(taken)
        if patience is None:
            start = time.perf_counter()
            rewards = trl_rewards(workload)
            theirs.append(time.perf_counter() - start)
            same = sum(bool(v.reward) == bool(reward) for v, reward in zip(verdicts, rewards, strict=True))
    if patience is not None:
        taken, finished = patient_seconds(workload, patience)
        theirs.append(taken)
    row = {
        "verifier_seconds": statistics.median(own),
        "trl_seconds": statistics.median(theirs),
        "trl_finished": finished,
    }
    row["ratio"] = row["trl_seconds"] / row["verifier_seconds"]
    return {**row, "same_verdicts": same, "repeats": repeats, "split": split}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="a folder with math500.jsonl (openai/prm800k), gsm8k_example_model_solutions.jsonl "
        "(openai/grade-school-math) and verifier_adversarial.jsonl.gz (rows with a completion)",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=180.0, help="seconds accuracy_reward gets for the last")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/verifier_<hardware>.json")
    args = parser.parse_args()

    works = {
        "distinct": distinct(args.data),
        "groups of 8": groups(args.data),
        "2 % adversarial": adversarial(args.data),
    }
    trl_rewards(tuple(part[:32] for part in works["distinct"]))
    print(f"{'512 completions':18}{'accuracy_reward':>17}{'MathVerifier':>14}{'ratio':>9}{'required':>10}{'same':>6}")
    rows = {}
    for name, work in works.items():
        hostile = name == "2 % adversarial"
        row = compare(work, args.repeats, args.workers, args.deadline, args.patience if hostile else None)
        rows[name] = row
        theirs = f"{'' if row['trl_finished'] else '> '}{row['trl_seconds']:.2f} s"
        same = "-" if row["same_verdicts"] is None else row["same_verdicts"]
        print(f"{name:18}{theirs:>17}{row['verifier_seconds']:12.3f} s{row['ratio']:9.1f}{REQUIRED[name]:10}{same:>6}")
    print("\nhow MathVerifier decided them")
    for name, row in rows.items():
        print(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in row["split"].items()))
    if args.write:
        slug = re.sub(r"[^a-z0-9]+", "-", str(hardware()["cpu"]).lower()).strip("-")
        path = RESULTS / f"verifier_{slug}.json"
        setting = {key: getattr(args, key) for key in ("workers", "deadline", "repeats", "patience")}
        software = {name: version(name) for name in ("trl", "math-verify", "sympy")}
        report = {
            "date": str(date.today()),
            "hardware": hardware(),
            "software": software,
            "settings": setting,
            "rows": rows,
        }
        path.write_text(json.dumps(report | {"rows": rows}, indent=2) + "\n")
        print(f"written: {path}")
    return 0 if all(row["ratio"] >= REQUIRED[name] for name, row in rows.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
