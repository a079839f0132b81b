"""In-process vLLM: continuous batching, and one prefix cache for all the steps of a solution."""

import math
from typing import Any

from rlhf_prm.generation.prompts import first_tokens, prompt_ids, prompt_seeds
from rlhf_prm.generation.requests import Prompt, Sample
from rlhf_prm.tokenizer_checks import check_ends, check_is_saved_one


class VLLMGenerator:
    """``Generator`` on ``vllm.LLM``, with prefix caching on. Its texts are ``Sample``s.

    Args:
        model: folder or Hub name.
        max_tokens, temperature, top_p: sampling.
        engine: further keywords of ``vllm.LLM`` (``tensor_parallel_size``, ``gpu_memory_utilization``, …).

    Raises:
        ValueError: vLLM cannot be imported, or it has replaced the saved tokenizer by another one.
    """

    reads_ids = True

    def __init__(
        self,
        model: str,
        *,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        top_p: float = 1.0,
        **engine: Any,
    ):
        try:
            from vllm import LLM
        except ImportError as error:
            raise ValueError(f"the vllm backend cannot be imported ({error}); install rlhf-prm[vllm]") from error
        self.llm = LLM(model, **({"enable_prefix_caching": True} | engine))
        self.tokenizer = self.llm.get_tokenizer()
        check_is_saved_one(self.tokenizer, engine.get("tokenizer") or model)
        check_ends(self.tokenizer)
        self.limit = self.llm.llm_engine.model_config.max_model_len
        self.max_tokens, self.temperature, self.top_p = max_tokens, temperature, top_p

    def generate(
        self, prompts: list[Prompt], n: int, *, seed: int | list[int] | None = None, stop: list[str] | None = None
    ) -> list[list[str]]:
        """See ``Generator``."""
        from vllm import SamplingParams

        ids = [prompt_ids(self.tokenizer, prompt, self.limit) for prompt in prompts]
        params = [
            SamplingParams(
                n=n,
                seed=row_seed,
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=min(self.max_tokens, self.limit - len(row)),
                stop=stop,
            )
            for row, row_seed in zip(ids, prompt_seeds(seed, len(prompts)), strict=True)
        ]
        outputs = self.llm.generate([{"prompt_token_ids": row} for row in ids], params, use_tqdm=False)
        return [
            [Sample(answer.text, list(answer.token_ids), row) for answer in output.outputs]
            for row, output in zip(ids, outputs, strict=True)
        ]

    def choose(self, prompts: list[Prompt], choices: tuple[str, ...]) -> list[list[float]]:
        """For each prompt the probabilities of the choices' first tokens as the next one, among them alone.

        vLLM gives the 20 most likely tokens; a choice that is not among them gets the last one's probability.
        """
        from vllm import SamplingParams

        wanted = first_tokens(self.tokenizer, choices)
        ids = [prompt_ids(self.tokenizer, prompt, self.limit) for prompt in prompts]
        params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20)
        outputs = self.llm.generate([{"prompt_token_ids": row} for row in ids], params, use_tqdm=False)
        found = []
        for output in outputs:
            told = {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
            weights = [math.exp(told.get(token, min(told.values()))) for token in wanted]
            found.append([weight / sum(weights) for weight in weights])
        return found
