"""Turns of a policy that uses tools, where one rank cannot sample without the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rlhf_prm.rl.trl_seam import tokenizer_of
from rlhf_prm.rl.undisturbed import random_numbers_kept

Sampled = tuple[list[list[int]], list | None]  # token ids, and their log-probabilities where the sampler gives them


def samples_together(trainer: Any) -> bool:
    """Whether sampling on one rank needs all of them: sharded weights, or a vLLM that several ranks share."""
    if trainer.accelerator.num_processes == 1:
        return False
    deepspeed = trainer.accelerator.state.deepspeed_plugin
    return _shares_vllm(trainer) or trainer.is_fsdp_enabled or (deepspeed is not None and deepspeed.zero_stage == 3)


class TurnsInStep:
    """The turns behind the first: every rank samples as often as the one whose rollouts have most turns.

    TRL samples on a rank while a rollout of that rank has a tool result to go on from. Where sampling needs all ranks,
    those that are done would be waited for without end. Here they take part with a rollout of one token that nobody
    reads. A vLLM that ranks share deals what it has sampled out in equal parts, so there each rank asks for as many
    rollouts as the one with most.

    Args:
        sample: one turn of this rank, with the arguments and the result of TRL's ``_generate_single_turn``.
    """

    def __init__(self, trainer: Any, sample: Callable[..., Sampled]) -> None:
        self.trainer, self.sample = trainer, sample
        self.equal_rows = _shares_vllm(trainer)

    def turn(self, prompt_ids: list[list[int]], images: list | None, *args: Any, **keywords: Any) -> Sampled:
        """A turn of this rank's rollouts, together with one of every other rank."""
        own, most = len(prompt_ids), self._most(len(prompt_ids))
        more = most - own if self.equal_rows else 0
        images = None if images is None else [*images, *[None] * more]
        ids, log_probs = self.sample([*prompt_ids, *self._dummies(more)], images, *args, **keywords)
        return ids[:own], None if log_probs is None else log_probs[:own]

    def until_all_are_done(self) -> None:
        """This rank has no more turns; it takes part in those of the others."""
        while most := self._most(0):
            with random_numbers_kept(), self._one_token():
                self.sample(self._dummies(most if self.equal_rows else 1), None, {}, num_generations=1)

    def _dummies(self, count: int) -> list[list[int]]:
        return [[tokenizer_of(self.trainer).eos_token_id] for _ in range(count)]

    def _most(self, rows: int) -> int:
        """The largest number of rollouts of any rank that are in this turn."""
        accelerator = self.trainer.accelerator
        return int(accelerator.gather(torch.tensor([rows], device=accelerator.device)).max())

    @contextmanager
    def _one_token(self) -> Iterator[None]:
        """Transformers' ``generate`` makes one token; vLLM, which has no such setting here, as many as it wants."""
        config = getattr(self.trainer, "generation_config", None)
        if config is None:
            yield
            return
        kept, config.max_new_tokens = config.max_new_tokens, 1
        try:
            yield
        finally:
            config.max_new_tokens = kept


@contextmanager
def in_step(trainer: Any, sample: Callable[..., Sampled]) -> Iterator[None]:
    """Within it the trainer samples turns behind the first; at its end all ranks are done with theirs."""
    if not samples_together(trainer):
        yield
        return
    trainer.in_step = TurnsInStep(trainer, sample)
    try:
        yield
        trainer.in_step.until_all_are_done()
    finally:
        trainer.in_step = None


def _shares_vllm(trainer: Any) -> bool:
    args = trainer.args
    return bool(args.use_vllm) and (args.vllm_mode == "server" or args.vllm_tensor_parallel_size > 1)
