"""Where outcomes come from: a verifier as a reward function of TRL's, and what reward functions may read."""

from typing import Any

from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.rl.turns import CutRollout, Told


class VerifierReward:
    """The verifier's rewards as a TRL reward function; the trainer has collected them when TRL asks."""

    __name__ = "verifier"

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def __call__(self, **_: Any) -> list[float | None]:
        return [row.reward for row in self.trainer.verified_rows]


def readable(completions: list, told: list[Told], cut: list[CutRollout], *, with_tools: bool) -> list:
    """The completions that reward functions read: where a ``rollout_func`` marks tokens as others', the last turn.

    TRL decodes all tokens of it into one text, in which an environment could write the answer. With tools the
    completions are messages, which say who wrote them.
    """
    if with_tools or all(one.policy_mask is None for one in told):
        return completions
    return [
        one.answer if isinstance(row, str) else [{"role": "assistant", "content": one.answer}]
        for row, one in zip(completions, cut, strict=True)
    ]


def check_sources(method: StepAdvantages, scores: list, verifier, reward_funcs: list, acts: bool) -> None:
    """Raises a ValueError where a method lacks scores, or where nothing pays for the outcome."""
    if not scores and method.reads_scores:
        raise ValueError(f"method {method.name!r} needs step scores: pass step_scorer=load_prm(…), or method='outcome'")
    if verifier is None and not reward_funcs and not acts:  # TRL sees whether an environment pays
        raise ValueError("no outcome: pass verifier=MathVerifier(), a verifier of your own, or reward_funcs")
