"""Log-probabilities of given tokens from an endpoint, as ``vllm serve`` returns them for ``prompt_logprobs``."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import torch
from torch import Tensor

from rlhf_prm.generation.endpoint import EndpointError, EndpointGenerator, run_to_end
from rlhf_prm.generation.hosts import Host
from rlhf_prm.generation.requests import Generate, GenerationError
from rlhf_prm.retries import PassingFailure


class EndpointTokenModel(EndpointGenerator):
    """log p(y_t | prompt, y_<t) of the tokens of completions, from hosts that serve the model (temperature 1).

    The ids are sent as they are, so the model must have the policy's tokenizer. Hosts, retries, deadlines and keys are
    those of ``EndpointGenerator``. A rollout that a host refuses (past its context) has NaN.
    """

    def __init__(self, model: str, urls: list[str], **options: Any) -> None:
        super().__init__(model, urls, max_tokens=1, temperature=1.0, **options)

    def log_probs(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[Tensor]:
        """(T_i,) float32 for each (prompt ids, completion ids).

        Raises:
            EndpointError: no host can be used.
        """

        async def everything() -> list[Tensor]:
            async with self:
                return list(await asyncio.gather(*(self._one(prompt, ids) for prompt, ids in sequences)))

        return run_to_end(everything) if sequences else []

    async def _one(self, prompt: list[int], ids: list[int]) -> Tensor:
        request = Generate([*prompt, *ids], 1, 0, group=",".join(map(str, prompt)))
        try:
            found = await self.complete(request)
        except EndpointError:
            raise
        except GenerationError:
            return torch.full((len(ids),), torch.nan)
        return torch.tensor(found[len(prompt) :], dtype=torch.float32)

    async def _post(
        self, client: httpx.AsyncClient, host: Host, request: Generate, stop: Any, timeout: float
    ) -> list[Any]:
        body = self.sampling | {"prompt": request.prompt, "prompt_logprobs": 1}
        url = f"{host.url}/completions"
        try:
            async with asyncio.timeout(timeout):
                response = await client.post(url, json=body)
        except TimeoutError:
            raise PassingFailure("timeout") from None
        except httpx.HTTPError as error:
            raise PassingFailure(f"{type(error).__name__}: {error}") from error
        self._raise_for_status(url, response)
        try:
            answer = response.json()
            told = answer["choices"][0].get("prompt_logprobs")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise PassingFailure(f"garbage: {response.content[:80]!r}") from error
        if told is None:
            raise EndpointError(
                f"{url} answers without prompt_logprobs, expected a server that gives them (vllm serve does)"
            )
        try:
            found = [
                float("nan"),
                *(_of(entry, token) for entry, token in zip(told[1:], request.prompt[1:], strict=True)),
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise PassingFailure(f"garbage: {response.content[:80]!r}") from error
        self.usage.count(answer.get("usage"))
        return found


def _of(entry: dict[str, Any], token: int | str) -> float:
    value = entry[str(token)]
    return float(value["logprob"] if isinstance(value, dict) else value)
