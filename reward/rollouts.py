"""StepRollouts, the one data type that the methods of this package take."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class StepRollouts:
    """A batch of scored rollouts. The G rollouts of one prompt are adjacent rows.

    Letters: B = rollouts, K = most steps of any rollout, T = most tokens, G = ``num_generations``.

    Padded cells (``step_mask`` False) may hold anything, NaN included, and are ignored. Real cells hold numbers: if a
    scorer leaves steps unscored (NaN, for example past its context), fill them with :func:`filled_scores`.

    Args:
        step_scores: P(step k is correct | prefix) in [0, 1], from a process reward model.
        step_mask: True = a real step; real steps come first in every row, and there is at least one.
        step_lengths: tokens in each step, its separator included, 0 or more; they sum to the completion's tokens.
        outcome_rewards: one per rollout: the verifier's reward plus other outcome rewards (format, length); NaN = there
            is none (the gold answer is missing or cannot be used).
        num_generations: G; divides B.
        verdicts: the verifier's verdict, one per rollout: 1 = correct, 0 = incorrect, NaN = it cannot tell. Other
            outcome rewards do not change it. None: there is no verifier, and an outcome above 0.5 counts as correct.
        scored: True = the scorer scored this step itself; False = the score was filled in. None: all are the scorer's.
        token_scores: one score for each of the policy's own tokens, on any scale; the tokens of a row are its first
            Σ_k ``step_lengths`` columns, and the rest is ignored. None: the scorer scores steps only.
        state_keys: what the policy saw before a step: steps of one group with equal numbers of 0 or more began in the
            same state; −1 = unknown. None: no states are known.

    Raises:
        ValueError: a field breaks one of these rules; the message says what came and what was expected.
    """

    step_scores: Float[Tensor, "B K"]
    step_mask: Bool[Tensor, "B K"]
    step_lengths: Int[Tensor, "B K"]
    outcome_rewards: Float[Tensor, " B"]
    num_generations: int
    verdicts: Float[Tensor, " B"] | None = None
    scored: Bool[Tensor, "B K"] | None = None
    token_scores: Float[Tensor, "B T"] | None = None
    state_keys: Int[Tensor, "B K"] | None = None

    @property
    def scored_steps(self) -> Bool[Tensor, "B K"]:
        """The real steps that the scorer has scored itself."""
        return self.step_mask if self.scored is None else self.step_mask & self.scored

    @property
    def steps_with_scores(self) -> Bool[Tensor, "B K"]:
        """The real steps from a rollout's first scored one on.

        A later step that the scorer left out has the score before it. What comes before the first score has a fill that
        says nothing of the step.
        """
        return self.step_mask & (self.scored_steps.cumsum(1) > 0)

    def judged_wrong(self, threshold: float) -> Bool[Tensor, "B K"]:
        """The steps that the scorer itself scores at or below ``threshold``; an unscored step is not judged wrong."""
        return self.scored_steps & (self.step_scores <= threshold)

    @property
    def scorable(self) -> Bool[Tensor, " B"]:
        """Whether the rollout's verdict (without verdicts: its outcome) is not NaN."""
        return ~(self.outcome_rewards if self.verdicts is None else self.verdicts).isnan()

    @property
    def correct(self) -> Bool[Tensor, " B"]:
        """Whether the verdict is 1; without verdicts, whether the outcome is above 0.5."""
        if self.verdicts is not None:
            return self.verdicts == 1
        return self.outcome_rewards > 0.5

    @property
    def incorrect(self) -> Bool[Tensor, " B"]:
        """Scorable and not correct."""
        return self.scorable & ~self.correct

    @property
    def num_steps(self) -> Int[Tensor, " B"]:
        """Real steps per rollout."""
        return self.step_mask.sum(1)

    @property
    def token_counts(self) -> Int[Tensor, "B K"]:
        """``step_lengths`` with 0 in the padding."""
        return torch.where(self.step_mask, self.step_lengths, 0)

    @property
    def required_token_scores(self) -> Float[Tensor, "B T"]:
        """``token_scores``.

        Raises:
            ValueError: there are none.
        """
        if self.token_scores is None:
            raise ValueError(
                "token_scores: got none, expected (B, T): this method needs a scorer that scores every token (an "
                "implicit PRM, a teacher, the policy's own reference), and a PRM of steps does not"
            )
        return self.token_scores

    @property
    def required_state_keys(self) -> Int[Tensor, "B K"]:
        """``state_keys``.

        Raises:
            ValueError: there are none.
        """
        if self.state_keys is None:
            raise ValueError(
                "state_keys: got none, expected (B, K): this method compares steps that began in the same state, and "
                "only an environment (`state_keys()`) or a tree of rollouts knows which ones did"
            )
        return self.state_keys

    @property
    def token_mask(self) -> Bool[Tensor, "B T"]:
        """True = a real token of ``token_scores``."""
        width = self.required_token_scores.shape[1]
        return torch.arange(width, device=self.step_mask.device) < self.token_counts.sum(1, keepdim=True)

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_types()
        self._check_mask()
        self._check_values()
        self._check_tokens()

    @property
    def _per_rollout(self) -> tuple[str, ...]:
        """The fields with one number per rollout."""
        return ("outcome_rewards",) if self.verdicts is None else ("outcome_rewards", "verdicts")

    @property
    def _optional_per_step(self) -> tuple[str, ...]:
        """The optional fields of shape (B, K) that are given."""
        return tuple(name for name in ("scored", "state_keys") if getattr(self, name) is not None)

    def _check_shapes(self) -> None:
        shape = tuple(self.step_scores.shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"step_scores: got shape {shape}, expected (B, K) with B ≥ 1 and K ≥ 1")
        expected = {"step_mask": shape, "step_lengths": shape} | dict.fromkeys(self._per_rollout, shape[:1])
        expected |= dict.fromkeys(self._optional_per_step, shape)
        for name, wanted in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != wanted:
                raise ValueError(f"{name}: got shape {got}, expected {wanted} to match step_scores {shape}")
        if self.num_generations < 1 or shape[0] % self.num_generations:
            raise ValueError(
                f"num_generations: got {self.num_generations} for {shape[0]} rollouts, expected a divisor of the batch"
            )

    def _check_types(self) -> None:
        for name in ("step_scores", *self._per_rollout):
            dtype = getattr(self, name).dtype
            if not dtype.is_floating_point:
                raise ValueError(f"{name}: got dtype {dtype}, expected floating point")
        if self.step_mask.dtype != torch.bool:
            raise ValueError(f"step_mask: got dtype {self.step_mask.dtype}, expected torch.bool (True = real step)")
        if self.scored is not None and self.scored.dtype != torch.bool:
            raise ValueError(f"scored: got dtype {self.scored.dtype}, expected torch.bool (True = the scorer's own)")
        for name, values, meaning in (
            ("step_lengths", self.step_lengths, "tokens per step"),
            ("state_keys", self.state_keys, "equal numbers = the same state"),
        ):
            if values is not None and not _holds_integers(values):
                raise ValueError(f"{name}: got dtype {values.dtype}, expected integers ({meaning})")
        for name in ("step_mask", "step_lengths", *self._per_rollout, *self._optional_per_step):
            device = getattr(self, name).device
            if device != self.step_scores.device:
                raise ValueError(f"{name}: got device {device}, expected {self.step_scores.device} as step_scores")

    def _check_mask(self) -> None:
        if not self.step_mask[:, 0].all():
            row = int((~self.step_mask[:, 0]).nonzero()[0])
            raise ValueError(
                f"step_mask: rollout {row} does not start with a real step, expected real steps first and at least one "
                "(a completion without a separator is one step)"
            )
        holes = self.step_mask[:, 1:] & ~self.step_mask[:, :-1]
        if holes.any():
            row, step = holes.nonzero()[0].tolist()
            raise ValueError(
                f"step_mask: rollout {row} has a real step at {step + 1} after a padded one, expected real steps first"
            )

    def _check_values(self) -> None:
        unscored = self.step_mask & self.step_scores.isnan()
        if unscored.any():
            row, step = unscored.nonzero()[0].tolist()
            raise ValueError(
                f"step_scores: {int(unscored.sum())} of {int(self.step_mask.sum())} real steps are NaN (the first: "
                f"rollout {row}, step {step}), expected a score for each; "
                "reward.filled_scores(step_scores, step_mask, num_generations) fills unscored steps"
            )
        scores = self.step_scores[self.step_mask]
        if scores.min() < 0 or scores.max() > 1:
            raise ValueError(
                f"step_scores: got values in [{float(scores.min()):g}, {float(scores.max()):g}], expected "
                "probabilities in [0, 1]; convert logits or other scales first"
            )
        negative = self.step_mask & (self.step_lengths < 0)
        if negative.any():
            row, step = negative.nonzero()[0].tolist()
            raise ValueError(
                f"step_lengths: got {int(self.step_lengths[row, step])} at rollout {row}, step {step}, expected ≥ 0"
            )
        if self.state_keys is not None and (self.step_mask & (self.state_keys < -1)).any():
            row, step = (self.step_mask & (self.state_keys < -1)).nonzero()[0].tolist()
            raise ValueError(
                f"state_keys: got {int(self.state_keys[row, step])} at rollout {row}, step {step}, expected a state "
                "(0 or more) or −1 = none"
            )
        if self.outcome_rewards.isinf().any():
            row = int(self.outcome_rewards.isinf().nonzero()[0])
            raise ValueError(f"outcome_rewards: got infinity at rollout {row}, expected a number, or NaN = unscorable")
        self._check_verdicts()

    def _check_tokens(self) -> None:
        if self.token_scores is None:
            return
        batch, got = len(self.step_scores), tuple(self.token_scores.shape)
        longest = int(self.token_counts.sum(1).max())
        if len(got) != 2 or got[0] != batch or got[1] < longest:
            raise ValueError(f"token_scores: got shape {got}, expected ({batch}, T) with T ≥ {longest} tokens")
        if not self.token_scores.dtype.is_floating_point or self.token_scores.device != self.step_scores.device:
            raise ValueError(
                f"token_scores: got {self.token_scores.dtype} on {self.token_scores.device}, expected floating point "
                f"on {self.step_scores.device}"
            )
        broken = self.token_mask & ~self.token_scores.isfinite()
        if broken.any():
            row, token = broken.nonzero()[0].tolist()
            raise ValueError(
                f"token_scores: got {float(self.token_scores[row, token])} at rollout {row}, token {token}, expected a "
                "finite number"
            )

    def _check_verdicts(self) -> None:
        if self.verdicts is None:
            return
        graded = self.incorrect & (self.verdicts != 0)
        if graded.any():
            row = int(graded.nonzero()[0])
            raise ValueError(
                f"verdicts: got {float(self.verdicts[row]):g} at rollout {row}, expected 1 = correct, 0 = incorrect or "
                "NaN = no verdict; graded rewards belong in outcome_rewards"
            )


def _holds_integers(values: Tensor) -> bool:
    return not (values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool)


def filled_scores(
    step_scores: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"], num_generations: int
) -> tuple[Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """Scores with every unscored (NaN) real step filled, and the mask of the steps that were filled.

    An unscored step takes the score of the last scored step before it, the best estimate of P(correct | longer prefix)
    when nothing new is known. This leaves the running minimum, the first error and the progress since that step as they
    are. Unscored steps before a rollout's first scored one take the mean over the scored steps of the group, or 0.5 if
    the group has none, so that nothing is preferred within the group. Padded cells become 0.
    """
    batch, steps = step_scores.shape
    unscored = step_mask & step_scores.isnan()
    scored = step_mask & ~unscored
    position = torch.where(scored, torch.arange(steps, device=step_scores.device), -1).cummax(dim=1).values
    carried = torch.where(scored, step_scores, 0).gather(1, position.clamp(min=0))
    by_group = torch.where(scored, step_scores, torch.nan).reshape(batch // num_generations, -1)
    fallback = by_group.nanmean(dim=1).nan_to_num(nan=0.5).repeat_interleave(num_generations)[:, None]
    filled = torch.where(position >= 0, carried, fallback)
    return torch.where(step_mask, filled, 0), unscored
