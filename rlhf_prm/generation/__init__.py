"""Where text comes from: in-process Transformers (``hf``), in-process vLLM (``vllm``), OpenAI-compatible endpoints."""

from typing import Protocol, runtime_checkable

from rlhf_prm.generation.requests import Prompt


@runtime_checkable
class Generator(Protocol):
    """Anything that continues text. Sampling settings (temperature, length, …) belong to the object itself."""

    def generate(
        self, prompts: list[Prompt], n: int, *, seed: int | list[int] | None = None, stop: list[str] | None = None
    ) -> list[list[str]]:
        """``n`` continuations of each prompt; they do not include the prompt.

        A prompt is raw text to continue, a list of chat messages to answer, or token ids to continue; ids are given
        only to a generator that has ``reads_ids = True``. A returned text may be a ``Sample``, which has the token ids
        it was sampled as; prefixes are then cut from these. ``seed`` is one number for the call or one per prompt; with
        one per prompt, a prompt's continuations should not depend on the others in the call. Text ends before the first
        of the ``stop`` strings. Callers always pass both keywords, so an implementation needs no defaults for them.

        Raises:
            GenerationError: a prompt cannot be served, for example because it is too long.
        """
        ...
