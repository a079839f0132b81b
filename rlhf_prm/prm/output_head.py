"""From hidden states to logits as a causal language model computes them: in some more than a matrix product."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # transformers' names of a soft cap


class OutputHead(nn.Module):
    """The language-model head of ``model``: (N, H) → (N, V) logits in float32.

    What decoders do to the product with the vocabulary's rows is done here too: a bias (Phi), a factor (Cohere,
    Granite, Falcon-H1, …), a soft cap (Gemma 2).

    Args:
        rows: only these tokens' logits, from a copy in float32. Default: all, from the model's own weight.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[int] | None = None):
        super().__init__()
        head, config = model.get_output_embeddings(), model.config.get_text_config()
        bias = getattr(head, "bias", None)
        if rows is None:
            self.weight, self.bias = head.weight, bias
        else:
            self.weight = _copied(head.weight, rows)
            self.bias = None if bias is None else _copied(bias, rows)
        self.factor = logit_factor(config)
        self.cap = next((cap for name in CAPS if (cap := getattr(config, name, None)) is not None), None)

    def forward(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
        return self.logits(hidden)

    def logits(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
        logits = nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float() * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def logit_factor(config: PreTrainedConfig) -> float:
    """What a decoder multiplies its logits by, before a soft cap.

    The names are those of transformers' configurations; Granite and MiniCPM3 divide by theirs.
    """
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if isinstance(factor := getattr(config, name, None), int | float):
            return float(factor)
    scaling = getattr(config, "logits_scaling", None) or 1.0
    return float(scaling if config.model_type == "hyperclovax" else 1 / scaling)


def whole(parameter: nn.Parameter) -> AbstractContextManager:
    """A context in which ``parameter`` has all its rows, even if DeepSpeed has sharded it while loading."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])


def _copied(parameter: nn.Parameter, rows: Sequence[int]) -> nn.Parameter:
    with whole(parameter):
        return nn.Parameter(parameter[list(rows)].detach().float(), requires_grad=False)
