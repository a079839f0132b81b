"""Sampling from a real language model on a CPU, several times faster than transformers' ``generate`` there."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.generation.prompts import prompt_ids
from rlhf_prm.generation.requests import Prompt, Sample
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.toyworld.sampler import PolicySampler

ROWS = 64  # decoded together
ATTENTION = "eager"  # the fastest for such short rows on a CPU


class TextSampler(PolicySampler):
    """``PolicySampler`` for prompts of any length, on a copy of the weights in bfloat16.

    Its texts are ``Sample``s, so Monte Carlo completions continue the policy's own tokens. Prompts of similar length
    are padded to the longest. Ended rows are dropped 16 at a time: on a CPU every new number of rows costs the
    preparation of new matrix kernels. A model in another precision is copied at every call, so the samples are those of
    its weights as they are then.
    """

    reads_ids = True
    drop_at_once = 16
    pads = True

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = ROWS, **settings: Any
    ) -> None:
        super().__init__(model, tokenizer, batch_size=batch_size, **settings)
        self.source = model
        if model.dtype != torch.bfloat16:
            with torch.random.fork_rng(devices=[]):
                self.model = AutoModelForCausalLM.from_config(
                    model.config, dtype=torch.bfloat16, attn_implementation=ATTENTION
                ).to(model.device)

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        seed: int | Sequence[int] | None = None,
        stop: Sequence[str] | None = None,
    ) -> list[list[Sample]]:
        """See ``PolicySampler``; if a stop text was cut off, the ids still have it."""
        if not prompts:
            return []
        given = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        return [
            [Sample(self._text(ids, stop), ids, prompt) for ids in group]
            for prompt, group in zip(given, self.generate_ids(given, n, seed=seed), strict=True)
        ]

    def _text(self, ids: list[int], stop: Sequence[str] | None) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        for end in stop or ():
            text = text.partition(end)[0]
        return text

    def generate_ids(
        self, prompts: Sequence[list[int]], n: int = 1, *, seed: int | Sequence[int] | None = None
    ) -> list[list[list[int]]]:
        """See ``PolicySampler``."""
        if self.model is not self.source:
            self._copy_weights()
        return super().generate_ids(prompts, n, seed=seed)

    @torch.no_grad()
    def _copy_weights(self) -> None:
        weights = dict(self.source.named_parameters())  # a critic may be among them
        for name, copy in self.model.named_parameters():
            if name not in weights:
                raise ValueError(
                    f"got a policy without the parameter {name}, expected a plain causal LM: in the word-problem world "
                    "adapters are not sampled from (use_peft: false)"
                )
            copy.copy_(weights[name])


def load_policy(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy to sample from, in bfloat16, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, attn_implementation=ATTENTION)
    return model, saved_tokenizer(path, padding_side="left")


def generate_fast(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Replace the model's ``generate`` by a ``TextSampler``, for TRL's trainers on a CPU."""
    model.generate = partial(_generate, TextSampler(model, tokenizer, max_new_tokens=1))


@torch.no_grad()
def _generate(
    sampler: TextSampler,
    input_ids: Tensor,
    attention_mask: Tensor,
    generation_config: GenerationConfig,
    **unused: Any,
) -> Tensor:
    """As ``generate`` for left-padded prompts: (B, T) → (B, T + new tokens), padded after the end.

    The random numbers come from torch's own, so a seeded run stays one.

    Raises:
        ValueError: a setting of the sampling that this sampler does not have.
    """
    _refuse_other_sampling(generation_config)
    sampler.max_new_tokens, sampler.temperature = generation_config.max_new_tokens, generation_config.temperature
    prompts = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
    times = _times_each(prompts) * (generation_config.num_return_sequences or 1)
    distinct = prompts[:: _times_each(prompts)]
    seed = int(torch.randint(2**62, ()))
    sampled = [ids for group in sampler.generate_ids(distinct, times, seed=seed) for ids in group]
    width = max(map(len, sampled))
    pad = sampler.tokenizer.pad_token_id
    completions = torch.tensor([ids + [pad] * (width - len(ids)) for ids in sampled], device=input_ids.device)
    given = input_ids.repeat_interleave(generation_config.num_return_sequences or 1, 0)
    return torch.cat([given, completions], 1)


def _times_each(prompts: list[list[int]]) -> int:
    """How often every prompt is repeated in a row, as the rollouts of a group are adjacent; 1 if groups are uneven."""
    first = next((i for i, prompt in enumerate(prompts) if prompt != prompts[0]), len(prompts))
    groups = [prompts[i : i + first] for i in range(0, len(prompts), first)]
    even = all(len(group) == first and group.count(group[0]) == first for group in groups)
    return first if even else 1


def _refuse_other_sampling(config: GenerationConfig) -> None:
    plain = {"top_p": (None, 1.0), "top_k": (None, 0), "min_p": (None, 0.0), "repetition_penalty": (None, 1.0)}
    for name, values in plain.items():
        if getattr(config, name, None) not in values:
            raise ValueError(
                f"{name}: got {getattr(config, name)}, expected it to be left out: the word-problem world samples from "
                "the policy's own distribution"
            )
