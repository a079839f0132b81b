"""A fast batched sampler for tiny models: a KV cache, prompts of equal length together, finished rows dropped."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


class PolicySampler:
    """Samples completions of text prompts from a causal LM in this process.

    Transformers' ``generate`` serves any model; this one is several times faster for a model whose forward pass takes
    about a millisecond, because no row is ever padded and rows that have ended are not computed.

    Args:
        temperature: of the samples; 0 = greedy.
        batch_size: most rows decoded together.
        progress: the description of a progress bar, or None for no bar.
    """

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
        prompts: Sequence[str],
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
        tokens = self.generate_ids(self.tokenizer(list(prompts)).input_ids, n, seed=seed)
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
        by_length = defaultdict(list)
        for index, ids in enumerate(prompts):
            by_length[len(ids)].append(index)
        completions: list[list[list[int]]] = [[] for _ in prompts]
        was_training = self.model.training
        self.model.eval()
        at_once = max(1, self.batch_size // n)
        with tqdm(total=len(prompts) * n, desc=self.progress, unit="sample", disable=self.progress is None) as bar:
            for length in sorted(by_length):
                indices = by_length[length]
                for first in range(0, len(indices), at_once):
                    chunk = indices[first : first + at_once]
                    self._begin([i * n + k for i in chunk for k in range(n)])
                    sampled = self._decode([prompts[i] for i in chunk], n, uniforms[chunk].flatten(0, 1))
                    for row, ids in enumerate(sampled):
                        completions[chunk[row // n]].append(ids)
                    bar.update(len(sampled))
        self.model.train(was_training)
        return completions

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
        """The samples of prompts of one length, those of a prompt adjacent; ``uniforms``: (samples, tokens)."""
        device, eos = self.model.device, self.tokenizer.eos_token_id
        cache = DynamicCache(config=self.model.config)
        inputs = torch.tensor(prompts, device=device)
        logits = self.model(inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        if n > 1:
            cache.batch_repeat_interleave(n)
            logits = logits.repeat_interleave(n, 0)
        uniforms = uniforms.to(device)
        rows = torch.arange(len(logits), device=device)
        tokens = torch.full((len(logits), self.max_new_tokens), eos, device=device)
        lengths = torch.full((len(logits),), self.max_new_tokens, device=device)
        for position in range(self.max_new_tokens):
            sampled = self._replaced(rows, self._sampled(logits, uniforms[rows, position]))
            tokens[rows, position] = sampled
            ended = sampled == eos
            lengths[rows[ended]] = position + 1
            if ended.any():
                alive = (~ended).nonzero()[:, 0]
                if not len(alive):
                    break
                rows, sampled = rows[alive], sampled[alive]
                cache.batch_select_indices(alive)
            if position + 1 < self.max_new_tokens:
                logits = self.model(sampled[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
        return [ids[:length] for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]

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
