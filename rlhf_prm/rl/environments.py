"""Refuses rollouts in which not every token is the policy's: steps, verdicts and losses would take them for its own."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

INSTEAD = (
    "what they write would be cut into steps, scored, verified and learnt from as if the policy had written it; use "
    "trl.GRPOTrainer, which masks it, with reward functions for the outcome"
)


def refuse_environments(arguments: Mapping[str, Any]) -> None:
    """Raises a ValueError where TRL's ``tools`` or ``environment_factory`` are among a trainer's arguments."""
    for name in ("tools", "environment_factory"):
        if arguments.get(name):
            raise ValueError(f"{name}: got {arguments[name]!r}, expected none: {INSTEAD}")


def only_the_policys_tokens(rollout_func: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same TRL ``rollout_func``; its first result with an ``env_mask`` raises a ValueError."""

    @wraps(rollout_func)
    def checked(prompts, trainer) -> dict[str, Any]:
        output = rollout_func(prompts, trainer)
        if output.get("env_mask") is not None:
            raise ValueError(
                "rollout_func: got an env_mask, which marks tokens that an environment wrote, expected only tokens of "
                f"the policy: {INSTEAD}"
            )
        return output

    return checked
