"""What only a GPU can show, in one command of at most ten minutes on one card of 80 GB or more.

    python benchmarks/gpu.py                              # every part that is not finished yet
    python benchmarks/gpu.py --parts scoring memory       # only these
    python benchmarks/gpu.py --size tiny                  # a rehearsal in seconds; what a machine without CUDA does

Parts, each in a process of its own, so that the memory of one is not the memory of the next:

- ``scoring``: a 7B PRM in bfloat16 over 128 rollouts; our scorer against a padded loop in micro-batches of 8, in
  arrival order, and the share of the card's matmul speed that the scorer reaches;
- ``precision``: updates of a 1.5B policy with float32 weights under bfloat16 autocast and with bfloat16 weights: the
  share of the weights that move at a learning rate of 1e-6, seconds and memory;
- ``memory``: peaks of the phases of an update against what ``rlhf-prm plan`` says, for four settings;
- ``dense``: the same update outcome-only and with dense advantages, seconds by part;
- ``updates``: three updates with the batch of recipes/configs/qwen2.5-math-1.5b_prm-7b.yaml: 128 rollouts of a 1.5B
  policy, a 7B PRM, transformers' generation.

All weights are random, in the published layouts, and built on the device: nothing is downloaded, and no number here
says anything about learning. The result is one JSON file with the card's name; a finished part is not run again
(delete the file, or name another by ``--out``), a failed one is. **Rehearsed on a CPU at tiny sizes only; no number of
a GPU has been taken by it so far.**
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_models import (
    SIZES,
    Coin,
    Size,
    on_device,
    prompts,
    random_policy,
    random_prm,
    random_rollouts,
    words_tokenizer,
)
from transformers import PrinterCallback, Qwen2ForCausalLM, TrainerCallback

from rlhf_prm.plan import RunPlan, memory_by_part
from rlhf_prm.plan.memory import PHASES, RESERVE_BYTES, peak_bytes as planned_bytes
from rlhf_prm.prm import PRMScorer
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.runs.folder import versions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRM_DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
LEARNING_RATE = 1e-6
GENERATIONS = 8
LEAST_MEMORY = 79e9  # bytes of a card sold as 80 GB


# --------------------------------------------------------------------------------------------------------- measuring
def clock() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def best_seconds(run: Callable, repeats: int) -> float:
    """The shortest of ``repeats`` runs; the caller has warmed up."""
    seconds = []
    for _ in range(repeats):
        begun = clock()
        run()
        seconds.append(clock() - begun)
    return min(seconds)


def peak_bytes() -> int:
    """The most that tensors have held since the last call; 0 on a CPU, which keeps no such count."""
    if DEVICE == "cpu":
        return 0
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def freed() -> None:
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# ----------------------------------------------------------------------------------------------------------- scoring
@torch.no_grad()
def padded_loop(scorer: PRMScorer, model, problems: list[str], steps: list[list[str]], rows: int = 8) -> list[list]:
    """Arrival order, micro-batches padded to their longest, logits at every token: how a PRM is usually called."""
    scores = []
    for begin in range(0, len(problems), rows):
        part = slice(begin, begin + rows)
        rendered = [
            scorer.family.rendered(scorer.texts, p, s) for p, s in zip(problems[part], steps[part], strict=True)
        ]
        width = max(len(row.ids) for row in rendered)
        ids = torch.tensor([row.ids + [scorer.texts.pad_id] * (width - len(row.ids)) for row in rendered])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rendered])
        logits = model(ids.to(DEVICE), attention_mask=mask.to(DEVICE), use_cache=False).logits
        probabilities = logits.float().softmax(-1)[..., 1].cpu()
        scores += [values[row.ends].tolist() for values, row in zip(probabilities, rendered, strict=True)]
    return scores


def matmul_flops(side: int) -> float:
    """FLOP/s of a large square product in the precision that is scored in."""
    a, b = (torch.randn(side, side, device=DEVICE, dtype=PRM_DTYPE) for _ in range(2))
    return 2 * side**3 / best_seconds(lambda: a @ b, 20)  # the first ones warm up, the shortest counts


def scoring(size: Size) -> dict:
    peak = matmul_flops(size.matmul)
    scorer, model = random_prm(size.prm, words_tokenizer(size.policy.vocab), PRM_DTYPE, DEVICE)
    problems, steps = random_rollouts(size)
    lengths = [len(scorer.family.rendered(scorer.texts, p, s).ids) for p, s in zip(problems, steps, strict=True)]
    flops = 2 * size.prm.layers * size.prm.layer_parameters * sum(lengths)
    freed()
    ways = {}
    for name, run in (
        ("ours", lambda: scorer.score(problems, steps)),
        ("padded_loop", lambda: padded_loop(scorer, model, problems, steps)),
    ):
        scores = run()  # warms up
        seconds = best_seconds(run, 2)
        ways[name] = {"seconds": seconds, "peak_bytes": peak_bytes(), "share_of_matmul": flops / seconds / peak}
        ways[name]["scores"] = [value for row in scores for value in row]
        freed()
    ours, theirs = (way.pop("scores") for way in ways.values())
    return {
        "rollouts": len(problems),
        "tokens": sum(lengths),
        "attention": model.config._attn_implementation,
        "matmul_flops": peak,
        "ways": ways,
        "speedup": ways["padded_loop"]["seconds"] / ways["ours"]["seconds"],
        "largest_score_gap": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
    }


# --------------------------------------------------------------------------------------------------------- precision
def precision(size: Size) -> dict:
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        found[name] = _updates_in(dtype, size)
        freed()
    return found


def _updates_in(dtype: torch.dtype, size: Size) -> dict:
    """Policy-gradient updates on random tokens and random advantages, by AdamW at 1e-6 with clipped gradients."""
    model = on_device(Qwen2ForCausalLM, size.policy, dtype, DEVICE).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    matrices = [p for p in model.parameters() if p.dim() == 2]
    before = [p.detach().to("cpu", copy=True) for p in matrices]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=DEVICE == "cuda")
    draw = torch.Generator().manual_seed(0)
    moved, seconds = {}, []
    freed()
    for update in range(1, size.precision_updates + 1):
        ids = torch.randint(5, size.policy.vocab, (4, size.completion_tokens), generator=draw).to(DEVICE)
        advantages = torch.randn(ids.size(0), ids.size(1) - 1, generator=draw).to(DEVICE)
        begun = clock()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.float32):
            logits = model(ids, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        (advantages.flatten() * losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(clock() - begun)
        del logits, losses
        if update in (1, size.precision_updates):
            moved[str(update)] = _share_moved(matrices, before)
    return {"share_of_weights_moved": moved, "seconds": statistics.median(seconds[1:]), "peak_bytes": peak_bytes()}


@torch.no_grad()
def _share_moved(now: list[torch.Tensor], before: list[torch.Tensor]) -> float:
    moved = sum(int((p != old.to(p.device)).sum()) for p, old in zip(now, before, strict=True))
    return moved / sum(p.numel() for p in now)


# -------------------------------------------------------------------------------------------- updates of the trainer
class Watched(TrainerCallback):
    """Seconds of each update and peak bytes of its phases; also the PRM, whose call ends sampling and begins training.

    A callback is all that is needed: the trainer is used as it is.
    """

    def __init__(self, scorer: PRMScorer | None) -> None:
        self.scorer = scorer
        self.seconds: list[float] = []
        self.peaks: list[dict[str, int]] = []

    @property
    def stats(self):
        return self.scorer.stats

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        self._close("generate")
        scores = self.scorer.score(problems, steps)
        self._close("score")
        return scores

    def on_step_begin(self, args, state, control, **_) -> None:
        self.begun = clock()
        self.peaks.append(dict.fromkeys(PHASES, 0))
        peak_bytes()

    def on_step_end(self, args, state, control, **_) -> None:
        self._close("train")
        self.seconds.append(clock() - self.begun)

    def _close(self, phase: str) -> None:
        self.peaks[-1][phase] = peak_bytes()


def trained(
    size: Size, scorer: PRMScorer | None, updates: int, *, prompt_count: int, tokens: int, micro: int, **settings
) -> dict:
    """Updates of a fresh policy with float32 weights: seconds by part and the peaks, without the first update."""
    watched = Watched(scorer)
    with tempfile.TemporaryDirectory() as folder:
        trainer = ProcessGRPOTrainer(
            model=random_policy(size.policy, torch.float32, DEVICE),
            args=ProcessGRPOConfig(
                output_dir=folder,
                method="outcome" if scorer is None else "immediate",
                max_steps=updates,
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=prompt_count * GENERATIONS // micro,
                num_generations=GENERATIONS,
                max_completion_length=tokens,
                learning_rate=LEARNING_RATE,
                loss_type="dapo",
                beta=0.0,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                bf16=DEVICE == "cuda",
                use_cpu=DEVICE == "cpu",
                **settings,
            ),
            train_dataset=prompts(size, prompt_count * updates),
            processing_class=words_tokenizer(size.policy.vocab),
            step_scorer=None if scorer is None else watched,
            verifier=Coin(),
            callbacks=[watched],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logs = [log for log in trainer.state.log_history if "step_time" in log][1:]
    names = ("prm/seconds", "steps/seconds", "prm/tokens", "prm/duplicates")
    names += ("completions/mean_length", "process/num_steps/mean", "grad_norm")
    means = {name: statistics.mean(log[name] for log in logs) for name in names if name in logs[0]}
    worst = {phase: max(peaks[phase] for peaks in watched.peaks[1:]) for phase in PHASES}
    result = means | {"update_seconds": watched.seconds, "peak_bytes": worst}
    del trainer
    freed()
    return result


def _prm(size: Size) -> PRMScorer:
    return random_prm(size.prm, words_tokenizer(size.policy.vocab), PRM_DTYPE, DEVICE)[0]


def memory(size: Size) -> dict:
    """Peaks by phase of the second update, against the plan without its reserve (which tensors do not show)."""
    scorer, found = _prm(size), {}
    rollouts = size.prompts // 2 * GENERATIONS
    for micro, checkpointing in ((4, True), (16, True), (4, False), (8, False)):
        settings = {"prompt_count": size.prompts // 2, "tokens": size.completion_tokens // 2, "micro": micro}
        measured = trained(size, scorer, 2, **settings, gradient_checkpointing=checkpointing)["peak_bytes"]
        plan = RunPlan(
            policy=size.policy,
            prm=size.prm,
            gpus=1,
            zero=0,
            prm_tokens=scorer.max_batch_tokens,
            vllm="none",
            rollouts=rollouts,
            prompt_tokens=size.prompt_tokens,
            completion_tokens=size.completion_tokens // 2,
            per_device_train_batch_size=micro,
            gradient_checkpointing=checkpointing,
        )
        planned = {phase: peak - RESERVE_BYTES for phase, peak in planned_bytes(plan).items()}
        found[f"micro-batch {micro}, checkpointing {'on' if checkpointing else 'off'}"] = {
            "planned": planned,
            "measured": measured,
            "measured_over_planned": {phase: measured[phase] / planned[phase] for phase in PHASES},
            "planned_parts": {name: part for name, (part, _) in memory_by_part(plan).items()},
        }
    return found


def dense(size: Size) -> dict:
    """Outcome-only and dense updates of the same policy on the same prompts; the first update of each is left out."""
    settings = {"prompt_count": size.prompts // 2, "tokens": size.completion_tokens // 2, "micro": 8}
    found = {"outcome": trained(size, None, 4, **settings)}
    found["dense"] = trained(size, _prm(size), 4, **settings)
    without, with_prm = (statistics.median(one["update_seconds"][1:]) for one in found.values())
    return found | {"dense_over_outcome": with_prm / without, "extra_seconds": with_prm - without}


def updates(size: Size) -> dict:
    return trained(size, _prm(size), 3, prompt_count=size.prompts, tokens=size.completion_tokens, micro=8)


# ------------------------------------------------------------------------------------------------------------ command
PARTS = {"scoring": scoring, "precision": precision, "memory": memory, "dense": dense, "updates": updates}


def about(size: str) -> dict:
    card = torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU"
    total = torch.cuda.get_device_properties(0).total_memory if DEVICE == "cuda" else 0
    return {"card": card, "card_bytes": total, "size": size, "versions": versions()}


def recorded(path: Path, size: str) -> dict:
    """What is in the file, or an empty record; ``ValueError`` where it is of another card or size."""
    now = about(size)
    if not path.exists():
        return now | {"parts": {}}
    found = json.loads(path.read_text())
    for name in ("card", "size"):
        if found[name] != now[name]:
            raise ValueError(f"{path}: {name} {found[name]!r} there, {now[name]!r} here; name another file by --out")
    return found | now


def run_part(name: str, size: str, limit: float) -> dict:
    """One part in a process of its own: its result, or what went wrong in the last lines it wrote."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "part.json"
        command = [sys.executable, __file__, "--size", size, "--only", name, "--out", str(out)]
        try:
            ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
            error = ended.stdout.strip().splitlines()[-20:] if ended.returncode else []
        except subprocess.TimeoutExpired:
            error = [f"not finished after {limit:.0f} s"]
        seconds = {"wall_seconds": time.perf_counter() - begun}
        if error or not out.exists():
            return seconds | {"error": error or ["wrote nothing"]}
        return json.loads(out.read_text()) | seconds


