"""From step scores to token advantages: a leaf package that needs only torch and a math verifier.

Names are imported on first use: the worker processes of the verifier live here too and must not load torch.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "credit": (
        "discounted_returns",
        "generalized_advantage_estimation",
        "group_mean_baseline",
        "group_normalized",
        "leave_one_out_baseline",
        "leave_one_out_outcomes",
        "min_returns",
        "outcome_advantages",
        "over_steps",
        "positional_advantages",
        "step_means",
        "step_to_token",
        "token_baseline",
        "tokens_to_step",
    ),
    "dotted": ("resolve",),
    "methods": ("METHODS", "Method"),
    "reward_functions": ("format_reward", "length_penalty", "outcome_reward"),
    "ppo": ("clipped_value_loss", "explained_variance", "kl_penalty", "masked_sums", "token_rewards", "whitened"),
    "rollouts": ("StepRollouts", "filled_scores"),
    "schedules": ("scheduled",),
    "shaping": (
        "SHAPINGS",
        "Shaping",
        "centered_scores",
        "clip_shaping",
        "delta_shaping",
        "potential_shaping",
        "progress_shaping",
        "raw_scores",
        "soft_min_shaping",
    ),
    "token_methods": ("TOKEN_METHODS", "TokenMethod"),
    "trust": ("credit_correlation", "initial_trust", "trust_updated"),
    "verifier": ("STATUSES", "MathVerifier", "Verdict", "Verifier"),
}
MODULES = {name: module for module, names in PUBLIC.items() for name in names}

__all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})
