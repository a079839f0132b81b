"""Ranks with different numbers of turns, on one of them: what the others have is said by a fake accelerator."""

from types import SimpleNamespace

import pytest
import torch

from rlhf_prm.rl.turns_in_step import TurnsInStep, samples_together
from tests.tiny import tiny_tokenizer

END = tiny_tokenizer().eos_token_id


def trainer_beside(others, *, use_vllm=False, mode="colocate", parallel=1, zero=None, fsdp=False, ranks=2):
    """A rank beside another, which has so many rollouts in each further turn."""
    left = iter(others)
    plugin = None if zero is None else SimpleNamespace(zero_stage=zero)
    return SimpleNamespace(
        accelerator=SimpleNamespace(
            num_processes=ranks,
            device="cpu",
            state=SimpleNamespace(deepspeed_plugin=plugin),
            gather=lambda own: torch.cat([own, torch.tensor([next(left)])]),
        ),
        args=SimpleNamespace(use_vllm=use_vllm, vllm_mode=mode, vllm_tensor_parallel_size=parallel),
        is_fsdp_enabled=fsdp,
        generation_config=SimpleNamespace(max_new_tokens=50),
        _tokenizer=tiny_tokenizer(),
    )


def recorded(trainer, log_probs=False):
    """A sampler that gives each rollout its first token again, and what it was asked."""
    asked = []

    def sample(prompt_ids, images, fields, num_generations, has_tool_images=False):
        asked.append((prompt_ids, images, trainer.generation_config.max_new_tokens))
        torch.rand(3)
        return [ids[:1] for ids in prompt_ids], [[0.5] for _ in prompt_ids] if log_probs else None

    return sample, asked


@pytest.mark.parametrize(
    ("launch", "together"),
    [
        ({}, False),  # DDP: every rank has the whole policy
        ({"zero": 2}, False),
        ({"zero": 3}, True),
        ({"fsdp": True}, True),
        ({"use_vllm": True}, False),
        ({"use_vllm": True, "mode": "server"}, True),
        ({"use_vllm": True, "parallel": 2}, True),
        ({"zero": 3, "ranks": 1}, False),
    ],
)
def test_where_sampling_needs_all_ranks(launch, together):
    assert samples_together(trainer_beside([], **launch)) == together


def test_a_rank_that_is_done_samples_one_token_as_often_as_the_other():
    trainer = trainer_beside([1, 4, 2, 0], zero=3)
    sample, asked = recorded(trainer)
    ranks = TurnsInStep(trainer, sample)
    assert ranks.turn([[5, 6], [7]], None, {}, num_generations=1) == ([[5], [7]], None)
    before = torch.get_rng_state()
    ranks.until_all_are_done()
    assert asked == [([[5, 6], [7]], None, 50), ([[END]], None, 1), ([[END]], None, 1)]
    assert trainer.generation_config.max_new_tokens == 50 and torch.equal(torch.get_rng_state(), before)


def test_a_shared_vllm_is_asked_for_as_many_rollouts_by_every_rank():
    """It deals its samples out in equal parts: with unequal numbers a rank would get those of another."""
    trainer = trainer_beside([3, 2, 0], use_vllm=True, mode="server")
    sample, asked = recorded(trainer, log_probs=True)
    ranks = TurnsInStep(trainer, sample)
    assert ranks.turn([[5, 6]], ["image"], {}, 1, has_tool_images=True) == ([[5]], [[0.5]])
    ranks.until_all_are_done()
    assert [(ids, images) for ids, images, _ in asked] == [
        ([[5, 6], [END], [END]], ["image", None, None]),
        ([[END], [END]], None),
    ]
