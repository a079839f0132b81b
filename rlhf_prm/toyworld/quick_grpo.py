"""GRPO in the toy world without TRL's trainer: the same rollouts, advantages and loss, in half the time.

Studies of hundreds of runs use it; recipes and users use ``ProcessGRPOTrainer``. A test checks that both have the same
gradient on the same rollouts (``tests/toyworld/test_quick_grpo.py``).
"""

import copy
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, get_scheduler, set_seed

from reward import step_to_token
from rlhf_prm.files import read_json_lines
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.prm_training.along import quality_of
from rlhf_prm.prm_training.refresh import PRMRefresher, RefreshSettings
from rlhf_prm.rl.live_values import LiveMonteCarloScorer, PolicyAccess
from rlhf_prm.rl.policy_sampling import GeneratorSampler
from rlhf_prm.rl.rollout_scoring import RolloutScoring, ScoredRollout, step_rollouts
from rlhf_prm.rl.scorers import Scorer
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld.evaluate import evaluate_policy
from rlhf_prm.toyworld.label_stages import ROWS
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.refresh_labels import ExactLabeller, toy_labeller
from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.toyworld.verifier import ExactMatchVerifier
from rlhf_prm.toyworld.world import ToyWorld


@dataclass(frozen=True)
class Regime:
    """Length and speed of a policy's training; names are as in GRPOConfig if it has them.

    Args:
        prompts: prompts per update, each with ``num_generations`` rollouts.
    """

    max_steps: int = 80
    prompts: int = 8
    num_generations: int = 8
    learning_rate: float = 3e-4
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 5
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_steps", "prompts", "num_generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")


