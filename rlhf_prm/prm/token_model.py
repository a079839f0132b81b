"""A language model that gives the log-probability of every token of rollouts: a teacher, a reference, a PRM."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from rlhf_prm.prm.batching import token_budget_batches
from rlhf_prm.prm.decoders import complete
from rlhf_prm.prm.load import IN_PROCESS, this_device
from rlhf_prm.prm.placement import Placement, loading_for
from rlhf_prm.prm.readers import TokenLogProbs
from rlhf_prm.tokenizer_checks import saved_tokenizer

Sequences = Sequence[tuple[list[int], list[int]]]  # (prompt ids, completion ids) of each rollout


class TokenModel:
    """log p(y_t | prompt, y_<t) of the tokens of completions.

    Args:
        placement: where its weights are kept (``rlhf_prm.prm.placement``), with a ``TokenLogProbs`` as the module.
        context: the most tokens of prompt and completion together; tokens past it have NaN.
        max_batch_tokens: padded size of a micro-batch.
    """

    def __init__(self, placement: Placement, *, context: int, max_batch_tokens: int) -> None:
        self.placement, self.context, self.max_batch_tokens = placement, context, max_batch_tokens
        self.forwards = self.tokens = 0

    @property
    def reader(self) -> nn.Module:
        """The module itself, wherever its weights are now."""
        return getattr(self.placement.reader, "module", self.placement.reader)  # DeepSpeed's engine holds it

    def log_probs(self, sequences: Sequences) -> list[Tensor]:
        """(T_i,) float32 on the CPU for each rollout. All ranks call it equally often."""
        batches = self.batches(sequences)
        forwards = self.placement.agreed(len(batches), None)
        found = [torch.full((len(ids),), torch.nan) for _, ids in sequences]
        if not forwards:
            return found
        with torch.no_grad(), self.placement.resident() as reader:
            for batch in batches:
                for i, row in zip(batch, self.rows(reader, [sequences[i] for i in batch]), strict=True):
                    found[i][: len(row)] = row.float().cpu()
            for _ in range(forwards - len(batches)):  # dummy forwards, as other ranks have more
                reader(torch.zeros(1, 2, dtype=torch.long, device=self.placement.device))
        return found

    def batches(self, sequences: Sequences) -> list[list[int]]:
        """Indices in micro-batches of similar lengths."""
        lengths = [min(len(prompt) + len(ids), self.context) for prompt, ids in sequences]
        return token_budget_batches(lengths, self.max_batch_tokens)

    def rows(self, reader: nn.Module, sequences: Sequences) -> list[Tensor]:
        """The log-probabilities of the completion tokens within the context, on the device; with gradients if on."""
        whole = [torch.tensor([*prompt, *ids][: self.context]) for prompt, ids in sequences]
        # Padding is on the right and attention is causal, so no attention mask is needed.
        padded = nn.utils.rnn.pad_sequence(whole, batch_first=True).to(self.placement.device)
        self.forwards += 1
        self.tokens += sum(map(len, whole))
        values = reader(padded)
        return [row[len(prompt) : len(ids)] for row, (prompt, _), ids in zip(values, sequences, whole, strict=True)]


def load_token_model(
    name_or_path: str | os.PathLike,
    placement: str = "replicate",
    *,
    temperature: float = 1.0,
    device: str | torch.device | None = None,
    dtype: str = "auto",
    max_length: int | None = None,
    max_batch_tokens: int | None = None,
    attn_implementation: str | None = None,
) -> TokenModel:
    """A causal language model as a ``TokenModel``; the keywords are those of ``load_prm``.

    Raises:
        ValueError: the placement is unknown, or weights are missing.
    """
    if placement not in IN_PROCESS:
        raise ValueError(
            f"placement={placement!r}: expected one of {', '.join(IN_PROCESS)} for a model in this process"
        )
    device = this_device() if device is None else torch.device(device)
    auto = torch.bfloat16 if device.type == "cuda" else torch.float32
    precision = auto if dtype == "auto" else getattr(torch, dtype)
    options: dict[str, Any] = {"dtype": precision}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    with loading_for(placement, precision):
        model = complete(AutoModelForCausalLM, os.fspath(name_or_path), **options)
        reader = TokenLogProbs(model, temperature)
    limit = model.config.max_position_embeddings
    return TokenModel(
        IN_PROCESS[placement](reader, device),
        context=min(max_length or limit, limit),
        max_batch_tokens=max_batch_tokens or (16384 if device.type == "cuda" else 2048),
    )


def check_tokenizers(own: Any, other: str | os.PathLike, prompt: str | list[dict[str, str]] | None = None) -> None:
    """Check that another model's tokenizer is the policy's.

    Equal sizes are not enough: the text of every id must be equal, the end-of-sequence id too, and, if a prompt is
    given, its ids.

    Raises:
        ValueError: they differ; the message names the first difference.
    """
    theirs = saved_tokenizer(os.fspath(other))
    mine, yours = own.get_vocab(), theirs.get_vocab()
    for token, number in mine.items():
        if yours.get(token) != number:
            raise ValueError(
                f"{other}: its tokenizer has {yours.get(token)} for token {token!r}, the policy's has {number}; "
                "expected a model that reads the same ids (of the same family)"
            )
    if own.eos_token_id != theirs.eos_token_id:
        raise ValueError(
            f"{other}: its end-of-sequence id is {theirs.eos_token_id}, the policy's is {own.eos_token_id}"
        )
    if prompt is not None and _ids(own, prompt) != _ids(theirs, prompt):
        raise ValueError(f"{other}: it encodes the prompt {str(prompt)[:60]!r} differently from the policy")


def _ids(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    rendered = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])
