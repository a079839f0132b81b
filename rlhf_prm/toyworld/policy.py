"""The toy policy: a tiny Qwen2 and its supervised fine-tuning on the demonstrator's solutions."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.toyworld.demonstrator import Demonstrator
from rlhf_prm.toyworld.problems import SEPARATOR, ChainProblem

IGNORED = -100  # the label of tokens that are not learned from


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """Qwen2 with 2 layers of width 96: about 225,000 parameters."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.04,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def new_policy(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2ForCausalLM:
    """A policy with random weights that depend on the seed alone; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(tiny_config(tokenizer))
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, do_sample=True
    )
    return model


def supervised_policy(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[ChainProblem],
    demonstrator: Demonstrator,
    *,
    seed: int,
    batch_size: int,
    learning_rate: float,
) -> Qwen2ForCausalLM:
    """A policy fine-tuned on one demonstration per problem: one pass, AdamW, one-cycle learning rate.

    Args:
        problems: their number divided by ``batch_size`` (rounded down) is the number of updates.
        learning_rate: the peak.
    """
    rng = random.Random(f"demonstrations {seed}")
    rows = [_tokens(tokenizer, problem, demonstrator.solution(problem, rng)) for problem in problems]
    return fine_tuned_policy(tokenizer, rows, seed=seed, batch_size=batch_size, learning_rate=learning_rate)


def fine_tuned_policy(
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[tuple[list[int], list[int]]],
    *,
    seed: int,
    batch_size: int,
    learning_rate: float,
) -> Qwen2ForCausalLM:
    """A new policy after one pass over ``rows``: token ids, and the labels, ``IGNORED`` where nothing is learned."""
    model = new_policy(tokenizer, seed).train()
    updates = len(rows) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=updates + 1)
    for update in tqdm(range(updates), desc="policy: supervised fine-tuning", unit="update"):
        batch = _padded(rows[update * batch_size : (update + 1) * batch_size], tokenizer.pad_token_id)
        model(**batch).loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def save_policy(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A checkpoint that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokens(tokenizer: PreTrainedTokenizerFast, problem: ChainProblem, steps: list[str]) -> tuple[list[int], list[int]]:
    prompt = tokenizer(problem.prompt).input_ids
    solution = [*tokenizer(SEPARATOR.join(steps)).input_ids, tokenizer.eos_token_id]
    return [*prompt, *solution], [IGNORED] * len(prompt) + solution


def _padded(rows: Sequence[tuple[list[int], list[int]]], pad_token_id: int) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), width), pad_token_id)
    labels = torch.full((len(rows), width), IGNORED)
    for row, (ids, learned) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids)] = torch.tensor(learned)
    # Padding is on the right and attention is causal, so no attention mask is needed.
    return {"input_ids": input_ids, "labels": labels}
