"""A method with a memory, for the tests: it counts its batches and pays every step by how many there were before."""

import torch


def counting(rollouts, memory, *, weight=1.0):
    """A = weight · batches so far. Also writes into what it was given, which must disturb nobody."""
    advantages = weight * memory["batches"] * rollouts.step_mask
    remembered = {"batches": memory["batches"] + 1, "scores": memory["scores"] + rollouts.step_scores[0, :1]}
    memory["batches"] += 1000
    return advantages, remembered


counting.initial_memory = lambda: {"batches": torch.zeros(()), "scores": torch.zeros(1)}


def without_memory(rollouts, memory):
    """Forgets to give its memory back."""
    return memory["batches"] * rollouts.step_mask


without_memory.initial_memory = counting.initial_memory


def renamed(rollouts, memory):
    """Gives back another memory than it was given."""
    return 0.0 * rollouts.step_mask, {"batch": memory["batches"]}


renamed.initial_memory = counting.initial_memory


def whole_numbers(rollouts, memory):
    """Has a memory that is not float32."""
    return 0.0 * rollouts.step_mask, memory


whole_numbers.initial_memory = lambda: {"batches": torch.zeros((), dtype=torch.int64)}
