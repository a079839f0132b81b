"""A tiny model that has learned to add 1 and 2 modulo 10, one per step: "6+2+1" → "6+2=8", "8+1=9", "\\boxed{9}"."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from tests.tiny_models import tiny_qwen2

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def problem(rng):
    """(problem, steps, gold answer)."""
    first, rest = rng.randrange(10), [rng.choice([1, 2]) for _ in range(rng.choice([2, 3]))]
    value, steps = first, []
    for term in rest:
        steps.append(f"{value}+{term}={(value + term) % 10}")
        value = (value + term) % 10
    return "+".join(map(str, [first, *rest])), [*steps, f"\\boxed{{{value}}}"], str(value)


def with_an_error(steps, rng):
    """(the steps from a wrong sum on carried through, index of the wrong one)."""
    wrong = rng.randrange(len(steps) - 1)
    shift, changed = rng.randrange(1, 10), list(steps[:wrong])
    for i, step in enumerate(steps[wrong:]):
        if step.startswith("\\"):
            changed.append(f"\\boxed{{{(int(step[7]) + shift) % 10}}}")
        else:
            start = int(step[0]) if i == 0 else (int(step[0]) + shift) % 10
            changed.append(f"{start}+{step[2]}={(int(step[4]) + shift) % 10}")
    return changed, wrong


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=bytes_only, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = CHAT
    return fast


def train(folder: Path, updates=300, seed=0):
    """Train it and save it; about 20 s on one quiet core."""
    torch.manual_seed(seed)
    rng, fast = random.Random(seed), tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    model = Qwen2ForCausalLM(tiny_qwen2(len(fast), **sizes, tie_word_embeddings=True, initializer_range=0.04))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=updates)
    for _ in range(updates):
        rows = [(p + "\n\n", "\n\n".join(s)) for p, s, _ in (problem(rng) for _ in range(64))]
        ids = [fast(p + s)["input_ids"] + [1] for p, s in rows]
        width = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        labels = tokens.clone()
        for i, (p, _) in enumerate(rows):
            labels[i, : len(p)] = -100
            labels[i, len(ids[i]) :] = -100
        loss = model(tokens, attention_mask=(tokens != 0).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return loss.item()
