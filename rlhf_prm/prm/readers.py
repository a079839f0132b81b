"""Read-outs: torch modules that turn token ids into the log-odds that a step is right, at the step ends only."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from rlhf_prm.prm.output_head import OutputHead

CHUNK = 1024  # positions whose full vocabulary row exists at one time (implicit PRMs only)


class HeadReader(nn.Module):
    """A transformer body and a small head, applied at the read positions only: never a (B, T, V) tensor.

    The head gives two columns (wrong, right), whose difference is the log-odds (so sigmoid = softmax over the two), or
    one column, which is the log-odds itself.
    """

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body = body
        self.head = head
        attends = not getattr(body, "_is_stateful", False) and only_attends(body.config)
        self.shares_prefixes = attends and not has_sliding_window(body.config)
        # A flash kernel takes rollouts of any length without padding. Other attention would compute all pairs of a
        # packed row, mask most of them, and spread a NaN of one rollout to the others. A layer with a state (linear
        # attention, convolution) would carry it from one rollout of a packed row into the next.
        self.packs = attends and str(body.config._attn_implementation).startswith("flash_attention")

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        rows: Int[Tensor, " N"],
        columns: Int[Tensor, " N"],
        starts: Int[Tensor, " B"],
        positions: Int[Tensor, "1 T"] | None = None,
        past: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Float[Tensor, " N"]:
        """Log-odds at (``rows``, ``columns``).

        ``positions`` restart where another rollout begins in the same row; ``past`` are the keys and values of a
        prefix of every row.
        """
        if past is None:
            hidden = self.body(input_ids, position_ids=positions, use_cache=False).last_hidden_state
        else:
            rows_of = len(input_ids)
            cache = DynamicCache([(k.expand(rows_of, -1, -1, -1), v.expand(rows_of, -1, -1, -1)) for k, v in past])
            hidden = self.body(input_ids, past_key_values=cache, use_cache=True).last_hidden_state
        logits = self.head(hidden[rows, columns]).float()
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]

    def prefix(self, input_ids: Int[Tensor, "1 P"]) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of a prefix, for ``past``."""
        cache = self.body(input_ids, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in cache.layers]


def only_attends(config: PreTrainedConfig) -> bool:
    """Whether every layer looks at other tokens by attention alone, and none has a state that goes along a row."""
    kinds = getattr(config, "layer_types", None) or ()
    return set(kinds) <= {"full_attention", "sliding_attention", "chunked_attention"}


def has_sliding_window(config: PreTrainedConfig) -> bool:
    """Whether a layer's cache may drop keys and values, so that a prefix cannot be shared."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return getattr(config, "sliding_window", None) is not None
    return set(layer_types) != {"full_attention"}


class TokenLogProbs(OutputHead):
    """Log-probability of each next token under a causal language model, a chunk of positions at a time.

    The head's weight is this module's own, so that DeepSpeed gathers a sharded one once for all chunks.
    ``temperature`` divides the logits.
    """

    def __init__(self, model: PreTrainedModel, temperature: float = 1.0):
        super().__init__(model)
        self.body = model.base_model
        self.temperature = temperature

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Entry t is log p(token t | tokens before); entry 0 is 0."""
        hidden = self.body(input_ids, use_cache=False).last_hidden_state[:, :-1]
        targets = input_ids[:, 1:]
        flat_hidden, flat_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        parts = []
        for begin in range(0, len(flat_targets), CHUNK):
            logits = self.logits(flat_hidden[begin : begin + CHUNK]) / self.temperature
            chosen = logits.gather(-1, flat_targets[begin : begin + CHUNK, None])[:, 0]
            parts.append(chosen - logits.logsumexp(-1))
        out = torch.cat(parts).view(targets.shape) if parts else hidden.new_zeros(targets.shape, dtype=torch.float32)
        return nn.functional.pad(out, (1, 0))


class ImplicitReader(nn.Module):
    """β·Σ(log π − log π_ref) over the response up to the end of each step (implicit PRM, arXiv 2412.01981).

    The two models were trained so that this sum is the log-odds that the response is right, with a
    cross-entropy loss; its sigmoid is the step score.
    """

    shares_prefixes = packs = False

    def __init__(self, policy: TokenLogProbs, reference: TokenLogProbs, beta: float):
        super().__init__()
        self.policy = policy
        self.reference = reference
        self.beta = beta

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        rows: Int[Tensor, " N"],
        columns: Int[Tensor, " N"],
        starts: Int[Tensor, " B"],
    ) -> Float[Tensor, " N"]:
        ratio = self.policy(input_ids) - self.reference(input_ids)
        in_response = torch.arange(input_ids.shape[1], device=input_ids.device) >= starts[:, None]
        summed = torch.where(in_response, ratio, 0.0).double().cumsum(-1)
        return (self.beta * summed[rows, columns]).float()
