"""Settings of ProcessPPOTrainer."""

import copy
import os
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlhf_prm.rl.config import ProcessGRPOConfig

TOKEN_SCORES = "token_scores"  # in place of a shaping: the reward of a token is its token score
TRUNKS = ("own", "shared", "detached")


@dataclass
class ProcessPPOConfig(ProcessGRPOConfig):
    """``ProcessGRPOConfig`` with a critic in place of the group, and a shaping in place of the method.

    The reward of a token is process_weight × the shaped process reward at each step's last token + the outcome at the
    last token − ``beta`` × (log π − log π_ref) at every token; advantages are GAE(``gamma``, ``lam``).

    Args:
        shaping: a name in ``reward.SHAPINGS``, or the dotted path of ``shaping(step_scores, step_mask, **keywords)``.
            The default's sum from step k on is the score of step k, so longer rollouts earn nothing. "token_scores":
            the process reward of a token is its token score times process_weight, in place of shaped step scores.
        shaping_kwargs: its keywords; a number may be a schedule ``{start, end, updates, kind}``. On the command line:
            JSON.
        process_weight: weight of the process rewards relative to the outcome; 0 = outcome only, without a PRM.
        gamma, lam: GAE's γ and λ, per token.
        whiten_advantages: to mean 0 and standard deviation 1 over all tokens of all ranks.
        critic: "own" = a separate trunk; "shared" = the policy's trunk, which the value loss then trains too;
            "detached" = the policy's trunk, the value loss trains the head only.
        critic_init: with "own": "policy", "prm" (the step scorer's checkpoint), or a name or folder.
        critic_learning_rate: of the critic; a shared trunk keeps ``learning_rate``.
        critic_warmup: the number of first updates in which only the critic is trained.
        value_weight: weight of the value loss. It hardly matters to a separate critic (Adam divides it out), but the
            norm that ``max_grad_norm`` clips is that of both models together.
        value_clip: ε of the value clipping around the old values; None = none.

    ``num_generations`` may be 1. ``method`` and ``method_kwargs`` belong to GRPO and are refused.

    Raises:
        ValueError: a value that TRL or this class does not know.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*ProcessGRPOConfig._VALID_DICT_FIELDS, "shaping_kwargs"]  # type: ignore[misc]

    method: str = field(default="outcome", metadata={"help": "Not used by PPO: see shaping."})
    num_generations: int | None = field(default=1, metadata={"help": "Completions per prompt; 1 is enough for PPO."})
    shaping: str = field(
        default="delta_shaping", metadata={"help": "Step scores → process rewards: reward.SHAPINGS or a dotted path."}
    )
    shaping_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Keywords of the shaping, as JSON; a number may be a schedule."}
    )
    process_weight: float = field(default=0.5, metadata={"help": "Weight of the process rewards; 0 = outcome only."})
    gamma: float = field(default=1.0, metadata={"help": "Discount per token."})
    lam: float = field(default=1.0, metadata={"help": "GAE's λ; 1 = no bias from the critic."})
    whiten_advantages: bool = field(default=True, metadata={"help": "Whiten over all tokens of all ranks."})
    critic: str = field(default="own", metadata={"help": f"The critic's trunk: {', '.join(TRUNKS)}."})
    critic_init: str = field(default="policy", metadata={"help": "policy, prm, or a checkpoint."})
    critic_learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the critic."})
    critic_warmup: int = field(default=0, metadata={"help": "First updates that train the critic only."})
    value_weight: float = field(default=1.0, metadata={"help": "Weight of the value loss."})
    value_clip: float | None = field(default=0.2, metadata={"help": "Clip of the value around the old one."})

    def __post_init__(self) -> None:
        wanted = self.num_generations
        if wanted == 1:
            # GRPOConfig refuses 1, because its advantage is relative to the group; here the critic is the baseline.
            # Any number that divides the generation batch passes its other checks.
            self.num_generations_eval = self.num_generations_eval or 1
            self.num_generations = self._divisor_of_generation_batch()
        super().__post_init__()
        self.num_generations = wanted
        self._check()

    @property
    def learns_from_outcome_only(self) -> bool:
        """Whether the step scores reach no reward."""
        return not self.process_weight

    @property
    def gives_token_advantages(self) -> bool:
        """Always: GAE gives each token its own."""
        return True

    @property
    def reads_tokens_only(self) -> bool:
        """Whether tokens are paid their own scores, so that step scores reach no reward."""
        return self.shaping == TOKEN_SCORES

    @property
    def label(self) -> str:
        """What tables and reports call this run."""
        return "ppo_dense" if self.process_weight else "ppo_outcome"

    def baseline(self, method: str) -> "ProcessPPOConfig":
        """A copy that learns from the outcome alone; ``method`` must be "outcome".

        Raises:
            ValueError: another method.
        """
        if method != "outcome":
            raise ValueError(f"baseline: got {method!r}, expected 'outcome' (PPO without process rewards)")
        other = copy.deepcopy(self)
        other.process_weight = 0.0
        return other

    def _divisor_of_generation_batch(self) -> int:
        local = self.per_device_train_batch_size * (self.steps_per_generation or self.gradient_accumulation_steps)
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # transformers knows it only after its own __post_init__
        rollouts = self.generation_batch_size or (local if local > 1 else processes)
        if rollouts < 2:
            raise ValueError(
                "generation batch: got one rollout per update, expected at least 2; raise per_device_train_batch_size "
                "or gradient_accumulation_steps"
            )
        return rollouts

    def _check(self) -> None:
        if self.method != "outcome" or self.method_kwargs:
            raise ValueError(
                f"method: got {self.method!r} with {self.method_kwargs}, which belongs to GRPO; PPO's step rewards "
                "come from shaping, shaping_kwargs and process_weight"
            )
        if self.shaping_kwargs is None:
            self.shaping_kwargs = {}
        if not isinstance(self.shaping_kwargs, dict):
            raise ValueError(
                f"shaping_kwargs: got {self.shaping_kwargs!r}, expected a mapping such as {{'gamma': 0.9}}"
            )
        if self.critic not in TRUNKS:
            raise ValueError(f"critic: got {self.critic!r}, expected one of {', '.join(TRUNKS)}")
        if self.critic != "own" and self.critic_init != "policy":
            raise ValueError(f"critic_init: got {self.critic_init!r} with critic={self.critic!r}, which has no trunk")
        for name, low, high in (("gamma", 0.0, 1.0), ("lam", 0.0, 1.0), ("critic_warmup", 0, float("inf"))):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected between {low} and {high}")
        if not self.process_weight and (self.shaping != ProcessPPOConfig.shaping or self.shaping_kwargs):
            warnings.warn(
                f"shaping {self.shaping!r} with {self.shaping_kwargs} has no effect: process_weight is 0", stacklevel=2
            )
        for name in ("critic_learning_rate", "value_weight", "value_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: got {value}, expected > 0")