def run_all(names: list[str], size: str, path: Path, limit: float) -> bool:
    """The parts that are not finished; the file is written after each. True when none failed."""
    record = recorded(path, size)
    print(f"{record['card']}, size {size} → {path}", flush=True)
    for name in names:
        if name in record["parts"] and "error" not in record["parts"][name]:
            print(f"{name}: finished before", flush=True)
            continue
        print(f"{name} …", flush=True)
        record["parts"][name] = part = run_part(name, size, limit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print("\n".join(part["error"]) if "error" in part else json.dumps(part, indent=1), flush=True)
        print(f"{name}: {'FAILED' if 'error' in part else 'done'} after {part['wall_seconds']:.0f} s", flush=True)
    return not any("error" in record["parts"][name] for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--size", choices=SIZES, help="default: real on a GPU, tiny without one")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu_CARD.json; tiny: runs/gpu_tiny.json")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one part")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)  # a part's own process
    args = parser.parse_args()
    size = args.size or ("real" if DEVICE == "cuda" else "tiny")
    if args.only:
        args.out.write_text(json.dumps(PARTS[args.only](SIZES[size])))
        return 0
    if size == "real" and (DEVICE == "cpu" or torch.cuda.get_device_properties(0).total_memory < LEAST_MEMORY):
        parser.error(f"size real needs one GPU of 80 GB or more, got {about(size)['card']}; --size tiny rehearses")
    card = about(size)["card"].lower().replace(" ", "_")
    usual = Path(__file__).parent / "results" / f"gpu_{card}.json" if size == "real" else Path("runs/gpu_tiny.json")
    return 0 if run_all(args.parts, size, args.out or usual, args.limit) else 1


if __name__ == "__main__":
    sys.exit(main())
