"""Two settings of TRL that weigh whole sequences, made to fit token advantages: GSPO-token and the off-policy mask.

TRL's loss takes advantages (B, T), but two of its settings were made for one advantage per sequence:

- ``importance_sampling_level="sequence"`` (GSPO, arXiv 2507.18071) multiplies one ratio s_i per sequence, whose
  gradient is s_i · mean_t ∇log π_t, with every A_t, so every token gets the mean advantage of its rollout.
- ``off_policy_mask_threshold`` drops off-policy sequences of negative advantage; applied token by token it would drop
  the negative tokens of a rollout and keep its positive ones.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor
from trl import GRPOTrainer

from rlhf_prm.rl.trl_seam import after_forward, loss_setting


def gspo_token_old_log_probs(
    log_probs: Float[Tensor, "B T"], old_log_probs: Float[Tensor, "B T"], mask: Tensor
) -> Float[Tensor, "B T"]:
    """Old log-probabilities under which a token-level ratio π_t/π_old,t is GSPO-token's ratio s_it.

        log s_i  = mean_t M_t (log π_t − log π_old,t)
        log s_it = log π_t − sg[log π_t] + sg[log s_i]

    so every token has the value s_i and the gradient s_i ∇log π_t of its own (sg = stop-gradient). With one advantage
    for all tokens of a rollout, value and gradient are GSPO's. ``mask`` (B, T) holds 1 for tokens of the policy.
    """
    now = log_probs.detach()
    sequence = ((now - old_log_probs) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return now - sequence


@contextmanager
def gspo_token(trainer: GRPOTrainer, inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Inside the context TRL's loss on the yielded inputs uses GSPO-token's ratios in place of one per sequence.

    TRL reads the old log-probabilities after its forward, so they are replaced right after that forward, and the rest
    of the loss (clipping, masks, corrections, means, metrics) is TRL's token-level one. Two cases are left to TRL: one
    advantage per rollout (method "outcome"), and VESPO, which weighs whole sequences in its own way.
    """
    of_tokens = trainer.args.gives_token_advantages and trainer.loss_type != "vespo"
    if trainer.importance_sampling_level != "sequence" or not of_tokens:
        yield inputs
        return
    inputs = dict(inputs)
    mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)

    def replace_old_ones(log_probs: Float[Tensor, "B T"]) -> None:
        old = inputs.get("old_per_token_logps")
        old = log_probs.detach() if old is None else old
        inputs.setdefault("sampling_per_token_logps", old)  # the off-policy mask needs the real ones
        inputs["old_per_token_logps"] = gspo_token_old_log_probs(log_probs, old, mask)

    with loss_setting(trainer, "importance_sampling_level", "token"), after_forward(trainer, replace_old_ones):
        yield inputs


def off_policy_mask(
    advantages: Float[Tensor, "B T"],
    per_token_logps: Float[Tensor, "B T"],
    sampling_per_token_logps: Float[Tensor, "B T"],
    mask: Tensor,
    off_policy_threshold: float,
) -> Tensor:
    """(B, 1): TRL's mask of off-policy sequences (DeepSeek-V3.2) by the sign of each sequence's mean token advantage.

    1 = keep: the mean is not negative, or the mean of log π_sampling − log π is at most ``off_policy_threshold``. A
    sequence is kept or dropped whole. With one advantage per sequence it equals TRL's own mask, whose parameter names
    are used here.
    """
    means = (advantages * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return GRPOTrainer.get_off_policy_mask(means, per_token_logps, sampling_per_token_logps, mask, off_policy_threshold)
