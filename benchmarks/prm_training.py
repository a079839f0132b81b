"""PRM training: the padded way against micro-batches of like length, in CPU-seconds an update and until it learned.

    OMP_NUM_THREADS=1 python benchmarks/prm_training.py --world long --build 10
    OMP_NUM_THREADS=1 python benchmarks/prm_training.py --lengths real --updates 4 --most 0

Three ways over the same rows with the same seed, gold labels, 64 rows an update:

- padded: rows at random, all padded to the longest of the batch, a mask, the head on every token
- by length: transformers' group_by_length, else the same
- rebalanced: the default; rows at random, cut into micro-batches of like length, no mask, the head on step ends

Time is this process's own CPU time, evaluations left out; the ways take turns, so that other load falls on all alike.
"F1 0.6 after" is the training time at the first evaluation (one each 50 updates, exact labels of 400 held-out
solutions) with that first-error F1. Results go to ``benchmarks/results/prm_training.json`` by world and build.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from rlhf_prm.files import read_json_lines
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.step_data import to_dataset
from rlhf_prm.toyworld.label_stages import ROWS
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.world import ToyWorld, build_world

BATCH, MICRO_BATCH, TARGET, EVERY = 64, 16, 0.6, 50
LENGTHS = Path(__file__).parent / "data" / "processbench_math_step_tokens.json"
RESULTS = Path(__file__).parent / "results" / "prm_training.json"


class PaddedPRMTrainer(PRMTrainer):
    """The plain way: a mask, and the head on every token."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._reads_step_ends = False


WAYS = {
    "padded": (PaddedPRMTrainer, "random", BATCH),
    "by length": (PaddedPRMTrainer, "group_by_length", BATCH),
    "rebalanced": (PRMTrainer, "batch_rebalance", MICRO_BATCH),
}


class Clock(TrainerCallback):
    """CPU-seconds of the updates, without evaluations, and F1 by update; ends the training at ``target``."""

    def __init__(self, target: float | None):
        self.target, self.seconds, self.mark, self.f1 = target, 0.0, 0.0, {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.mark = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.process_time()
        self.seconds, self.mark = self.seconds + now - self.mark, now

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.f1[state.global_step] = metrics["eval_f1"]
        control.should_training_stop = self.target is not None and metrics["eval_f1"] >= self.target
        self.mark = time.process_time()


def trained(
    way: str, world: ToyWorld, rows: Dataset, held_out: Dataset | None, updates: int, learning_rate: float
) -> Clock:
    """One training; with ``held_out`` until the target, without for the time alone."""
    trainer_class, sampling, micro_batch = WAYS[way]
    clock = Clock(None if held_out is None else TARGET)
    with tempfile.TemporaryDirectory() as folder:
        config = PRMConfig(
            output_dir=folder, max_steps=updates, per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=BATCH // micro_batch, learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup", warmup_steps=30, train_sampling_strategy=sampling, seed=0,
            eval_strategy="no" if held_out is None else "steps", eval_steps=EVERY, save_strategy="no",
            logging_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(world.policy_path)
        trainer = trainer_class(
            str(world.policy_path), config, rows, held_out, processing_class=tokenizer, callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock


def rows_of_real_lengths(rows: list[dict], tokenizer: PreTrainedTokenizerBase) -> list[dict]:
    """The toy world's text, cut anew into steps as long as those of real solutions; every third solution has an error.

    The labels mean nothing: only the time is measured.
    """
    text = [token for row in rows for step in row["completions"] for token in tokenizer(step).input_ids]
    solutions = json.loads(LENGTHS.read_text())["tokens_per_step"]
    made, start = [], 0
    for index, lengths in enumerate(solutions):
        steps = []
        for length in lengths:
            start = start if start + length <= len(text) else 0
            steps.append(tokenizer.decode(text[start : start + length]))
            start += length
        labels = [True] * len(steps)
        labels[-1] = index % 3 > 0
        made.append(
            {**rows[0], "completions": steps, "labels": labels, "soft_labels": [float(label) for label in labels]}
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--world", choices=("plain", "long"), default="long")
    parser.add_argument("--build", type=int, default=10)
    parser.add_argument("--lengths", choices=("toy", "real"), default="toy", help="of the rows' steps")
    parser.add_argument("--updates", type=int, default=30, help="of each timed training (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most", type=int, default=600, help="updates until the target F1, at most; 0 leaves it out")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    long_chains = arguments.world == "long"
    world = build_world(
        ToyWorldSettings(seed=arguments.build, long_chains=long_chains, label_source="gold"), with_prm=False
    )
    if arguments.lengths == "real" and arguments.most:
        parser.error("--lengths real measures time alone: expected --most 0")
    rows = read_json_lines(world.stages["labels"].path / ROWS)
    if arguments.lengths == "real":
        rows = rows_of_real_lengths(rows, AutoTokenizer.from_pretrained(world.policy_path))
    rows = to_dataset(rows)
    held_out = to_dataset(world.held_out_solutions(400)) if arguments.most else None
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(arguments.repeats):
        for way in WAYS:
            clock = trained(way, world, rows, None, arguments.updates, arguments.learning_rate)
            best[way] = min(best[way], clock.seconds / arguments.updates)
    result = {way: {"seconds_per_update": seconds} for way, seconds in best.items()}
    for way in WAYS if arguments.most else ():
        clock = trained(way, world, rows, held_out, arguments.most, arguments.learning_rate)
        reached = max(clock.f1.values()) >= TARGET
        result[way] |= {"f1": clock.f1, "seconds_to_target": clock.seconds if reached else None}
        result[way]["seconds"] = clock.seconds
    print(table(result))
    key = f"{arguments.world}/{arguments.build}" if arguments.lengths == "toy" else "real lengths"
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(results | {key: {"settings": vars(arguments), **result}}, indent=1) + "\n")


def table(result: dict[str, dict]) -> str:
    """One line per way, and how often faster the default is."""
    new = result["rebalanced"]
    lines = [f"| way | ms an update | rebalanced is | F1 {TARGET} after | rebalanced is |", "|---|---|---|---|---|"]
    for way, row in result.items():
        ratio = row["seconds_per_update"] / new["seconds_per_update"]
        line = f"| {way} | {1000 * row['seconds_per_update']:.0f} | {ratio:.2f} × as fast |"
        if "seconds" in row:
            seconds, ours = row["seconds_to_target"], new["seconds_to_target"]
            shown = f"{seconds:.0f} s" if seconds else f"not in {row['seconds']:.0f} s ({max(row['f1'].values()):.2f})"
            again = f"{'> ' if not seconds else ''}{row['seconds'] / ours:.1f} ×" if ours else "–"
            line += f" {shown} | {again} |"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
