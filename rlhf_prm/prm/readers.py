"""Read-outs: torch modules that turn token ids into the log-odds that a step is right, at the step ends only."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

CHUNK = 1024  # positions whose full vocabulary row exists at one time (implicit PRMs only)


def whole(parameter: nn.Parameter) -> AbstractContextManager:
    """A context in which ``parameter`` has all its rows, even if DeepSpeed has sharded it while loading."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])


class HeadReader(nn.Module):
    """A transformer body and a small head, applied at the read positions only: never a (B, T, V) tensor.

    The head gives two columns (wrong, right), whose difference is the log-odds (so sigmoid = softmax over the two), or
    one column, which is the log-odds itself.
    """

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body = body
        self.head = head
        self.shares_prefixes = not has_sliding_window(body.config)
        # A flash kernel takes rollouts of any length without padding. Other attention would compute all pairs of a
        # packed row, mask most of them, and spread a NaN of one rollout to the others.
        self.packs = str(body.config._attn_implementation).startswith("flash_attention")

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


def has_sliding_window(config) -> bool:
    """Whether a layer's cache may drop keys and values, so that a prefix cannot be shared.

    A sliding window keeps only the last ones, linear attention keeps none.
    """
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return getattr(config, "sliding_window", None) is not None
    return set(layer_types) != {"full_attention"}


class TwoTokenHead(nn.Module):
    """The two vocabulary rows that a causal-LM PRM compares: (N, H) → (N, 2) logits of bad and good, in fp32."""

    def __init__(self, output_weight: nn.Parameter, bad_id: int, good_id: int):
        super().__init__()
        with whole(output_weight):
            self.weight = nn.Parameter(output_weight[[bad_id, good_id]].detach().float(), requires_grad=False)

    def forward(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N 2"]:
        return nn.functional.linear(hidden.to(self.weight.dtype), self.weight)


class TokenLogProbs(nn.Module):
    """Body and language-model head → log-probability of each next token, a chunk of positions at a time.

    ``temperature`` divides the logits.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, temperature: float = 1.0):
        super().__init__()
        self.body = body
        self.weight = head.weight
        self.temperature = temperature

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Entry t is log p(token t | tokens before); entry 0 is 0."""
        hidden = self.body(input_ids, use_cache=False).last_hidden_state[:, :-1]
        targets = input_ids[:, 1:]
        flat_hidden, flat_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        parts = []
        for begin in range(0, len(flat_targets), CHUNK):
            logits = nn.functional.linear(flat_hidden[begin : begin + CHUNK], self.weight).float() / self.temperature
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
