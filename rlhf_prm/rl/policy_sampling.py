"""Completes prefixes (token ids) with the policy in training: by transformers' ``generate`` or a given sampler."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from transformers import GenerationConfig
from trl.models import unwrap_model_for_generation

from rlhf_prm.generation import Generator
from rlhf_prm.generation.hf import up_to_the_end
from rlhf_prm.generation.requests import Sample, unit_seed
from rlhf_prm.rl.trl_seam import tokenizer_of, whole_parameters
from rlhf_prm.rl.undisturbed import modes_kept, random_numbers_kept


@dataclass(frozen=True)
class Prefix:
    """The beginning of a rollout.

    ``prompt`` is the text or the messages, ``prompt_ids`` its tokens as the policy read them, ``ids`` the completion's
    tokens so far, ``limit`` (≥ 1) how many may follow.
    """

    prompt: str | list[dict[str, Any]]
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    limit: int


class Continuation(NamedTuple):
    """The text of a whole completion, the prefix's part of it included, and how many tokens were sampled for it."""

    text: str
    tokens: int


@runtime_checkable
class PrefixSampler(Protocol):
    """Anything that continues prefixes. All ranks call it equally often, if need be without prefixes."""

    def continuations(self, prefixes: Sequence[Prefix], n: int, seed: int) -> list[list[Continuation]]:
        """``n`` continuations of every prefix."""
        ...


class GeneratorSampler:
    """Continuations from a ``Generator``, which must be the policy in training.

    It has its own temperature and length. One that has ``reads_ids`` or ``generate_ids`` (the toy world's
    ``PolicySampler``) is given the policy's token ids, and its output past a prefix's limit is cut off; any other is
    given text: the prompt (messages are rendered by the tokenizer's template), then what the policy has written.

    Args:
        template_arguments: keywords for the tokenizer's ``apply_chat_template``.
    """

    def __init__(self, generator: Generator, tokenizer: Any, template_arguments: dict[str, Any] | None = None) -> None:
        self.generator, self.tokenizer = generator, tokenizer
        self.template_arguments = template_arguments or {}

    def continuations(self, prefixes: Sequence[Prefix], n: int, seed: int) -> list[list[Continuation]]:
        """See ``PrefixSampler``. A prefix's continuations depend on it and on the seed only."""
        if not prefixes:
            return []
        seeds = [unit_seed(seed, *prefix.prompt_ids, "then", *prefix.ids) for prefix in prefixes]
        if hasattr(self.generator, "generate_ids"):
            found = self._from_ids(prefixes, n, seeds)
        else:
            found = self._from_prompts(prefixes, n, seeds, getattr(self.generator, "reads_ids", False))
        if [len(row) for row in found] != [n] * len(prefixes):
            raise ValueError(
                f"sampler: got {[len(row) for row in found]} completions, expected {n} for each of {len(prefixes)} "
                "prefixes"
            )
        return found

    def _from_ids(self, prefixes: Sequence[Prefix], n: int, seeds: list[int]) -> list[list[Continuation]]:
        sampled = self.generator.generate_ids([[*p.prompt_ids, *p.ids] for p in prefixes], n, seed=seeds)
        return [
            [_continuation(self.tokenizer, prefix, ids) for ids in row]
            for prefix, row in zip(prefixes, sampled, strict=True)
        ]

    def _from_prompts(
        self, prefixes: Sequence[Prefix], n: int, seeds: list[int], reads_ids: bool
    ) -> list[list[Continuation]]:
        if reads_ids:
            prompts: list[Any] = [[*prefix.prompt_ids, *prefix.ids] for prefix in prefixes]
        else:
            prompts = [self._prompt(prefix) + self._written(prefix) for prefix in prefixes]
        sampled = self.generator.generate(prompts, n, seed=seeds, stop=None)
        return [[self._continued(prefix, more) for more in row] for prefix, row in zip(prefixes, sampled, strict=True)]

    def _continued(self, prefix: Prefix, more: str) -> Continuation:
        if isinstance(more, Sample) and more.ids is not None:
            return _continuation(self.tokenizer, prefix, more.ids)
        tokens = len(self.tokenizer(more, add_special_tokens=False)["input_ids"])
        return Continuation(self._written(prefix) + more, tokens)

    def _written(self, prefix: Prefix) -> str:
        return self.tokenizer.decode(list(prefix.ids), skip_special_tokens=True)

    def _prompt(self, prefix: Prefix) -> str:
        if isinstance(prefix.prompt, str):
            return prefix.prompt
        arguments = {"tokenize": False, "add_generation_prompt": True} | self.template_arguments
        return self.tokenizer.apply_chat_template(prefix.prompt, **arguments)


