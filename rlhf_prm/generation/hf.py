"""In-process generation with Transformers: for small models, tests, and machines without vLLM."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from rlhf_prm.command_line import loading
from rlhf_prm.generation.prompts import first_tokens, prompt_ids, prompt_seeds
from rlhf_prm.generation.requests import Prompt, Sample, unit_seed
from rlhf_prm.tokenizer_checks import check_policy, saved_tokenizer
from rlhf_prm.unsharded_loading import unsharded_loading


class SeededSampling(LogitsProcessor):
    """Exact sampling by the Gumbel trick, with a separate random stream for every row.

    argmax_v (logit_v − log E_v) with E_v ~ Exp(1) is a draw from softmax(logits), so greedy decoding after this
    samples, and a row's text depends on its prompt and its seed, not on the other rows.
    """

    def __init__(self, seeds: list[int], device: torch.device):
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        noise = torch.empty_like(scores)
        for row, stream in zip(noise, self.streams, strict=True):
            row.exponential_(generator=stream)
        return scores - noise.log()


class StopAt(StoppingCriteria):
    """Ends a row when its newest text contains a stop string (Transformers' own needs a byte-level vocabulary)."""

    def __init__(self, stop: list[str], tokenizer: Any, prompt_width: int):
        self.stop, self.tokenizer, self.prompt_width = stop, tokenizer, prompt_width
        self.tail = max(map(len, stop)) + 1  # tokens that can hold the longest stop string
        self.lengths: dict[int, int] = {}  # row → new tokens up to its stop string

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        newest = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.tail) :]
        texts = self.tokenizer.batch_decode(newest, skip_special_tokens=True)
        hits = [any(s in text for s in self.stop) for text in texts]
        for row, hit in enumerate(hits):
            if hit:
                self.lengths.setdefault(row, input_ids.shape[1] - self.prompt_width)
        return torch.tensor(hits, device=input_ids.device)


class HFGenerator:
    """``Generator`` on a Transformers causal LM. Its texts are ``Sample``s.

    Args:
        model: the model, or its folder or Hub name.
        tokenizer: default: loaded from ``model``'s name.
        max_new_tokens: longest continuation, in tokens; shorter if the model's context ends earlier.
        temperature: 0 is greedy.
        top_p: nucleus, 1 = all.
        batch_size: rows (prompts × n) per forward pass.

    Raises:
        ValueError: the tokenizer is not the model's, or has no end-of-sequence token that ends an answer.
    """

    reads_ids = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        max_new_tokens: int = 1024,
        temperature: float = 1.0,
        top_p: float = 1.0,
        batch_size: int = 64,
        device: str | None = None,
    ):
        if isinstance(model, str):
            from transformers import AutoModelForCausalLM

            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            with loading(f"model {model}"), unsharded_loading():
                tokenizer = tokenizer or saved_tokenizer(model)
                model = AutoModelForCausalLM.from_pretrained(model, dtype="auto").to(device)
        if tokenizer is None:
            raise ValueError("tokenizer: expected one beside a model that is already loaded")
        check_policy(tokenizer, model)
        self.model, self.tokenizer = model.eval(), tokenizer
        ends = model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p
        self.batch_size = batch_size

    def generate(
        self, prompts: list[Prompt], n: int, *, seed: int | list[int] | None = None, stop: list[str] | None = None
    ) -> list[list[str]]:
        """See ``Generator``."""
        limit = self.model.config.max_position_embeddings
        ids = [prompt_ids(self.tokenizer, prompt, limit) for prompt in prompts]
        seeds = [[unit_seed(base, j) for j in range(n)] for base in prompt_seeds(seed, len(prompts))]
        rows = [(i, j) for i in range(len(prompts)) for j in range(n)]
        rows.sort(key=lambda row: len(ids[row[0]]))  # rows of similar length need little padding
        texts: dict[tuple[int, int], str] = {}
        # A batch ends at one length, so it holds rows that the context leaves the same room.
        for room, same in groupby(rows, key=lambda row: min(self.max_new_tokens, limit - len(ids[row[0]]))):
            alike = list(same)
            for start in range(0, len(alike), self.batch_size):
                chunk = alike[start : start + self.batch_size]
                batch = self._continue([ids[i] for i, _ in chunk], [seeds[i][j] for i, j in chunk], room, stop)
                batch = [Sample(text, written, ids[i]) for (i, _), (text, written) in zip(chunk, batch, strict=True)]
                texts.update(zip(chunk, batch, strict=True))
        return [[texts[i, j] for j in range(n)] for i in range(len(prompts))]

    @torch.no_grad()
    def choose(self, prompts: list[Prompt], choices: tuple[str, ...]) -> list[list[float]]:
        """For each prompt, the probabilities of the choices' first tokens as the next one, normalised over them."""
        wanted = first_tokens(self.tokenizer, choices)
        found = []
        for prompt in prompts:
            ids = prompt_ids(self.tokenizer, prompt, self.model.config.max_position_embeddings)
            logits = self.model(torch.tensor([ids], device=self.model.device)).logits[0, -1, wanted]
            found.append(logits.float().softmax(-1).tolist())
        return found

    @torch.no_grad()
    def _continue(
        self, ids: list[list[int]], seeds: list[int], room: int, stop: list[str] | None
    ) -> list[tuple[str, list[int]]]:
        """Text and at most ``room`` tokens of each row."""
        device = self.model.device
        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.ends)
        tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
        processors = LogitsProcessorList()
        if self.temperature > 0:
            processors.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_p < 1:
                processors.append(TopPLogitsWarper(self.top_p))
            processors.append(SeededSampling(seeds, device))
        stopping = StopAt(stop, self.tokenizer, width) if stop else None
        ends = sorted(self.ends)
        config = GenerationConfig(do_sample=False, max_new_tokens=room, pad_token_id=pad, eos_token_id=ends)
        with only_generation_config(self.model, config):
            out = self.model.generate(
                tokens,
                attention_mask=mask,
                generation_config=config,
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([stopping] if stopping else []),
            )
        texts = self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        stopped = stopping.lengths if stopping else {}
        tokens = [up_to_the_end(row[: stopped.get(i)], self.ends) for i, row in enumerate(out[:, width:].tolist())]
        return [(cut_at(text, stop), row) for text, row in zip(texts, tokens, strict=True)]


@contextmanager
def only_generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Inside the context the model's own generation config is this one, so that samples are from its distribution.

    ``generate`` fills the open fields of a config that it is given from the model's own, which may hold a repetition
    penalty or suppressed tokens.
    """
    owner = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter's base has it
    own, owner.generation_config = owner.generation_config, config
    try:
        yield
    finally:
        owner.generation_config = own


def up_to_the_end(ids: list[int], ends: Collection[int]) -> list[int]:
    """The ids up to and including the first end-of-sequence token."""
    stop = next((position for position, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: stop + 1]


def cut_at(text: str, stop: list[str] | None) -> str:
    """The text before the first of the stop strings."""
    ends = [text.find(s) for s in stop or () if s in text]
    return text[: min(ends)] if ends else text
