"""Where outcomes come from: the verifier as a TRL reward function, and the completions that reward functions read."""

from typing import Any

from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.rl.turns import CutRollout, Told


class VerifierReward:
    """The verifier's rewards as a TRL reward function; the trainer has already collected them when TRL calls it."""

    __name__ = "verifier"

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def __call__(self, **_: Any) -> list[float | None]:
        return [row.reward for row in self.trainer.verified_rows]


def readable(completions: list, told: list[Told], cut: list[CutRollout], *, with_tools: bool) -> list:
    """The completions that reward functions read: with a ``rollout_func`` that masks tokens, only the last turn.

    TRL decodes all its tokens into one text, into which an environment could write the answer. With tools the
    completions are messages, which say who wrote them.
    """
    if with_tools or all(one.policy_mask is None for one in told):
        return completions
    return [
        one.answer if isinstance(row, str) else [{"role": "assistant", "content": one.answer}]
        for row, one in zip(completions, cut, strict=True)
    ]


def check_sources(method: StepAdvantages, scores: list, verifier, reward_funcs: list, acts: bool) -> None:
    """Raise a ValueError if the method lacks scores, or if there is no source of the outcome."""
    if not scores and method.reads_scores:
        raise ValueError(f"method {method.name!r} needs step scores: pass step_scorer=load_prm(…), or method='outcome'")
    if verifier is None and not reward_funcs and not acts:  # TRL itself checks that an environment gives rewards
        raise ValueError("no outcome: pass verifier=MathVerifier(), a verifier of your own, or reward_funcs")


def not_about_unlabelled(record: Any) -> bool:
    """TRL warns at every unscorable row; prompts without a gold answer are counted as verifier/unlabelled_frac."""
    return not str(record.msg).startswith("All reward functions returned None")
