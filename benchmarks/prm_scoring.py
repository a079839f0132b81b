"""How fast steps are scored, against the ways that peers score them: ``python benchmarks/prm_scoring.py``.

The same rollouts (8 completions a prompt, completion lengths log-normal within 64-2,048 tokens, a step every 40 tokens)
and the same random-weight Qwen2 PRM, from texts to scores:

- ``one_by_one``: a forward for each step over the conversation so far, logits at all tokens, as ProcessBench's
  run_eval_prm_rlhflow.py asks its model and RLHFlow's own evaluation computes;
- ``per_rollout``: a forward for each rollout, logits at all tokens (the published example of Qwen2.5-Math-PRM);
- ``padded_loop``: arrival order, micro-batches of 8 padded to their longest, an attention mask, logits at all tokens;
- ``ours``: the scorer of ``rlhf_prm.prm.load_prm`` with its defaults.

Each runs in its own process. ``seconds`` are the best of ``--repeats``: CPU time of the process on a CPU (one thread,
so that other programs on the machine count little), wall time on a GPU. ``peak_mib`` is memory above what stands there
before the first forward. ``sharing`` compares a group's prompt run once with run for each rollout.

On one GPU: ``python benchmarks/prm_scoring.py --device cuda --size 7b --prompts 32``, a 7B shape in bfloat16; not run
on one so far. Results, with the share of the measured matmul peak: ``benchmarks/results/prm_scoring_<hardware>.json``.
"""

import argparse
import json
import math
import multiprocessing
import platform
import random
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel

SIZES = {  # hidden, intermediate, layers, heads, key-value heads
    "tiny": (128, 384, 2, 4, 2),
    "small": (256, 768, 4, 4, 2),
    "7b": (3584, 18944, 28, 28, 4),
}
WORDS, COMPLETIONS, STEP_TOKENS, TAG = 1000, 8, 40, "<extra_0>"
SHARING_CASES = [(64, 128), (128, 512), (256, 128), (512, 256), (512, 1024), (1024, 256)]  # prompt, completion tokens