def quick_grpo(
    world: ToyWorld,
    scorer: Scorer | None,
    method: str,
    method_kwargs: dict[str, Any] | None = None,
    regime: Regime | None = None,
    *,
    seed: int = 0,
    refresh: RefreshSettings | None = None,
    label_options: dict[str, Any] | None = None,
    measure_every: int = 0,
) -> dict[str, Any]:
    """Train the world's policy on its verified prompts and measure it on the held-out ones.

    Every update: one generation batch, one gradient of the token mean of −A·log π (TRL's ``loss_type="bnpo"``,
    ``beta=0``), AdamW without weight decay. A ``LiveMonteCarloScorer`` is given the policy of this run.

    Args:
        refresh: a copy of the PRM is trained on this run's rollouts (``PRMRefresher``); ``scorer`` stays as
            it is. ``label_options`` are keywords of ``toy_labeller``.
        measure_every: updates between measurements of the rollouts' scores against exact step labels, before a
            refresh; 0 = never.

    Returns:
        ``accuracy`` and ``process_accuracy`` after training, ``generated_tokens``, ``seconds`` and ``cpu_seconds`` (of
        this process) of training without the measuring, ``memory``: the final memory of a method that has one, as
        floats; ``refreshes``: the results of ``PRMRefresher.refresh`` with their ``update``; ``learnt``: the same of a
        scorer that is trained too; ``scorer_quality``: ``update`` and ``quality_of`` the scores against exact labels.
    """
    regime = regime or Regime()
    scorer = scorer if refresh is None else copy.deepcopy(scorer)
    tokenizer = AutoTokenizer.from_pretrained(world.policy_path)
    policy = AutoModelForCausalLM.from_pretrained(world.policy_path, dtype=torch.float32)
    set_seed(seed)
    prompts, solutions = list(world.train_dataset["prompt"]), list(world.train_dataset["solution"])
    order = list(range(len(prompts)))
    random.Random(seed).shuffle(order)
    limit = world.settings.max_completion_length
    sampler = PolicySampler(policy, tokenizer, max_new_tokens=limit)
    scoring = RolloutScoring(StepSplitter(SEPARATOR), tokenizer, scorer, ExactMatchVerifier())
    scoring.of_tokens.prompt_ids = lambda texts: tokenizer(texts).input_ids
    scoring.of_tokens.log_probs = partial(_log_probs, policy, pad_token_id=tokenizer.pad_token_id)
    updates = iter(range(regime.max_steps))
    if isinstance(scorer, LiveMonteCarloScorer):
        scorer.policy = PolicyAccess(
            sampler=GeneratorSampler(sampler, tokenizer),
            verifier=scoring.verifier,
            prompt_ids=lambda texts: tokenizer(texts).input_ids,
            max_completion_length=limit,
            seed=lambda: unit_seed(seed, "live values", next(updates)),
        )
    advantages = StepAdvantages(method, method_kwargs or {})
    optimizer = torch.optim.AdamW(policy.parameters(), lr=regime.learning_rate, weight_decay=0.0)
    schedule = get_scheduler(regime.lr_scheduler_type, optimizer, regime.warmup_steps, regime.max_steps)
    learner = None
    if refresh is not None:
        labeller = toy_labeller(refresh.labels, world.settings, sampler, **(label_options or {}))
        first_rows = read_json_lines(world.stages["labels"].path / ROWS)[: world.settings.prm_rows]
        learner = PRMRefresher(scorer, labeller, refresh, first_rows=first_rows, seed=seed)
    refreshes, learnt, quality, tokens = [], [], [], 0
    training = _Watch()
    for update in range(regime.max_steps):
        chosen = [order[(update * regime.prompts + i) % len(order)] for i in range(regime.prompts)]
        rows = [index for index in chosen for _ in range(regime.num_generations)]
        prompt_ids = tokenizer([prompts[index] for index in chosen]).input_ids
        sampled = sampler.generate_ids(prompt_ids, regime.num_generations, seed=seed * 1_000_003 + update)
        completions = [ids for group in sampled for ids in group]
        texts = [prompts[index] for index in rows]
        scored = scoring(texts, texts, [solutions[index] for index in rows], completions, learning=True)
        outcomes = torch.tensor([float("nan") if row.reward is None else row.reward for row in scored])
        rollouts = step_rollouts(scored, outcomes, regime.num_generations)
        per_token = advantages(rollouts, update)
        if not advantages.per_token:
            per_token = step_to_token(per_token, rollouts.step_lengths, max(map(len, completions)))
        if scoring.learnt:
            learnt.append({"update": update + 1, **scoring.learnt})
        policy.train()
        policy_loss(
            policy,
            [ids for ids in prompt_ids for _ in range(regime.num_generations)],
            completions,
            per_token,
            tokenizer.pad_token_id,
        ).backward()
        policy.eval()
        clip_grad_norm_(policy.parameters(), regime.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tokens += sum(map(len, completions)) + scoring.sampled_tokens
        if measure_every and (update + 1) % measure_every == 0:
            with training.paused():
                quality.append({"update": update + 1, **exact_quality(scored)})
        if learner is not None:
            learner.collect([row.fresh for row in scored])
            if learner.due(update + 1) and update + 1 < regime.max_steps:
                refreshes.append({"update": update + 1, **learner.refresh(update + 1)})
    seconds, cpu_seconds = training.read()
    measured = evaluate_policy(policy, tokenizer, world.eval_dataset["prompt"], max_new_tokens=limit)
    memory = {name: float(value) for name, value in advantages.memory.items() if value.ndim == 0}
    return {
        **measured,
        "generated_tokens": tokens,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "memory": memory,
        "refreshes": refreshes,
        "learnt": learnt,
        "scorer_quality": quality,
    }


class _Watch:
    """Wall seconds and processor seconds of this process, without what happens in its pauses."""

    def __init__(self) -> None:
        self._since, self._passed = self._now(), [0.0, 0.0]

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def read(self) -> list[float]:
        return [before + now - since for before, now, since in zip(self._passed, self._now(), self._since, strict=True)]

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._passed = self.read()
        yield
        self._since = self._now()


def exact_quality(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    """``quality_of`` the scores of these rollouts, against the labels of the exact checker."""
    labels = ExactLabeller().labels([row.fresh for row in scored])
    rows = [one.row(row.prompt, row.steps) for one, row in zip(labels, scored, strict=True)]
    return quality_of([row.scores for row in scored], rows)


def policy_loss(
    policy: PreTrainedModel,
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]],
    advantages: Float[Tensor, "B T"],
    pad_token_id: int,
    written: Sequence[Sequence[bool]] | None = None,
) -> Float[Tensor, ""]:
    """−Σ A·log π over all completion tokens, divided by their number: on-policy, the gradient of the clipped loss.

    ``written``: True at the tokens of a completion that the policy wrote, None = all. The others are context: they are
    in no sum and in no number.
    """
    ids, mask = _padded(prompts, completions, pad_token_id)
    for row, own in enumerate(written or ()):
        mask[row, len(prompts[row]) : len(prompts[row]) + len(own)] = torch.tensor(own).float()
    weights = torch.zeros(mask.shape)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        weights[row, len(prompt) : len(prompt) + len(completion)] = advantages[row, : len(completion)]
    return -(weights[:, 1:] * _next_log_probs(policy, ids) * mask[:, 1:]).sum() / mask[:, 1:].sum()


def _padded(
    prompts: Sequence[list[int]], completions: Sequence[list[int]], pad_token_id: int
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Prompt and completion in one row, and 1 at the completion's tokens."""
    width = max(len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True))
    ids, mask = torch.full((len(prompts), width), pad_token_id), torch.zeros(len(prompts), width)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, : len(prompt) + len(completion)] = torch.tensor([*prompt, *completion])
        mask[row, len(prompt) : len(prompt) + len(completion)] = 1
    return ids, mask


def _next_log_probs(policy: PreTrainedModel, ids: Int[Tensor, "B T"]) -> Tensor:
    """log π of every token but the first. Padding is on the right and attention is causal: no mask is needed."""
    return policy(ids[:, :-1]).logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


@torch.no_grad()
def _log_probs(
    policy: PreTrainedModel, prompts: list[list[int]], completions: list[list[int]], *, pad_token_id: int
) -> list[Tensor]:
    """log π of the completion tokens of each rollout."""
    ids, _ = _padded(prompts, completions, pad_token_id)
    rows = zip(_next_log_probs(policy, ids), prompts, completions, strict=True)
    return [row[len(prompt) - 1 : len(prompt) + len(ids) - 1] for row, prompt, ids in rows]
