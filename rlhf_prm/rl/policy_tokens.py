"""Moves the policy's own tokens to the front of rows that tools and environments wrote in, and back again.

Letters: B = rollouts, T = tokens of a completion. Returns, GAE and steps run over the policy's tokens only: the token
before a tool result is followed by the first one after it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def policy_tokens(inputs: Mapping[str, Any]) -> Bool[Tensor, "B T"]:
    """True = a token that the policy wrote and that counts in the loss, from the inputs of TRL's loss."""
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


def compacted(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The values at True, moved to the front of their row in order; 0 after them.

    A row whose True cells come first stays as it is.
    """
    order = (~mask).int().argsort(dim=1, stable=True)
    return torch.where(in_front(mask), values.gather(1, order), 0)


def in_front(mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The mask of ``compacted``: each row has as many True as in ``mask``, all at its front."""
    return torch.arange(mask.shape[1], device=mask.device) < mask.sum(1, keepdim=True)


def scattered(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The inverse of ``compacted``: the first values of each row go to its True cells in order, 0 to all others."""
    return torch.where(mask, values.gather(1, (mask.long().cumsum(1) - 1).clamp(min=0)), 0)


def of_width(values: Float[Tensor, "N S"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """Token values cut or padded to the mask's width."""
    return torch.nn.functional.pad(values, (0, mask.size(1) - values.size(1)))