def write_checkpoint(folder: Path, size: str) -> None:
    """A random PRM and a tokenizer for which a word is a token."""
    vocabulary = {word: i for i, word in enumerate(["[UNK]", TAG, *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]", TAG])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[UNK]").save_pretrained(folder)
    hidden, intermediate, layers, heads, key_value_heads = SIZES[size]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=152064 if size == "7b" else 1024,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    torch.set_default_dtype(torch.bfloat16 if size == "7b" else torch.float32)
    Qwen2ForProcessRewardModel(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)


def words(count: int) -> str:
    return " ".join(f"w{random.randrange(WORDS)}" for _ in range(count))


def rollouts(prompts: int) -> tuple[list[str], list[list[str]]]:
    """Prompts of 60-200 tokens; completions of median 350 tokens, cut into steps."""
    random.seed(0)
    problems, steps = [], []
    for _ in range(prompts):
        problem = words(random.randint(60, 200))
        for _ in range(COMPLETIONS):
            length = 0
            while not 64 <= length <= 2048:
                length = round(random.lognormvariate(math.log(350), 0.8))
            problems.append(problem)
            steps.append([words(min(STEP_TOKENS - 1, length - at)) for at in range(0, length, STEP_TOKENS)])
    return problems, steps


def conversation(problem: str, steps: list[str]) -> str:
    return " ".join([problem, *(f"{step} {TAG}" for step in steps)])


class Peers:
    """The ways of peers, with the model and tokenizer they share."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype):
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.model = Qwen2ForProcessRewardModel.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.tag_id = self.tokenizer.convert_tokens_to_ids(TAG)

    @torch.no_grad()
    def scored(self, texts: list[str]) -> list[list[float]]:
        batch = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(self.model.device)
        mask = {"attention_mask": batch.attention_mask} if len(texts) > 1 else {}
        probabilities = self.model(batch.input_ids, **mask).logits.softmax(-1)[:, :, 1].float()
        return [row[ids == self.tag_id].tolist() for row, ids in zip(probabilities, batch.input_ids, strict=True)]

    def one_by_one(self, problems, steps) -> list[list[float]]:
        return [
            [self.scored([conversation(p, s[: k + 1])])[0][-1] for k in range(len(s))]
            for p, s in zip(problems, steps, strict=True)
        ]

    def per_rollout(self, problems, steps) -> list[list[float]]:
        return [self.scored([conversation(p, s)])[0] for p, s in zip(problems, steps, strict=True)]

    def padded_loop(self, problems, steps) -> list[list[float]]:
        texts = [conversation(p, s) for p, s in zip(problems, steps, strict=True)]
        return [row for begin in range(0, len(texts), 8) for row in self.scored(texts[begin : begin + 8])]


def peak_memory(device: str) -> float:
    """MiB: the most that this process has held."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def best_seconds(run, device: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begun = clock(device)
        run()
        seconds.append(clock(device) - begun)
    return min(seconds)


def measured(way: str, folder: Path, args: argparse.Namespace) -> dict:
    """One way's seconds, memory and scores; runs in its own process."""
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    if way == "ours":
        run = load_prm(folder, device=args.device).score
    else:
        run = getattr(Peers(folder, args.device, dtype), way)
    run(["w1"], [["w2"]])
    before = peak_memory(args.device)
    problems, steps = rollouts(args.prompts)
    scores = run(problems, steps)  # warms up, and shows the peak
    peak = peak_memory(args.device) - before
    seconds = best_seconds(lambda: run(problems, steps), args.device, args.repeats)
    return {"seconds": seconds, "peak_mib": peak, "scores": scores}


def sharing(folder: Path, args: argparse.Namespace) -> list[dict]:
    """Groups of 8 with long and short prompts: seconds with the prompt run 8 times, and once."""
    torch.set_num_threads(1)
    found = []
    alone, shared = (load_prm(folder, device=args.device, share_prefix=share) for share in (False, True))
    for prompt, completion in SHARING_CASES:
        problem = words(prompt)
        steps = [[words(STEP_TOKENS - 1) for _ in range(completion // STEP_TOKENS)] for _ in range(COMPLETIONS)]
        seconds = [
            best_seconds(partial(scorer.score, [problem] * COMPLETIONS, steps), args.device, args.repeats + 1)
            for scorer in (alone, shared)
        ]
        saved = (COMPLETIONS - 1) * prompt / (COMPLETIONS * (prompt + completion))
        found.append({"prompt": prompt, "completion": completion, "saved": saved, "speedup": seconds[0] / seconds[1]})
    return found


def matmul_peak(device: str) -> float:
    """FLOP/s of one large square product in the precision that is scored in."""
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / best_seconds(lambda: a @ b, device, 5)


def useful_flops(args: argparse.Namespace) -> float:
    """Multiply-adds of the linear layers over the real tokens of all rollouts, times 2; attention not counted."""
    hidden, intermediate, layers, heads, key_value_heads = SIZES[args.size]
    per_layer = hidden * hidden * 2 + 2 * hidden * hidden * key_value_heads // heads + 3 * hidden * intermediate
    problems, steps = rollouts(args.prompts)
    tokens = sum(len(conversation(p, s).split()) for p, s in zip(problems, steps, strict=True))
    return 2.0 * tokens * layers * per_layer


def in_own_process(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--size", default="tiny", choices=SIZES)
    parser.add_argument("--prompts", type=int, default=4, help="8 completions each")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder, args.size)
        names = ("ours", "per_rollout", "padded_loop", "one_by_one")
        ways = {name: in_own_process(measured, name, folder, args) for name in names}
        shares = in_own_process(sharing, folder, args)
    ours = ways["ours"]
    flat = {name: [score for row in way.pop("scores") for score in row] for name, way in ways.items()}
    for name, way in ways.items():
        way["speedup_of_ours"] = way["seconds"] / ours["seconds"]
        way["largest_score_gap"] = max(abs(a - b) for a, b in zip(flat[name], flat["ours"], strict=True))
    hardware = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()}_cpu_1_thread"
    peak = matmul_peak(args.device)
    result = {
        "hardware": hardware,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "size": args.size,
        "rollouts": args.prompts * COMPLETIONS,
        "ways": ways,
        "sharing": shares,
        "matmul_peak_flops": peak,
        "share_of_matmul_peak": useful_flops(args) / ours["seconds"] / peak,
    }
    path = Path(__file__).parent / "results" / f"prm_scoring_{hardware.replace(' ', '_').lower()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
