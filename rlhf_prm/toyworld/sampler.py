"""A fast batched sampler for small models: a KV cache, a prompt read once for all its samples, ended rows dropped."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.generation.prompts import prompt_ids
from rlhf_prm.generation.requests import Prompt


class PolicySampler:
    """Samples completions of text prompts from a causal LM in this process.

    Transformers' ``generate`` serves any model; this one is several times faster for a small model on a CPU, because a
    prompt is read once for all its samples and rows that have ended are not computed. Only prompts of equal length
    are sampled together, so no row is padded; subclasses may put others together (``_chunks``).

    Args:
        temperature: of the samples; 0 = greedy.
        batch_size: most rows decoded together.
        progress: the description of a progress bar, or None for no bar.
    """

    drop_at_once = 1  # ended rows are dropped when there are so many of them
    pads = False  # prompts of like length are sampled together, padded in front

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        batch_size: int = 512,
        progress: str | None = None,
    ) -> None:
        if max_new_tokens < 1 or batch_size < 1 or temperature < 0:
            raise ValueError(
                f"got max_new_tokens={max_new_tokens}, batch_size={batch_size}, temperature={temperature}, "
                "expected at least 1, 1 and 0"
            )
        self.model, self.tokenizer = model, tokenizer
        self.max_new_tokens, self.temperature, self.batch_size = max_new_tokens, temperature, batch_size
        self.progress = progress

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        seed: int | Sequence[int] | None = None,
        stop: Sequence[str] | None = None,
    ) -> list[list[str]]:
        """``n`` completions of every prompt, without special tokens.

        Args:
            seed: one for the call, or one per prompt, which makes a prompt's samples independent of the others.
            stop: a completion ends before the first of these texts.
        """
        if not prompts:
            return []
        tokens = self.generate_ids([prompt_ids(self.tokenizer, prompt) for prompt in prompts], n, seed=seed)
        flat = self.tokenizer.batch_decode([ids for group in tokens for ids in group], skip_special_tokens=True)
        for text in stop or ():
            flat = [completion.partition(text)[0] for completion in flat]
        return [flat[i : i + n] for i in range(0, len(flat), n)]

    @torch.inference_mode()
    def generate_ids(
        self, prompts: Sequence[list[int]], n: int = 1, *, seed: int | Sequence[int] | None = None
    ) -> list[list[list[int]]]:
        """As ``generate``, from token ids to token ids; the end-of-sequence token is included where it was sampled."""
        uniforms = self._uniforms(len(prompts), n, seed)
        completions: list[list[list[int]]] = [[] for _ in prompts]
        was_training = self.model.training
        self.model.eval()
        at_once = max(1, self.batch_size // n)
        with tqdm(total=len(prompts) * n, desc=self.progress, unit="sample", disable=self.progress is None) as bar:
            for chunk in self._chunks([len(ids) for ids in prompts], at_once):
                self._begin([i * n + k for i in chunk for k in range(n)])
                sampled = self._decode([prompts[i] for i in chunk], n, uniforms[chunk].flatten(0, 1))
                for row, ids in enumerate(sampled):
                    completions[chunk[row // n]].append(ids)
                bar.update(len(sampled))
        self.model.train(was_training)
        return completions

    def _chunks(self, lengths: list[int], at_once: int) -> list[list[int]]:
        """Which prompts are sampled together: at most ``at_once``, all of one length, or of like length (``pads``)."""
        by_length = defaultdict(list)
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            by_length[None if self.pads else lengths[index]].append(index)
        return [row[first : first + at_once] for row in by_length.values() for first in range(0, len(row), at_once)]

    def _uniforms(self, prompts: int, n: int, seed: int | Sequence[int] | None) -> torch.Tensor:
        """The random numbers of every sample: (prompts, n, tokens), uniform in [0, 1)."""
        if seed is None or isinstance(seed, int):
            generator = torch.Generator()
            generator.seed() if seed is None else generator.manual_seed(seed)
            return torch.rand(prompts, n, self.max_new_tokens, generator=generator)
        if len(seed) != prompts:
            raise ValueError(f"seed: got {len(seed)} seeds for {prompts} prompts, expected one for each")
        generators = (torch.Generator().manual_seed(one) for one in seed)
        return torch.stack([torch.rand(n, self.max_new_tokens, generator=generator) for generator in generators])

    def _decode(self, prompts: list[list[int]], n: int, uniforms: torch.Tensor) -> list[list[int]]:
        """The samples of some prompts, those of a prompt adjacent; ``uniforms``: (samples, tokens)."""
        device, eos = self.model.device, self.tokenizer.eos_token_id
        cache = DynamicCache(config=self.model.config)
        inputs, padding = _left_padded(prompts, device)
        cached = {"past_key_values": cache, "use_cache": True}
        logits = self.model(inputs, **cached, **_placed(padding, inputs), logits_to_keep=1).logits[:, -1]
        if n > 1:
            cache.batch_repeat_interleave(n)
            logits = logits.repeat_interleave(n, 0)
            padding = None if padding is None else padding.repeat_interleave(n, 0)
        uniforms = uniforms.to(device)
        rows = torch.arange(len(logits), device=device)
        tokens = torch.full((len(logits), self.max_new_tokens), eos, device=device)
        lengths = torch.full((len(logits),), self.max_new_tokens, device=device)
        ended = torch.zeros_like(rows, dtype=torch.bool)
        for position in range(self.max_new_tokens):
            sampled = self._replaced(rows, self._sampled(logits, uniforms[rows, position])).masked_fill(ended, eos)
            tokens[rows, position] = sampled
            lengths[rows[~ended & (sampled == eos)]] = position + 1
            ended = sampled == eos
            if ended.all():
                break
            if ended.sum() >= self.drop_at_once:
                alive = self._kept(ended)
                rows, sampled, ended = rows[alive], sampled[alive], ended[alive]
                padding = None if padding is None else padding[alive]
                cache.batch_select_indices(alive)
            if position + 1 < self.max_new_tokens:
                inputs = sampled[:, None]
                past = cache.get_seq_length()
                logits = self.model(inputs, **cached, **_placed(padding, inputs, past)).logits[:, -1]
        return [ids[:length] for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]

    def _kept(self, ended: Tensor) -> Tensor:
        """The rows that go on: those that have not ended, and as many ended ones as make a multiple of the drop."""
        most = -(-int((~ended).sum()) // self.drop_at_once) * self.drop_at_once
        order = torch.cat([(~ended).nonzero()[:, 0], ended.nonzero()[:, 0]])[:most]
        return order.sort().values

    def _begin(self, samples: list[int]) -> None:
        """Called before these samples of the call, those of a prompt adjacent, are decoded together."""

    def _replaced(self, rows: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
        """The next token of the rows that have not ended, where it is not the sampled one (``ToolSampler``)."""
        return sampled

    def _sampled(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """The token at which the cumulated probability passes the row's random number."""
        if self.temperature == 0:
            return logits.argmax(-1)
        cumulated = (logits.float() / self.temperature).softmax(-1).cumsum(-1)
        return torch.searchsorted(cumulated, uniforms[:, None] * cumulated[:, -1:], right=True)[:, 0]


def _left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The prompts (P, T), and how many tokens of padding each has in front; None where no prompt has any."""
    width = max(map(len, prompts))
    padding = [width - len(ids) for ids in prompts]
    inputs = torch.tensor([[0] * short + ids for short, ids in zip(padding, prompts, strict=True)], device=device)
    return inputs, torch.tensor(padding, device=device) if any(padding) else None


def _placed(padding: Tensor | None, inputs: Tensor, past: int = 0) -> dict[str, Tensor]:
    """The mask and the positions of tokens behind ``past`` others, for rows that are padded in front."""
    if padding is None:
        return {}
    places = torch.arange(past + inputs.shape[1], device=inputs.device) - padding[:, None]
    return {"attention_mask": (places >= 0).long(), "position_ids": places[:, past:].clamp(min=0)}