class TrainerSampler:
    """Continuations from the trainer's policy as it is now, sampled as its rollouts are, by transformers' ``generate``.

    A call has prefixes of similar length. Ranks agree on the number of calls first: under ZeRO-3
    and FSDP every forward needs all ranks, so those with less work make dummy calls. Random
    states and the train/eval modes of the modules are restored afterwards.

    Args:
        trainer: TRL's GRPO trainer or a subclass.
        rows: most completions sampled together (at least those of one prefix).
    """

    def __init__(self, trainer: Any, rows: int = 64) -> None:
        self.trainer, self.rows = trainer, rows

    def continuations(self, prefixes: Sequence[Prefix], n: int, seed: int) -> list[list[Continuation]]:
        """See ``PrefixSampler``."""
        order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i].prompt_ids) + len(prefixes[i].ids))
        at_once = max(1, self.rows // n)
        batches = [order[first : first + at_once] for first in range(0, len(order), at_once)]
        calls = self._agreed(len(batches))
        found: list[list[Continuation]] = [[] for _ in prefixes]
        if not calls:
            return found
        tokenizer = tokenizer_of(self.trainer)
        dummy = Prefix("", (), (tokenizer.eos_token_id,), 1)
        with self._policy(seed) as model:
            for batch in batches:
                sampled = self._sampled(model, [prefixes[i] for i in batch], n)
                for row, ids in enumerate(sampled):
                    prefix = prefixes[batch[row // n]]
                    found[batch[row // n]].append(_continuation(tokenizer, prefix, ids))
            for _ in range(calls - len(batches)):
                self._sampled(model, [dummy], 1)
        return found

    def _agreed(self, calls: int) -> int:
        """The largest number of any rank."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return calls
        return int(accelerator.gather(torch.tensor([calls], device=accelerator.device)).max())

    @contextmanager
    def _policy(self, seed: int):
        """The policy ready to generate, in eval mode, with random numbers of its own."""
        trainer, args = self.trainer, self.trainer.args
        with (
            random_numbers_kept(),
            modes_kept(trainer),
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gather_deepspeed3_params=args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            whole_parameters(trainer),
        ):
            torch.manual_seed(seed)
            yield model.eval()

    def _sampled(self, model: Any, prefixes: Sequence[Prefix], n: int) -> list[list[int]]:
        """The new token ids, those of a prefix adjacent, the end-of-sequence token included where it was sampled."""
        device, pad = self.trainer.accelerator.device, tokenizer_of(self.trainer).pad_token_id
        rows = [[*prefix.prompt_ids, *prefix.ids] for prefix in prefixes]
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        config = self._generation_config(max(prefix.limit for prefix in prefixes), n)
        sampled = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return [up_to_the_end(row, self.trainer.eos_token_ids) for row in sampled[:, width:].tolist()]

    def _generation_config(self, max_new_tokens: int, n: int) -> GenerationConfig:
        """The configuration that TRL samples rollouts with; TRL has none when vLLM samples them."""
        args, tokenizer = self.trainer.args, tokenizer_of(self.trainer)
        settings = {
            "do_sample": True,
            "temperature": args.temperature,
            "top_p": args.top_p,
            "top_k": args.top_k,
            "min_p": args.min_p,
            "repetition_penalty": args.repetition_penalty,
            "cache_implementation": args.cache_implementation,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": self.trainer.eos_token_ids,
        }
        settings |= {} if self.trainer.use_vllm else args.generation_kwargs or {}  # vLLM's have other names
        own = {"max_new_tokens": max_new_tokens, "num_return_sequences": n}
        return GenerationConfig(**settings | own, disable_compile=True)


def _continuation(tokenizer: Any, prefix: Prefix, ids: list[int]) -> Continuation:
    ids = ids[: prefix.limit]
    return Continuation(tokenizer.decode([*prefix.ids, *ids], skip_special_tokens=True), len(ids))
