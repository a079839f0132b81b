"""The settings of a generator for annotation, evaluation and preflight: one model and how it is run."""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reward import resolve
from rlhf_prm.command_line import loading
from rlhf_prm.generation import Generator
from rlhf_prm.generation.backends import BACKENDS
from rlhf_prm.generation.endpoint import run_to_end
from rlhf_prm.generation.templates import ChatTemplate, PromptTemplate
from rlhf_prm.tokenizer_checks import saved_tokenizer

logger = logging.getLogger(__name__)


@dataclass
class GeneratorConfig:
    """One model and how it is run.

    Args:
        model: Hub name, folder, or the name it is served under.
        backend: "hf", "vllm", "endpoint", or a dotted path to a function of this config that gives a ``Generator``;
            "auto" is "endpoint" if there are endpoints, else "hf".
        endpoints: base URLs such as ``http://host:8000/v1``.
        template: "chat" (the tokenizer's), a name in ``templates.TEMPLATES``, or a text with ``{problem}`` in it.
        tokenizer: for "chat", and to send step prefixes to endpoints as token ids; default: the model's own.
        temperature, top_p, max_tokens: sampling.
        extra_body: further sampling fields for endpoints.
        options: keywords of the backend that do not change the results, such as ``timeout``,
            ``tensor_parallel_size`` or ``batch_size``.
    """

    model: str
    backend: str = "auto"
    endpoints: list[str] = field(default_factory=list)
    template: str = "chat"
    tokenizer: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 2048
    extra_body: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.backend == "auto":
            self.backend = "endpoint" if self.endpoints else "hf"
        if (self.backend == "endpoint") != bool(self.endpoints) and self.backend in BACKENDS:
            raise ValueError(f"{self.model}: backend {self.backend!r} does not go with endpoints {self.endpoints}")
        if self.extra_body and self.backend in ("hf", "vllm"):
            raise ValueError(f"{self.model}: extra_body is for endpoints, the {self.backend} backend ignores it")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise ValueError(
                f"{self.model}: got temperature {self.temperature}, top_p {self.top_p}, max_tokens {self.max_tokens}; "
                "expected temperature ≥ 0, 0 < top_p ≤ 1, max_tokens ≥ 1"
            )

    def check(self, needs_template: bool) -> None:
        """Check, without loading the model, that it can be run: the hosts answer, the checkpoint
        exists, the package is installed, and the tokenizer has the template.

        Raises:
            ValueError: it cannot.
        """
        resolve(self.backend, BACKENDS, "backend")
        if self.backend == "endpoint":
            run_to_end(self.build(1).ping)
        elif self.backend == "vllm" and importlib.util.find_spec("vllm") is None:
            raise ValueError(f"{self.model}: the vllm backend needs vLLM; install rlhf-prm[vllm]")
        elif self.backend == "hf":
            from transformers import AutoConfig

            with loading(f"model {self.model}"):
                AutoConfig.from_pretrained(self.model)
        if needs_template:
            self.prompt_template()

    def build(self, concurrency: int) -> Generator:
        """The generator; this loads the model if it runs in this process."""
        return resolve(self.backend, BACKENDS, "backend")(self, concurrency)

    def prompt_template(self) -> Callable[[str], str]:
        """A function from a problem to the text that the model sees before its first step."""
        return ChatTemplate(self.tokenizer or self.model) if self.template == "chat" else PromptTemplate(self.template)

    def prefix_tokenizer(self) -> Any | None:
        """The tokenizer whose ids the model continues; None if it can be given text only.

        That is so for a user's backend, and (with a warning) for an endpoint whose model's tokenizer is not on
        this machine.
        """
        if self.backend in ("hf", "vllm"):
            with loading(f"the tokenizer of {self.model}"):
                return saved_tokenizer(self.model)
        if self.backend != "endpoint" or not self.options.get("send_ids", True):
            return None
        if self.tokenizer is not None or self.template == "chat":
            with loading(f"the tokenizer of {self.tokenizer or self.model}"):
                return saved_tokenizer(self.tokenizer or self.model)
        try:
            return saved_tokenizer(self.model)
        except (OSError, ValueError):  # a name it is served under
            logger.warning(
                "step prefixes are sent to %s as text, which it may tokenize differently from what it writes: set "
                "tokenizer to a folder or Hub name to send them as token ids",
                self.model,
            )
            return None

    def results_depend_on(self) -> dict[str, Any]:
        """The settings that change what is generated."""
        names = ("model", "template", "tokenizer", "temperature", "top_p", "max_tokens", "extra_body")
        return {name: getattr(self, name) for name in names}
