"""What ranks are told of each other's rollouts, counted: ``python benchmarks/gathered_bytes.py [--out FILE]``.

Two processes train one update together over gloo, on scripted completions, and every collective that gathers is
counted: the bytes that a rank receives where all texts are gathered and where few are (``gathered_texts``), and who
gathered them. From the bytes of a rollout with its text and without it follows what 1 to 64 ranks receive.
"""

import argparse
import multiprocessing
import os
import random
import socket
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from datasets import Dataset
from torch.distributed import distributed_c10d
from transformers import AutoModelForCausalLM

from reward.verifier import Verdict
from rlhf_prm.files import write_json
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.cpu_ranks import prepare_cpu_ranks
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.toyworld.tiny import tiny_random_models

RESULTS = Path(__file__).parent / "results" / "gathered_bytes.json"
PROBLEM = "How many apples are left of twelve when five have been eaten?"
WORDS = ["so", "the", "sum", "of", "these", "numbers", "must", "be", "divided", "by", "their", "product", "again"]
GENERATIONS = 8


class RandomScores:
    """A score for every step."""

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        return [[random.random() for _ in row] for row in steps]


class EveryOther:
    """Verdicts in turns."""

    def verify(self, completions: list[str], solutions: list[str]) -> list[Verdict]:
        names = ("correct", "incorrect")
        return [Verdict(float(i % 2 == 0), names[i % 2], None, 0.0) for i in range(len(completions))]


@contextmanager
def counted() -> Iterator[Counter]:
    """Within it: (who gathers, what) → bytes that this rank received by ``all_gather``."""
    received: Counter = Counter()
    theirs = {name: getattr(distributed_c10d, name) for name in ("all_gather", "all_gather_into_tensor")}

    def counting(name: str) -> Any:
        def gather(output: Any, *args: Any, **keywords: Any) -> Any:
            tensors = output if isinstance(output, list) else [output]
            received[_caller()] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            return theirs[name](output, *args, **keywords)

        return gather

    try:
        for name in theirs:
            setattr(distributed_c10d, name, counting(name))
            setattr(torch.distributed, name, getattr(distributed_c10d, name))
        yield received
    finally:
        for name, function in theirs.items():
            setattr(distributed_c10d, name, function)
            setattr(torch.distributed, name, function)


def _caller() -> str:
    """Whose code gathers, and whether objects or tensors; our seam only shortens what TRL gathers."""
    stack = traceback.extract_stack()
    kind = "objects" if any(frame.name == "all_gather_object" for frame in stack) else "tensors"
    for frame in reversed(stack[:-2]):
        path = Path(frame.filename).parts
        if ("rlhf_prm" in path and path[-1] != "trl_seam.py") or "trl" in path:
            return f"{'ours' if 'rlhf_prm' in path else 'TRL'}: {kind}"
    return f"other: {kind}"


def completion(tokenizer: Any, tokens: int, draw: random.Random) -> list[int]:
    """So many tokens in paragraphs of fifty."""
    ids: list[int] = []
    while len(ids) < tokens:
        ids += tokenizer(" ".join(draw.choices(WORDS, k=50)) + ".\n\n", add_special_tokens=False)["input_ids"]
    return ids[:tokens]


def one_rank(rank: int, ranks: int, port: int, case: dict[str, int], folder: str, told: Any) -> None:
    """One update of this rank; what it received goes to ``told``."""
    address = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    address |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ.update({name: str(value) for name, value in address.items()})
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    torch.set_num_threads(1)
    prepare_cpu_ranks()
    policy, _ = tiny_random_models([PROBLEM, " ".join(WORDS), ".\n\n"], folder, seed=0)
    tokenizer, draw = saved_tokenizer(policy, padding_side="left"), random.Random(rank)
    written = [completion(tokenizer, case["tokens"], draw) for _ in range(case["rollouts"])]

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": written, "logprobs": None}

    trainer = ProcessGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, max_position_embeddings=2 * case["tokens"]),
        args=ProcessGRPOConfig(
            output_dir=str(Path(folder) / "run"),
            method="immediate",
            per_device_train_batch_size=case["rollouts"],
            num_generations=GENERATIONS,
            max_completion_length=case["tokens"],
            gathered_texts=case["gathered_texts"],
            max_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": [PROBLEM] * 64, "solution": ["7"] * 64}),
        processing_class=tokenizer,
        step_scorer=RandomScores(),
        verifier=EveryOther(),
        rollout_func=rollouts,
    )
    with counted() as received:
        trainer.train()
    rows = trainer.last_rollouts.rows
    told.put((rank, dict(received), len(rows), sum(row.has_text for row in rows)))
    torch.distributed.destroy_process_group()


def measured(ranks: int, rollouts: int, tokens: int, gathered_texts: int, deadline: float = 240) -> dict[str, Any]:
    """What the first rank received in one update of so many ranks, which are forks of this process."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        processes = multiprocessing.get_context("fork")
        told = processes.Queue()
        case = {"rollouts": rollouts, "tokens": tokens, "gathered_texts": gathered_texts}
        tiny_random_models([PROBLEM, " ".join(WORDS), ".\n\n"], folder, seed=0)
        work = [processes.Process(target=one_rank, args=(n, ranks, port, case, folder, told)) for n in range(ranks)]
        for one in work:
            one.start()
        try:
            answers = sorted(told.get(timeout=deadline) for _ in work)
        finally:
            for one in work:
                one.join(5)
                if one.is_alive():
                    one.kill()
    _, received, rows, texts = answers[0]
    return {"ranks": ranks, "rows": rows, "texts": texts, "received": received, "bytes": sum(received.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=32, help="of each rank")
    parser.add_argument("--tokens", type=int, default=1024, help="of each completion")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    cases = {name: measured(2, args.rollouts, args.tokens, budget) for name, budget in (("all", 0), ("sample", 16))}
    every, few = cases["all"], cases["sample"]
    of_text = (every["bytes"] - few["bytes"]) / (every["texts"] - few["texts"])
    of_numbers = every["bytes"] / every["rows"] - of_text

    def all_ranks(ranks: int, texts: float) -> float:
        rows = ranks * 64
        return ranks * (rows * of_numbers + min(rows, texts) * of_text)

    simulated = {
        str(2**n): {"all": all_ranks(2**n, float("inf")), "gathered_texts_256": all_ranks(2**n, 256)} for n in range(7)
    }
    report = {
        "tokens": args.tokens,
        "measured_on_2_ranks": cases,
        "bytes_of_a_text": of_text,
        "bytes_of_a_rows_numbers": of_numbers,
        "all_ranks_receive_64_rollouts_each": simulated,
    }
    for name, case in cases.items():
        print(f"{name}: {case['texts']} of {case['rows']} texts, {case['bytes']} bytes a rank", case["received"])
    print(f"a rollout: {of_numbers:.0f} bytes of numbers, {of_text:.0f} of text ({args.tokens} tokens)")
    for ranks, row in simulated.items():
        print(ranks, {name: f"{value / 1e6:.1f} MB" for name, value in row.items()})
    write_json(args.out, report)


if __name__ == "__main__":
    main()
