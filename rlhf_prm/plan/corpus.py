"""Estimates the cost of a corpus of problems: sample, label by completions, score, train. Prints a Markdown table.

``python -m rlhf_prm.plan.corpus``. The rates are those of ``rlhf-prm plan``: operations and bandwidths, not measured.
"""

from dataclasses import dataclass

from rlhf_prm.plan.memory import RunPlan
from rlhf_prm.plan.shapes import SHAPES, ModelShape
from rlhf_prm.plan.timing import GPUS, Efficiency, Hardware, generation_seconds, training_seconds

WAVE = 512  # rollouts that one GPU's vLLM gets at a time


@dataclass(frozen=True)
class Corpus:
    """``solutions`` are sampled for each problem, and ``completions`` from the start of each of ``steps`` in each."""

    problems: int = 10_000_000
    solutions: int = 8
    completions: int = 8
    steps: int = 8
    prompt_tokens: int = 256
    completion_tokens: int = 1024
    policy: ModelShape = SHAPES["7B"]
    prm: ModelShape = SHAPES["72B"]


@dataclass(frozen=True)
class Stage:
    """``tokens`` written (or read, if nothing is written) and the GPU-seconds that they take."""

    name: str
    tokens: float
    gpu_seconds: float


def stages(corpus: Corpus, gpu: Hardware, share: Efficiency) -> list[Stage]:
    """The four stages. A completion from half way writes half of the tokens; its prefix is read once per step."""
    rollouts, length = corpus.problems * corpus.solutions, corpus.completion_tokens
    whole, half = (
        _plan(corpus, corpus.prompt_tokens, length),
        _plan(corpus, corpus.prompt_tokens + length // 2, length // 2),
    )
    from_steps = rollouts * corpus.steps * corpus.completions
    read = rollouts * whole.tokens
    trunk = 2 * corpus.prm.layers * corpus.prm.layer_parameters + corpus.prm.attention_flops_per_token(whole.tokens)
    shared_prefix = (1 - 1 / corpus.completions) * half.prompt_tokens * corpus.policy.forward_flops_per_token
    per_completion = generation_seconds(half, gpu, share) / WAVE - shared_prefix / (gpu.flops * share.scoring)
    return [
        Stage("sample solutions", rollouts * length, rollouts * generation_seconds(whole, gpu, share) / WAVE),
        Stage("complete from every step", from_steps * length / 2, from_steps * per_completion),
        Stage("score all steps", read, read * trunk / (gpu.flops * share.scoring)),
        Stage("train the policy once on each", read, rollouts * training_seconds(whole, gpu, share) / WAVE),
    ]


def _plan(corpus: Corpus, prompt: int, completion: int) -> RunPlan:
    """A GPU that gives vLLM nine tenths of its memory, and trains at the planner's rate."""
    return RunPlan(
        policy=corpus.policy,
        prm=None,
        gpus=1,
        zero=0,
        rollouts=WAVE,
        prompt_tokens=prompt,
        completion_tokens=completion,
        per_device_train_batch_size=1,
        vllm_gpu_memory_utilization=0.9,
    )


def table(gpus: int = 1024, gpu: str = "h100", share: Efficiency | None = None) -> str:
    """Tokens, GPU-hours and days on ``gpus`` GPUs, for short and for long completions."""
    lines = [
        "| stage | completions of 1k: tokens | GPU-hours | days | of 16k: tokens | GPU-hours | days |",
        "|---|---|---|---|---|---|---|",
    ]
    both = [stages(Corpus(completion_tokens=length), GPUS[gpu], share or Efficiency()) for length in (1024, 16384)]
    totals = [Stage("all", sum(s.tokens for s in one), sum(s.gpu_seconds for s in one)) for one in both]
    for short, long in [*zip(*both, strict=True), tuple(totals)]:
        cells = [
            f"{stage.tokens:.1e} | {stage.gpu_seconds / 3600:,.0f} | {stage.gpu_seconds / gpus / 86400:.1f}"
            for stage in (short, long)
        ]
        lines.append(f"| {short.name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
