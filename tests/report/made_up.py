"""Made-up run folders in the layout that the recipes write."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_run(
    folder: Path,
    method: str = "immediate",
    seed: int = 0,
    updates: int = 20,
    groups: int = 4,
    size: int = 8,
    step_text: str | None = None,
    scores: bool = True,
    baseline: bool = True,
    drift: float = 0.4,
    steps_up_to: int = 6,
) -> Path:
    """A run whose accuracy climbs by ``drift``; with a PRM that tells right from wrong most of the time."""
    draw = random.Random(f"{method} {seed}")
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    metrics = []
    for update in range(1, updates + 1):
        right = 0.3 + drift * update / updates
        rows = []
        for group in range(groups):
            prompt = f"Start 3. Add {draw.randint(2, 6)}. Times {draw.randint(2, 6)}. (problem {update}.{group})"
            rows += [_rollout(draw, update, prompt, right, step_text, scores, steps_up_to) for _ in range(size)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "completions" / f"completions_{update:05d}.parquet")
        metrics.append(_metrics(draw, update, rows, scores))
        if update % max(1, updates // 4) == 0:
            metrics.append({"step": update, "eval/accuracy": right, "eval/process_accuracy": 0.9 * right})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    summary = {
        "method": method,
        "seed": seed,
        "accuracy": {"before": 0.3, "after": 0.3 + drift},
        "process_accuracy": {"before": 0.27, "after": 0.27 + drift},
        "baseline": {
            "method": "outcome",
            "accuracy": {"before": 0.3, "after": 0.55},
            "process_accuracy": {"before": 0.27, "after": 0.5},
        },
        "seconds": {"sft": 27.1, "labels": 40.2, "prm": 26.4, "rl": 14.9, "baseline": 13.2, "evaluation": 9.9},
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "trl": "1.16.0"},
        "eval_problems": 2048,
        "settings": {
            "recipe": {"eval_every_limit": 256},
            "method": method,
            "seed": seed,
            "learning_rate": 3e-4,
            "max_steps": updates,
        },
    }
    if baseline:
        write_run(folder / "baseline", "outcome", seed, updates, groups, size, step_text, False, False, 0.25)
        (folder / "baseline" / "summary.json").unlink()
    else:
        del summary["baseline"]
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _rollout(draw, update, prompt, right, step_text, scores, steps_up_to) -> dict:
    correct = draw.random() < right
    count = draw.randint(2, steps_up_to)
    steps = [step_text or f"3 Add {k} = {draw.randint(0, 9)}" for k in range(count)] + [r"Answer: \boxed{7}"]
    fault = draw.randrange(count) if not correct else count + 1
    values = [min(0.99, max(0.01, draw.gauss(0.85 if k < fault else 0.25, 0.15))) for k in range(count + 1)]
    outcome = 1.0 if correct else 0.0
    row = {
        "step": update,
        "prompt": prompt,
        "completion": "\n\n".join(steps),
        "outcome_reward": outcome,
        "verifier_status": "correct" if correct else draw.choice(["incorrect", "incorrect", "no_answer"]),
        "advantage": outcome - right,
    }
    if scores:
        row |= {
            "steps": steps,
            "step_scores": values,
            "step_advantages": [outcome - right + 0.5 * value for value in values],
        }
    return row


def _metrics(draw, update, rows, scores) -> dict:
    outcome = sum(row["outcome_reward"] for row in rows) / len(rows)
    row = {
        "step": update,
        "reward": outcome,
        "rewards/outcome_reward/mean": outcome,
        "completions/mean_length": 30 + draw.random() * 4,
        "loss": draw.gauss(0, 0.05),
        "step_time": 0.4 + 0.05 * draw.random(),
        "verifier/seconds": 0.02 + 0.01 * draw.random(),
    }
    if scores:
        flat = [score for row in rows for score in row["step_scores"]]
        row |= {
            "process/step_score/mean": sum(flat) / len(flat),
            "process/step_score/min": sum(min(r["step_scores"]) for r in rows) / len(rows),
            "process/num_steps/mean": sum(len(r["step_scores"]) for r in rows) / len(rows),
            "process/auroc": 0.8 + 0.05 * draw.random(),
            "advantage/frac_zero": 0.1,
            "prm/seconds": 0.1 + 0.02 * draw.random(),
            "hack/no_answer": 0.05 + 0.02 * draw.random(),
            "hack/repetition": 0.02 * draw.random(),
        }
    return row
