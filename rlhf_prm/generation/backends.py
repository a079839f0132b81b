"""The backends: each builds a generator from a ``GeneratorConfig``. A new backend is one function and one line."""

from collections.abc import Callable
from typing import Any

from rlhf_prm.generation import Generator


def _sampling(config: Any) -> dict[str, Any]:
    return {"temperature": config.temperature, "top_p": config.top_p}


def hf(config: Any, concurrency: int) -> Generator:
    """Transformers in this process."""
    from rlhf_prm.generation.hf import HFGenerator

    return HFGenerator(config.model, max_new_tokens=config.max_tokens, **_sampling(config), **config.options)


def vllm(config: Any, concurrency: int) -> Generator:
    """vLLM in this process."""
    from rlhf_prm.generation.vllm import VLLMGenerator

    return VLLMGenerator(config.model, max_tokens=config.max_tokens, **_sampling(config), **config.options)


def endpoint(config: Any, concurrency: int) -> Generator:
    """OpenAI-compatible hosts."""
    from rlhf_prm.generation.endpoint import EndpointGenerator

    return EndpointGenerator(
        config.model,
        config.endpoints,
        max_tokens=config.max_tokens,
        concurrency=concurrency,
        extra_body=config.extra_body,
        **_sampling(config),
        **config.options,
    )


BACKENDS: dict[str, Callable[[Any, int], Generator]] = {"hf": hf, "vllm": vllm, "endpoint": endpoint}
