"""In-process generation with Transformers: for small models, tests, and machines without vLLM."""

from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from rlhf_prm.command_line import loading
from rlhf_prm.generation.prompts import first_tokens, prompt_ids, prompt_seeds
from rlhf_prm.generation.requests import Prompt, unit_seed


class SeededSampling(LogitsProcessor):
    """Exact sampling by the Gumbel trick, every row from its own random stream.

    argmax_v (logit_v − log E_v) with E_v ~ Exp(1) is a draw from softmax(logits), so greedy decoding after this
    samples, and a row's text depends on its prompt and its seed, not on the rows beside it.
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
    """Ends a row when its newest text holds a stop string (Transformers' own needs a byte-level vocabulary)."""

    def __init__(self, stop: list[str], tokenizer: Any, prompt_width: int):
        self.stop, self.tokenizer, self.prompt_width = stop, tokenizer, prompt_width
        self.tail = max(map(len, stop)) + 1  # tokens that can hold the longest stop string

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        newest = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.tail) :]
        texts = self.tokenizer.batch_decode(newest, skip_special_tokens=True)
        hits = [any(s in text for s in self.stop) for text in texts]
        return torch.tensor(hits, device=input_ids.device)


class HFGenerator:
    """``Generator`` on a Transformers causal LM.

    Args:
        model: the model, or its folder or Hub name.
        tokenizer: default: loaded from ``model``'s name.
        max_new_tokens: longest continuation, in tokens; shortened where the model's context ends earlier.
        temperature: 0 is greedy.
        top_p: nucleus, 1 = all.
        batch_size: rows (prompts × n) per forward pass.
    """

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
            from transformers import AutoModelForCausalLM, AutoTokenizer

            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            with loading(f"model {model}"):
                tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
                model = AutoModelForCausalLM.from_pretrained(model, dtype="auto").to(device)
        if tokenizer is None:
            raise ValueError("tokenizer: expected one beside a model that is already loaded")
        self.model, self.tokenizer = model.eval(), tokenizer
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
        rows.sort(key=lambda row: len(ids[row[0]]))  # rows of similar length pad each other least
        texts: dict[tuple[int, int], str] = {}
        for start in range(0, len(rows), self.batch_size):
            chunk = rows[start : start + self.batch_size]
            batch = self._continue([ids[i] for i, _ in chunk], [seeds[i][j] for i, j in chunk], stop)
            texts.update(zip(chunk, batch, strict=True))
        return [[texts[i, j] for j in range(n)] for i in range(len(prompts))]

    @torch.no_grad()
    def choose(self, prompts: list[Prompt], choices: tuple[str, ...]) -> list[list[float]]:
        """For each prompt the probabilities of the choices' first tokens as the next one, among them alone."""
        wanted = first_tokens(self.tokenizer, choices)
        found = []
        for prompt in prompts:
            ids = prompt_ids(self.tokenizer, prompt, self.model.config.max_position_embeddings)
            logits = self.model(torch.tensor([ids], device=self.model.device)).logits[0, -1, wanted]
            found.append(logits.float().softmax(-1).tolist())
        return found

    @torch.no_grad()
    def _continue(self, ids: list[list[int]], seeds: list[int], stop: list[str] | None) -> list[str]:
        device = self.model.device
        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
        processors = LogitsProcessorList()
        if self.temperature > 0:
            processors.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_p < 1:
                processors.append(TopPLogitsWarper(self.top_p))
            processors.append(SeededSampling(seeds, device))
        out = self.model.generate(
            tokens,
            attention_mask=mask,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=min(self.max_new_tokens, self.model.config.max_position_embeddings - width),
            pad_token_id=pad,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([StopAt(stop, self.tokenizer, width)] if stop else []),
        )
        texts = self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [cut_at(text, stop) for text in texts]


def cut_at(text: str, stop: list[str] | None) -> str:
    """The text before the first of the stop strings."""
    ends = [text.find(s) for s in stop or () if s in text]
    return text[: min(ends)] if ends else text
